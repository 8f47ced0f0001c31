"""``aang audit``: find faults in a task's data before you train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render

if TYPE_CHECKING:
    from aang_core.config.settings import RunConfig
    from aang_core.data.task import Task
    from aang_core.registry.registry import Registry


@click.command("audit")
@click.argument("task")
@click.option("--strict", is_flag=True, help="Exit with 1 if something was found.")
@click.option(
    "--model",
    metavar="MODEL",
    default="",
    help="Also count this encoder's tokens, and what is cut off.",
)
@options.number("--max-length", "Longest row, in positions, with --model.", 2, default=128)
@options.reading
@options.as_json
@options.plugins
@click.pass_context
def command(
    ctx: click.Context,
    /,
    task: str,
    strict: bool,
    model: str,
    max_length: int,
    as_json: bool,
    plugins: tuple[str, ...],
    **given: Any,
) -> None:
    """Find leaks, repeats and contradictions in a task.

    Also counts labels and lengths. TASK is what `aang run --task` takes.

    \b
    Example:
      aang audit my_task/ --model roberta-base
    """
    from aang_core.config.settings import RunConfig
    from aang_core.data.audit import advice, audit_task, findings

    registry = options.registry_of(plugins)
    reading = {
        key: value for key, (value, _) in options.given_flags(options.READING, given).items()
    }
    # an audit counts empty rows; a run refuses them unless it is told to leave them out
    reading["drop_empty"] = True
    config = RunConfig.from_mapping({"task": task, "model": model, "method": "finetune", **reading})
    loaded, tokens = _loaded(config, registry, bool(model), max_length)
    found = audit_task(loaded)
    if tokens:
        found["tokens"] = {"model": model, "max_length": max_length, "splits": tokens}
    if as_json:
        render.document(found)
    else:
        _print(found)
    said = findings(found)
    for remark in (*loaded.remarks, *said, *advice(found)):
        render.remark(remark)
    if found["dropped"] and not given["drop_empty"]:
        render.remark(
            "a run refuses a task with empty cells; leave these rows out with --drop-empty, or with "
            "drop_empty = true in task.toml; to train on the texts of those that lack a label: --unlabelled empty"
        )
    elif not said:
        render.remark("nothing was found")
    if strict and (said or found["dropped"]):
        ctx.exit(1)


def _loaded(
    config: RunConfig, registry: Registry, with_model: bool, max_length: int
) -> tuple[Task, dict[str, dict[str, float]]]:
    """The task and, with a model, its token lengths."""
    import attrs

    from aang_core.data.audit import token_lengths
    from aang_core.train.resolve import load_backbone, resolve
    from aang_core.train.session import task_rows

    resolved = resolve(config, registry)
    if not with_model:
        return resolved.task, {}
    training = attrs.evolve(config.training, max_length=2**20)  # the encoder's own limit holds
    backbone = load_backbone(
        attrs.evolve(resolved, config=attrs.evolve(config, training=training)), 0
    )
    lengths = {
        split: [len(row) for row in task_rows(backbone, resolved.task, split)]
        for split in resolved.task.splits
    }
    return resolved.task, token_lengths(lengths, max_length)


def _print(found: Mapping[str, Any]) -> None:
    tokens = found.get("tokens", {}).get("splits", {})
    rows = [
        {
            "split": split,
            "rows": rows,
            "left_out": sum(each["rows"] for each in found["dropped"].get(split, {}).values()),
            "in_train": found["in_train"].get(split),
            "near_train": found["near"].get(split),
            "duplicates": found["duplicates"][split],
            "standard_error": found["standard_error"].get(split),
            "mean_length": found["lengths"][split]["mean"],
            "max_length": found["lengths"][split]["max"],
            "mean_tokens": tokens.get(split, {}).get("mean"),
            "cut_off": f"{tokens[split]['cut_rows']:.1%}" if split in tokens else None,
            **{f"in_{n}": (counts or {}).get(split) for n, counts in found["external"].items()},
        }
        for split, rows in found["splits"].items()
    ]
    render.table(rows, columns=list(rows[0]), title=f"Task {found['task']}")
    names = list(dict.fromkeys(name for counts in found["labels"].values() for name in counts))
    total = 0 if found["kind"] == "regression" else sum(found["labels"]["train"].values())
    labels = [
        {
            "label": name,
            **{split: counts.get(name) for split, counts in found["labels"].items()},
            **({"share": f"{found['labels']['train'][name] / total:.1%}"} if total else {}),
        }
        for name in names
    ]
    if labels:
        render.table(labels, columns=list(labels[0]), title="Labels")
