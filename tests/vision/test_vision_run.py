"""The engine on images: one backward pass, runs, and every command on what they leave."""

import json

import aang_vision.exported as exported
import attrs
import numpy as np
import pytest
import torch
from _digits import backbone, rows_of, small_task
from _steps import Step, bind
from aang_cli.main import main
from aang_vision.backbone import SHAPES
from click.testing import CliRunner

import aang_core
from aang_core.batch.packing import Piece, fuse, pack, prepare
from aang_core.batch.protocols import BackboneSettings, Binding
from aang_core.batch.stream import FULL
from aang_core.config.settings import Meta
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.dev_gradient import DevGradient
from aang_core.method.gradient.metagrad import Model, disagreement, fused, looped
from aang_core.method.heads import ObjectiveHeads

IDS = (
    "task/mask-patches/bidirectional/patch-denoise",
    "task/noise-patches/neighbourhood/patch-denoise",
    "task/rotate/bidirectional/rotation",
    "task/shift/neighbourhood/end-task",
    "task/shift/bidirectional/contrastive",
)
TRAINING = {
    "max_steps": 4,
    "eval_every": 2,
    "end_task_rows": 8,
    "auxiliary_rows": 16,
    "final_epochs": 1,
}
META = {"dev_rows": 8, "dev_head_rows": 8, "dev_head_steps": 2}
SETTINGS = {
    "task": "digits",
    "space": "vision-td",
    "train_rows": 20,
    "training": TRAINING,
    "meta": META,
}


def invoke(*arguments):
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done


def step():
    """A step of images: the end-task and one objective of every kind."""
    task, encoder = small_task(), backbone()
    labelled = rows_of(encoder, task)
    end_task = EndTask(Binding(task=task, backbone=encoder, options={}))
    objectives = bind(task, encoder, IDS)
    model = Model(encoder, ObjectiveHeads(end_task, objectives, "per-objective").double())
    generator = torch.Generator().manual_seed(0)
    packed = pack(labelled[:6])
    pieces = [(0, Piece(packed, (FULL,) * 6, end_task.targets(packed)))]
    pieces += [(1 + k, prepare(objective, 4, generator)) for k, objective in enumerate(objectives)]
    dev = DevGradient(
        model, end_task, labelled[:10], labelled[10:], Meta(dev_rows=4, dev_head_rows=6), 0
    )
    model.heads.eval()
    coefficients = torch.linspace(0.4, 0.1, len(pieces), dtype=torch.float64)
    return Step(model, fuse(pieces), coefficients, dev.at(0, None))


