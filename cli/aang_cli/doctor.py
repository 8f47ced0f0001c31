"""``aang doctor``: versions, devices, plugins, the bundled encoder and disks, and what to repair."""

from __future__ import annotations

from pathlib import Path

import click

from aang_cli import options, render


@click.command("doctor")
@click.option(
    "--out",
    metavar="DIR",
    type=options.PATH,
    default=Path("runs"),
    show_default=True,
    help="Where runs are written.",
)
@options.as_json
def command(out: Path, as_json: bool) -> None:
    """Check this installation.

    Exits with 1 where something has to be mended, and says how.

    \b
    Example:
      aang doctor
      aang doctor --json --out big-disk/runs
    """
    import attrs

    from aang_cli.health import findings
    from aang_core.registry.records import MEND

    found = findings(out)
    broken = [finding for finding in found if finding.state == MEND]
    rows = [attrs.asdict(finding) for finding in found]
    if as_json:
        render.document({"healthy": not broken, "findings": rows})
    else:
        render.table(rows, columns=("check", "state", "found", "do"), title="aang doctor")
    if broken:
        names = ", ".join(finding.check for finding in broken)
        render.remark(f"to be mended: {names}")
        raise click.exceptions.Exit(1)
    if not as_json:
        render.remark("nothing has to be mended")
