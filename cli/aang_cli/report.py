"""``aang report``: one self-contained page about a run, its plots as files, and its weights as a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from aang_cli import options, render


@click.command("report")
@click.argument("run", type=options.PATH)
@options.path(
    "--compare",
    "RUN",
    "Compare with this baseline; repeatable.  [default: the one of `aang run --against`]",
    name="others",
    multiple=True,
)
@options.path("--out", "FILE", "The page.  [default: RUN/report.html]")
@options.path("--plots", "DIR", "Also write every plot as SVG and PNG.")
@options.path("--weights", "FILE", "Also export the learned weights.")
@click.option("--theory", is_flag=True, help="Add the stability bound of Theorem E.5.")
def command(
    run: Path,
    others: tuple[Path, ...],
    out: Path | None,
    plots: Path | None,
    weights: Path | None,
    theory: bool,
) -> None:
    """Make a self-contained HTML page about a finished RUN.

    \b
    Example:
      aang report runs/aang --compare runs/finetune --compare runs/static
      aang report runs/aang --weights weights.json --theory
    """
    from aang_core.analysis.page.page import PAGE, page, told, write_page
    from aang_core.analysis.page.plots import write_plots
    from aang_core.analysis.page.theory_estimates import lines
    from aang_core.rundir.finished import read_runs
    from aang_core.rundir.recipe import export_recipe

    this, *baselines = read_runs([run, *others])
    story, others_told = told(this, baselines)
    rows = lines(story) if theory else []
    html, drawn = page(story, others_told, rows)
    where = out or run / PAGE
    write_page(where, html)
    click.echo(str(where))
    if plots is not None:
        files = write_plots(drawn, plots)
        render.remark(f"{len(files)} plots in {plots}")
    if weights is not None:
        export_recipe(this, weights)
        render.remark(f"learned weights in {weights}; use them with aang run --weights {weights}")
    for name, value in rows:
        render.remark(f"{name}: {value}")
