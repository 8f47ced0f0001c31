"""``aang export`` to ONNX, where its libraries are installed and where not; and the example that serves a model."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import aang_text.encoder.onnx_export as onnx_export
import pytest
from _tasks import settings, write_task
from aang_cli.main import main
from click.testing import CliRunner

import aang_core
from aang_core.train.finish.export import prediction


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    task = write_task(folder / "boxes")
    aang_core.run(task=task, out=folder / "run", method="finetune", **settings())
    return folder / "run"


def export(run, out):
    return CliRunner().invoke(main, ["export", str(run), "--onnx", str(out)])


def test_a_missing_library_is_one_clear_message(run, tmp_path, monkeypatch):
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "onnxscript", type(sys)("onnxscript"))
    sys.modules["onnxscript"].__spec__ = sys.__spec__
    done = export(run, tmp_path / "out")
    assert done.exit_code == 1
    assert done.stderr.strip() == (
        "Error: an export to ONNX needs onnx, onnxscript, onnxruntime; not installed: onnx, onnxruntime. "
        "Install them: pip install 'aang[onnx]'"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_not_written_into(run, tmp_path):
    done = export(run, tmp_path)
    assert done.exit_code == 1
    assert "exists already" in done.stderr


def test_the_exported_file_answers_as_the_model(run, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from transformers import AutoTokenizer

    out = tmp_path / "out"
    done = export(run, out)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(out / "model.onnx")
    assert "on 10 rows" in done.stderr
    config = json.loads((out / "config.json").read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(out)
    session = runtime.InferenceSession(str(out / "model.onnx"))
    rows = (run / "predictions.jsonl").read_text("utf-8").splitlines()
    row = json.loads(rows[0])
    given = dict(tokenizer([row["inputs"]["text"]], return_tensors="np"))
    [logits] = session.run(None, given)
    chances = prediction_of(config, logits)
    assert chances == pytest.approx(row["probabilities"], abs=1e-4)
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    refused = export(run, tmp_path / "other")
    assert refused.exit_code == 1
    assert "nothing was exported" in refused.stderr
    assert not (tmp_path / "other").exists()


def prediction_of(config, logits):
    from types import SimpleNamespace

    import torch

    names = tuple(config["id2label"].values())
    task = SimpleNamespace(kind="class", label_names=names)
    return prediction(task, torch.from_numpy(logits[0]))["probabilities"]


def asked(url, body):
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
        return json.loads(answer.read())


def test_the_example_serves_a_model_with_plain_transformers(root, run):
    script = root / "docs" / "examples" / "serve.py"
    assert "aang_core" not in script.read_text("utf-8")
    server = subprocess.Popen(
        [sys.executable, str(script), str(run / "model"), "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        url = server.stdout.readline().split()[-1]
        row = json.loads((run / "predictions.jsonl").read_text("utf-8").splitlines()[0])
        one = asked(url, {"text": row["inputs"]["text"]})
        assert one["label"] == row["label"]
        assert one["score"] == pytest.approx(row["probabilities"][row["label"]], abs=1e-4)
        several = asked(url, {"text": [row["inputs"]["text"]] * 2})
        assert [answer["label"] for answer in several] == [row["label"]] * 2
        with pytest.raises(urllib.error.HTTPError, match="400"):
            asked(url, {"words": "none"})
    finally:
        server.kill()
        server.communicate()
