"""``aang export``: the model of a finished run in another format."""

from __future__ import annotations

from pathlib import Path

import click

from aang_cli import options, render


@click.command("export")
@click.argument("run", type=options.PATH)
@options.path(
    "--onnx",
    "DIR",
    "Write model.onnx with tokenizer and configuration into this new folder.",
    name="out",
    required=True,
)
@options.number(
    "--seed", "The seed whose model is used, in a run of several.  [default: the first]"
)
@options.plugins
def command(run: Path, out: Path, seed: int | None, plugins: tuple[str, ...]) -> None:
    """Export the model of RUN to ONNX, and check it.

    The extra brings the libraries: pip install 'aang[onnx]'. For transformers no export is needed: a run's model/ is
    a folder that it loads.

    \b
    Example:
      aang export runs/my_task --onnx exported
    """
    from aang_core.train.finish.export import chosen_model, export_onnx

    found = chosen_model(run, options.registry_of(plugins), seed)
    if seed is None and len(found.seeds) > 1:
        others = ", ".join(map(str, found.seeds))
        render.remark(f"the model of seed {found.seed} is exported; --seed chooses among {others}")
    gap, rows = export_onnx(found, out)
    render.remark(f"its logits differ from the model's by at most {gap:.1e} on {rows} rows")
    click.echo(str(out / "model.onnx"))
