"""``aang run``: the main job, from flags to the closing table."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import folds, options, render, selected_runs
from aang_core.machine import cores

AGAINST = ("auto", "finetune", "none")
_BESIDE = "--against finetune or --control shuffled"

if TYPE_CHECKING:
    from aang_core.config.settings import RunConfig


@click.command("run")
@options.of(options.RUN)
@selected_runs.flags
@folds.flags
@options.path("--config", "FILE", "A TOML file of settings.")
@options.assignments("training.lr=3e-5")
@options.path("--out", "DIR", "The run directory.  [default: a new one under runs/]")
@options.number(
    "--processes", "Share each step among this many processes of this machine.", 1, default=1
)
@options.number(
    "--jobs", "Run this many seeds at the same time, each in its own process.", 1, default=1
)
@click.option(
    "--against",
    type=click.Choice(AGAINST),
    default="auto",
    show_default=True,
    envvar="AANG_AGAINST",
    help="Also fine-tune plainly at equal tokens on the same seeds, into OUT-finetune, and say whether the objectives "
    "helped. auto: if at most 500 labelled rows train (also AANG_AGAINST).",
)
@click.option("--resume", is_flag=True, help="Continue the interrupted run in --out.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and train nothing.")
@options.loudness
@options.as_json
@options.plugins
def command(
    config: Path | None,
    assignments: tuple[str, ...],
    out: Path | None,
    processes: int,
    jobs: int,
    against: str,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Fine-tune an encoder together with auxiliary objectives.

    While it trains it measures how well each objective's gradient agrees with the gradient on dev. All objectives count
    the same, unless --rule lets the weights learn from that.

    \b
    Example:
      aang run --task my_task/ --model roberta-base --space td+ed --seed 0 --seed 1
      aang run --method finetune --max-steps 100 --out runs/plain
      aang run --resume --out runs/plain
      aang run --task tickets.csv --external in-domain=more.csv:message --out runs/tickets
      aang run --resume --out runs/tickets --against finetune
      aang run --task tickets.csv --space td --folds 5 --out runs/tickets
      aang run --task my_task/ --selection chosen --top 100 --top 500 --control none --out runs/chosen
      aang run --rule aang --set meta.alignment=dot --set training.lr=3e-5 --dry-run
    """
    count, final = given.pop("folds"), given.pop("final")
    tops, controls = given.pop("tops"), given.pop("controls")
    control = selected_runs.SHUFFLED if selected_runs.SHUFFLED in controls else ""
    controls = [name for name in controls if name != control]
    several, alone = len(tops) > 1 or bool(controls), dry_run or processes > 1
    asked = against == "finetune" or bool(control)
    _check_together(out, resume, dry_run, asked, alone, bool(count), several)
    if asked and processes > 1:
        raise click.UsageError(f"{_BESIDE} and --processes exclude each other")
    against = against if processes == 1 else "none"
    flags = options.given_flags(options.RUN, given)
    flags |= {"top": (tops[0], "--top")} if tops else {}
    where = selected_runs.folder(controls, out, alone) if several else None
    if resume and out is not None and not (count or several):
        chosen = _resumed(out, config, flags, assignments)
    else:
        chosen = _configured(config, flags, assignments)
    if count and out is not None:
        folds.carry_out(chosen, count, final, out, resume, jobs, as_json)
    elif where is not None:
        selected_runs.carry_out(chosen, tops, controls, where, resume, jobs, as_json)
    elif dry_run:
        _plan(chosen, against, control, as_json)
    else:
        if processes > 1 and "WORLD_SIZE" not in os.environ:
            _launch(processes)
        _train(chosen, out, resume, jobs, {"against": against, "control": control}, as_json)


def _check_together(
    out: Path | None,
    resume: bool,
    dry_run: bool,
    against: bool,
    alone: bool,
    folded: bool,
    several: bool,
) -> None:
    """Check flags that exclude or need each other.

    :param against: whether a baseline is asked for by name, or a shuffled control.
    :param alone: whether a flag was given that goes with a single run.
    :param folded, several: whether ``--folds``, or several runs on a selection, are asked for.
    :raises click.UsageError: says which.
    """
    if resume and dry_run:
        raise click.UsageError("--resume and --dry-run exclude each other")
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the directory of the interrupted run")
    if folded and (against or alone or several):
        raise click.UsageError(
            f"--folds and {_BESIDE}, --dry-run, --processes, --control or several --top exclude each other"
        )
    if folded and out is None:
        raise click.UsageError("--folds needs --out, the folder of the runs")
    if several and against:
        raise click.UsageError(f"{_BESIDE} goes with one run; for several use --control none")