def test_one_backward_pass_gives_what_one_for_each_objective_gives():
    one = step()
    slow = looped(one.model, one.batch, one.coefficients, one.dev_gradient)
    slow_gradients = one.gradients()
    fast = fused(one.model, one.batch, one.coefficients, one.dev_gradient, examples=True)
    gradients = one.gradients()
    assert gradients.keys() == slow_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, slow_gradients[name], rtol=1e-9, atol=1e-12, msg=name)
    torch.testing.assert_close(fast.alignment.dots, slow.alignment.dots, rtol=1e-9, atol=1e-12)
    assert fast.alignment.observed.all()
    assert disagreement(fast, slow) < 1e-9


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pages):
    """A search and a fine-tuning of two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("finetune", "aang"):
        aang_core.run(out=folder / method, method=method, seeds=[0, 1], **SETTINGS)
    return folder


def test_the_task_brings_its_encoder(runs):
    report = json.loads((runs / "aang" / "report.json").read_text("utf-8"))
    assert (report["task"], report["model"], report["space"]) == (
        "digits",
        "patches:tiny",
        "vision-td",
    )
    assert report["reads"] == ["image"]
    assert report["objectives"] == 28
    assert report["plugins"]["vision"].startswith("aang-vision ")
    assert report["seeds"][0]["engine"] == "fused"
    assert report["audit"]["splits"] == {"train": 1000, "dev": 200, "test": 597}
    assert not any(report["audit"]["in_train"].values())


class Stop(BaseException):
    """Ends a run as a killed process would."""


class Killer(aang_core.Callback):
    def on_step(self, session, record, progress):
        if progress.done == 3:
            raise Stop


def test_a_run_that_was_stopped_ends_the_same_bit_for_bit(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    aang_core.run(out=whole, **SETTINGS)
    with pytest.raises(Stop):
        aang_core.run(out=stopped, callbacks=Killer(), **SETTINGS)
    aang_core.run(out=stopped, resume=True)
    for name in ("history.jsonl", "predictions.jsonl", "model/model.safetensors"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), name


def test_the_exported_model_loads_by_its_card(runs):
    folder = runs / "aang" / "seed-0" / "model"
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "config.json", "README.md")
    }
    card = (folder / "README.md").read_text("utf-8")
    assert "none of the architectures of transformers" in card
    assert "aang_vision.exported" in card
    model = exported.load_predictor(folder, BackboneSettings(device="cpu"))
    lines = (runs / "aang" / "seed-0" / "predictions.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line) for line in lines[:20]]
    logits = model.logits([answer["inputs"] for answer in answers])
    assert [str(int(each.argmax())) for each in logits] == [each["label"] for each in answers]


def test_the_larger_encoder_trains_and_answers_from_its_files(tmp_path):
    aang_core.run(out=tmp_path / "run", model="patches:small", **SETTINGS)
    model = exported.load_predictor(tmp_path / "run" / "model", BackboneSettings(device="cpu"))
    assert model.config.shape == SHAPES["patches:small"]
    lines = (tmp_path / "run" / "history.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["step"] for line in lines} >= {1, 2, 3, 4}


def test_predict_reads_tables_lines_and_arrays(runs, tmp_path):
    lines = (runs / "aang" / "seed-0" / "predictions.jsonl").read_text("utf-8").splitlines()
    known = [json.loads(line) for line in lines[:5]]
    images = [each["inputs"]["image"] for each in known]
    np.save(tmp_path / "a.npy", np.array(images))
    texts = [" ".join(map(str, image)) for image in images]
    (tmp_path / "b.txt").write_text("\n".join(texts), "utf-8")
    (tmp_path / "c.csv").write_text("image\n" + "\n".join(texts), "utf-8")
    (tmp_path / "d.jsonl").write_text("".join(f'{{"image": {i}}}\n' for i in images), "utf-8")
    for path in sorted(tmp_path.iterdir()):
        rows = json.loads(invoke("predict", runs / "aang", path, "--seed", 0, "--json").stdout)
        assert [row["label"] for row in rows] == [each["label"] for each in known], path
    assert "image" in invoke("predict", runs / "aang", tmp_path / "a.npy").stdout
    (tmp_path / "a.npy").write_bytes(b"no array")
    done = CliRunner().invoke(main, ["predict", str(runs / "aang"), str(tmp_path / "a.npy")])
    assert done.exit_code == 1
    assert "a.npy as an array of numbers" in done.stderr


def test_reports_comparisons_and_audits_work(runs):
    rows = json.loads(invoke("compare", runs / "finetune", runs / "aang", "--json").stdout)
    assert [row["method"] for row in rows] == ["finetune", "aang"]
    assert rows[1]["delta"] is not None
    page = (runs / "aang" / "report.html").read_text("utf-8")
    assert "patch-denoise" in page
    invoke("report", runs / "aang")
    audit = json.loads(invoke("audit", "digits", "--model", "patches:tiny", "--json").stdout)
    assert audit["duplicates"] == {"train": 0, "dev": 0, "test": 0}
    assert audit["labels"]["test"].keys() == set("0123456789")


def test_further_images_without_labels_take_part(tmp_path):
    extra = tmp_path / "extra.npy"
    np.save(extra, np.array(small_task().unlabelled["image"]))
    done = invoke(
        *("list-objectives", "--space", "vision-td+ed", "--task", "digits", "--json"),
        *("--external", f"images={extra}"),
    )
    ids = [row["id"] for row in json.loads(done.stdout)]
    assert "images/mask-patches/bidirectional/patch-denoise" in ids
    assert not [each for each in ids if each.startswith("images/") and each.endswith("end-task")]
    settings = {**SETTINGS, "space": "vision-td+ed", "external": {"images": str(extra)}}
    report = aang_core.run(out=tmp_path / "run", **settings)
    assert report.audit["external"] == {"images": None}
    report = attrs.asdict(report.seeds[0])
    assert report["objectives"] == 28 + 18


def test_an_image_is_shown_as_a_picture():
    text = invoke(
        "show", "task/mask-patches/bidirectional/patch-denoise", "--task", "digits"
    ).stdout
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if "1 data task" in line)
    picture = [line.strip() for line in lines[first + 1 : first + 9]]
    assert {len(line) for line in picture} == {16}
    assert set("".join(picture)) <= set("·░▒▓█")
    changed = [line for line in lines if "→" in line and "╳╳╳╳" in line]
    assert len(changed) >= 8
    assert "8 selected, 8 changed of 17 positions" in text
    assert "the loss reads the states of 8 of 17 positions" in text
    rotated = invoke("show", "task/rotate/neighbourhood/rotation", "--task", "digits", "--json")
    (row,) = json.loads(rotated.stdout)["rows"]
    assert len(row["drawn"]) == len(row["drawn_shown"]) == 8
    assert row["targets"][0]["value"] in exported_names()


def exported_names():
    from aang_vision.outputs import Rotation

    return Rotation.names


def test_a_target_in_sight_is_warned_of():
    text = invoke("show", "task/no-op/bidirectional/patch-denoise", "--task", "digits").stdout
    assert "100% of its targets are in sight" in text
