"""``aang sweep``: every configuration of an experiment's file with every seed, several at once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render

if TYPE_CHECKING:
    from aang_core.study.sweeps.sweep_file import Experiment

_ELSEWHERE = {"tokens", "directory"}
"""Columns of ``results.md`` that a terminal has no room for."""


@click.command("sweep")
@click.argument("spec", type=options.PATH)
@options.path("--out", "DIR", "The sweep's directory; required, except with --dry-run.")
@options.number(
    "--workers", "Trials at the same time.  [default: one for each GPU, or core, at most 8]", 1
)
@options.number(
    "--retries", "Try a failed trial again this often, from its checkpoint.", 0, default=1
)
@click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Use Ray Tune, on this machine or on the cluster at ADDRESS.",
)
@click.option(
    "--task",
    "tasks",
    metavar="TASK",
    multiple=True,
    help="Run on this instead of the file's tasks; repeatable.",
)
@options.number(
    "--seed", "Run with this seed instead of the file's; repeatable.", name="seeds", multiple=True
)
@options.assignments("training.max_steps=300")
@click.option("--dry-run", is_flag=True, help="Print the configurations, and train nothing.")
@options.loudness
@options.as_json
def command(
    spec: Path,
    out: Path | None,
    workers: int | None,
    retries: int,
    ray: str | None,
    tasks: tuple[str, ...],
    seeds: tuple[int, ...],
    assignments: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run every configuration of a file with every seed.

    One is chosen for each task, by its mean on dev. SPEC is a TOML file of [base], [[runs]], [grid] and [random]; see
    docs/sweeps.md. The same command continues a sweep that stopped: finished trials are kept, interrupted ones continue
    from their checkpoints, failed ones are tried again.

    \b
    Example:
      aang sweep docs/experiments/paper/table6.toml --task my_task/ --out runs/table6
      aang sweep search.toml --out runs/search --workers 4 --set training.max_steps=300
      aang sweep search.toml --out runs/search --ray
      aang sweep search.toml --dry-run
    """
    if out is None and not dry_run:
        raise click.UsageError("--out is missing: the directory of the sweep")
    from aang_core.config.file import parse_settings
    from aang_core.study.sweeps.sweep_file import load_experiment

    flags: dict[str, tuple[Any, str]] = dict(parse_settings(assignments))
    if seeds:
        flags["seeds"] = (list(seeds), "--seed")
    experiment = load_experiment(spec, tasks=tasks, flags=flags)
    if out is None or dry_run:
        _plan(experiment, as_json)
    else:
        _carry_out(experiment, out, workers, retries, ray, as_json)


def _plan(experiment: Experiment, as_json: bool) -> None:
    from aang_core.study.sweeps.sweep import check_configurations, planned
    from aang_core.study.trials.trial import differing_settings

    plan = planned(experiment, Path("sweep"))
    check_configurations(plan.configurations)
    differing = differing_settings(plan.configurations)
    found = [
        {
            "configuration": name,
            "task": config.task,
            "method": config.method,
            "seeds": list(config.seeds),
            "settings": differing[name],
        }
        for name, config in plan.configurations.items()
    ]
    if as_json:
        render.document(found)
        return
    columns = ("configuration", "task", "method", "seeds")
    render.table(found, columns=columns, title=experiment.title)
    render.remark(f"{len(found)} configurations, {len(plan.trials)} trials")


def _carry_out(
    experiment: Experiment,
    out: Path,
    workers: int | None,
    retries: int,
    ray: str | None,
    as_json: bool,
) -> None:
    from aang_cli.progress import Interruption, SweepBar
    from aang_core.study.sweeps.sweep import sweep

    again = shlex.join(["aang", *sys.argv[1:]])
    goodbye = (
        f"interrupted; finished trials are kept, the others go on with the same command\n  {again}"
    )
    bar = SweepBar()
    with Interruption().ending(lambda _: goodbye), bar:
        found = sweep(experiment, out, workers=workers, retries=retries, ray=ray, callback=bar)
    _show(found, out, as_json)


def _show(found: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print the results.

    :raises RunError: where trials failed; names them.
    """
    from aang_core.errors import RunError
    from aang_core.study.results import ranked, sweep_cells

    if as_json:
        render.document(found)
    else:
        rows = [sweep_cells(row) for row in ranked(found)]
        one_task = len({row["task"] for row in rows}) == 1
        left_out = _ELSEWHERE | ({"task"} if one_task else set())
        columns = [name for name in rows[0] if name not in left_out]
        render.table(rows, columns=columns, title=found["title"])
        for task, name in found["chosen"].items():
            (row,) = [row for row in found["configurations"] if row["configuration"] == name]
            click.echo(f"chosen for {task} by dev: {name} ({out / row['directory']})")
        click.echo(f"results {out / 'results.md'}")
    failed = [trial for trial in found["trials"] if trial["state"] == "failed"]
    if failed:
        lines = [
            f"  - {t['configuration']}, seed {t['seed']}: {t['error']}\n    log {out / t['log']}"
            for t in failed
        ]
        raise RunError(
            f"{len(failed)} of {len(found['trials'])} trials failed; the same command tries them again\n"
            + "\n".join(lines)
        )