def _configured(
    config: Path | None, flags: Mapping[str, tuple[Any, str]], assignments: Iterable[str] = ()
) -> RunConfig:
    """The configuration of a file and flags, over what the space itself suggests.

    :raises ConfigError: where ``--rule`` meets a method that learns no weights, or a race.
    """
    from aang_core.config.file import build_config
    from aang_core.config.settings import META_METHODS
    from aang_core.errors import ConfigError
    from aang_core.registry.registry import registry_named
    from aang_core.registry.spaces import resolve_space, suggestions

    registry = registry_named(flags["plugins"][0] if "plugins" in flags else ())
    built = build_config(config, flags, assignments, suggestions(registry))
    if "meta.rule" in flags:
        if built.method not in META_METHODS:
            raise ConfigError(
                f"--rule {built.meta.rule}: the method is {built.method!r}, which learns no weights (a space may "
                "suggest it); add --method aang, or leave --rule out"
            )
        if resolve_space(built.space, registry).candidates:
            raise ConfigError(
                f"--rule {built.meta.rule}: the space {built.space!r} races candidates, each by a method of its own; "
                "leave --rule out, or choose a space of objectives (`aang list-spaces`)"
            )
    return built


def _resumed(
    out: Path,
    config: Path | None,
    flags: Mapping[str, tuple[Any, str]],
    assignments: tuple[str, ...],
) -> RunConfig:
    """The configuration that the run in `out` was begun with.

    :raises RunError: where there is no run, or where a flag says something else than its configuration.
    """
    from aang_core.config.file import load_config, parse_settings
    from aang_core.errors import RunError

    begun_with = out / "config.toml"
    if not begun_with.is_file():
        raise RunError(f"{out} holds no run to resume (no config.toml)")
    begun = load_config(begun_with)
    if config is not None and _configured(config, flags, assignments) == begun:
        return begun
    everything = {**flags, **parse_settings(assignments)}
    differing = [f"--config {config}"] if config is not None else []
    differing += [
        flag
        for key, (value, flag) in everything.items()
        if _configured(begun_with, {key: (value, flag)}) != begun
    ]
    if differing:
        raise RunError(
            f"the run in {out} was begun with other settings than {', '.join(differing)} "
            f"(see {begun_with}); leave out what differs, or begin another run with another --out"
        )
    return begun


def _plan(config: RunConfig, against: str, control: str, as_json: bool) -> None:
    from aang_core.check.dry_run import summarise
    from aang_core.study.run import shuffled_control

    registry = options.registry_of(config.plugins)
    if control:  # the same plan, and refused where the control would be
        config = shuffled_control(config, control)
    summary = summarise(config, registry, against)
    for remark in summary.remarks:
        render.remark(remark)
    if as_json:
        render.document(summary.as_mapping())
        return
    rows = [{"what": what, "value": value} for what, value in summary.lines()]
    render.table(
        rows, columns=("what", "value"), title=f"Plan of {config.method} on {summary.task}"
    )
    render.remark("minutes are an estimate from timed steps, and assume no early stop")


def _train(
    config: RunConfig,
    out: Path | None,
    resume: bool,
    jobs: int,
    beside: Mapping[str, str],
    as_json: bool,
) -> None:
    """:param beside: ``against`` and ``control``, what is trained beside the run."""
    from aang_cli.closing import show
    from aang_cli.progress import Interruption, bar_for
    from aang_core.processes import leave_processes
    from aang_core.study.run import run

    registry = options.registry_of(config.plugins)
    interruption = Interruption()
    interruption.held = os.environ.get("RANK", "0") != "0"  # the first process decides for all
    bar = bar_for(jobs, config, interruption)
    try:
        with interruption.ending(lambda cause: _goodbye(bar.first, beside, cause)), bar:
            report = run(
                config,
                out=out,
                resume=resume,
                jobs=jobs,
                callbacks=bar,
                registry=registry,
                against=beside["against"],
                control=beside["control"],
            )
    finally:
        leave_processes()
    if os.environ.get("RANK", "0") != "0":
        return  # one process speaks for all
    if as_json:
        answers = {"against": dict(report.against), "control": dict(report.control)}
        render.document({**report.as_mapping(), **{n: a for n, a in answers.items() if a}})
    else:
        show(report)


def _goodbye(directory: Path | None, beside: Mapping[str, str], cause: BaseException) -> str:
    """What an interrupted run says last: what is kept, and how to go on."""
    if directory is None:
        return "interrupted; nothing had begun"
    step = getattr(cause, "step", None)
    kept = f" after step {step}, which is kept" if step is not None else ""
    words = ["aang", "run", "--resume", "--out", str(directory)]
    words += ["--against", "finetune"] if beside["against"] == "finetune" else []
    words += ["--control", beside["control"]] if beside["control"] else []
    return f"interrupted{kept}; go on with\n  {shlex.join(words)}"


def _launch(processes: int) -> None:
    """Replace this process by torch's launcher, which starts this very command `processes` times.

    Several machines, or another launcher: ``torchrun … -m aang_cli run …`` and ``accelerate launch -m aang_cli run …``
    do the same, each in its own way.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", str(processes), "-m", "aang_cli", *sys.argv[1:]]
    sys.stdout.flush()
    os.execv(sys.executable, command)
