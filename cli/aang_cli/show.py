"""``aang show``: a real example of an objective, stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render

if TYPE_CHECKING:
    from aang_core.check.walk import Walk
    from aang_core.config.settings import RunConfig
    from aang_core.registry.registry import Registry

SMALLEST = "scratch:tiny"
"""What stands in for a default encoder that is not installed."""


@click.command("show")
@click.argument("objective")
@click.option(
    "--task", metavar="TASK", default="sample", show_default=True, help="As in `aang run`."
)
@click.option(
    "--model", metavar="MODEL", default="", help="As in `aang run`.  [default: the task's]"
)
@options.reading
@options.teacher_model
@options.number("--seed", "Which example.", 0, default=0)
@options.number("--rows", "How many rows.", 1, default=1)
@options.assignments("primitives.mask.rate=0.3")
@options.as_json
@options.plugins
def command(
    objective: str,
    task: str,
    model: str,
    teacher_model: str | None,
    seed: int,
    rows: int,
    assignments: tuple[str, ...],
    as_json: bool,
    plugins: tuple[str, ...],
    **reading: Any,
) -> None:
    """Show what an objective does to an example of a task.

    Warns if it teaches nothing there. OBJECTIVE is data/transform/representation/output, or a name that the
    literature has for one.

    \b
    Example:
      aang show task/mask/bidirectional/denoise
      aang show spanbert --task my_task/ --model roberta-base
      aang show task/delete/left-to-right/next-token --set primitives.delete.rate=0.3
    """
    from aang_core.config.file import build_config

    registry = options.registry_of(plugins)
    flags = {
        "task": (task, "--task"),
        "model": (model, "--model"),
        **options.given_flags(options.READING, reading),
        "teacher_model": (teacher_model, "--teacher-model"),
        "seeds": ([seed], "--seed"),
        "method": ("finetune", "OBJECTIVE"),
    }
    given = {key: value for key, value in flags.items() if value[0] not in ("", {}, None)}
    config = build_config(None, given, assignments)
    walk = _walk(objective, config, registry, rows)
    if as_json:
        render.document(walk.as_mapping())
        return
    from aang_cli.walk_view import show

    show(walk, registry)


def _walk(objective: str, config: RunConfig, registry: Registry, rows: int) -> Walk:
    """Bind one objective and walk through it; where the default encoder is missing, with the smallest one.

    :raises AangError: where it is unknown, illegal, or its data or encoder is missing.
    """
    import attrs

    from aang_cli.progress import ProgressBar
    from aang_core.check.walk import walk
    from aang_core.errors import ModelError
    from aang_core.train.resolve import bind_one

    bar = ProgressBar()
    with bar:
        told = bar.on_preparation
        try:
            bound, backbone = bind_one(config, objective, registry, progress=told)
        except ModelError as cause:
            if config.model:
                raise
            bar.on_remark(f"{cause}\nshown with {SMALLEST} instead; name an encoder with --model")
            config = attrs.evolve(config, model=SMALLEST)
            bound, backbone = bind_one(config, objective, registry, progress=told)
    return walk(bound, backbone, rows, config.seeds[0])
