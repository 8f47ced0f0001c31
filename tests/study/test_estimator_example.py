"""The notebook-style script of the documents runs with the smallest encoder, as a program."""

import subprocess
import sys

import pytest

pytest.importorskip("pandas")


def test_the_script_runs_from_the_first_cell_to_the_last(root, tmp_path):
    script = root / "docs" / "examples" / "estimator.py"
    done = subprocess.run(
        [sys.executable, str(script), "scratch:tiny", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "words alone:" in said
    assert "aang:" in said
    assert "task/" in said  # the heaviest objectives
    assert "saved ['estimator.json', 'model', 'report.json']" in said
    assert "step" not in done.stderr  # no bar where nobody sees it
