"""Tasks with several labels a text, a label a word, or unbalanced classes, from files to an exported model."""

import json
from collections import Counter

import attrs
import pytest
import torch

import aang_core as aang
from aang_core.batch.rows import Origin, Row
from aang_core.data.task import load_task
from aang_core.errors import ConfigError
from aang_core.method.cross_fitting import Folds
from aang_core.method.end_task import LabelledRows, class_weights
from aang_core.train.finish.export import answers, chosen_model, read_examples

WORDS = ["list", "file", "names", "class", "tuple", "value", "type", "string"]
SEVERAL = {"list": ["a"], "file": ["b"], "names": ["a", "b"], "class": ["c"], "tuple": ["b", "c"]}


def write_task(folder, kind, rows):
    """`rows` texts of these words; what a word is called decides its label."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", rows), ("dev", rows // 2), ("test", rows // 2)):
        lines = []
        for _ in range(count):
            picked = torch.randint(len(WORDS), (6,), generator=generator).tolist()
            words = [WORDS[i] for i in picked]
            if kind == "token":
                label = ["long" if len(word) > 4 else "short" for word in words]
                lines.append({"text": words, "label": label})
            else:
                label = SEVERAL.get(words[0], [])
                lines.append({"text": " ".join(words[:1] * 4), "label": label})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    (folder / "task.toml").write_text(f'kind = "{kind}"\nmetric = "f1"\n', encoding="utf-8")
    return folder


def trained(folder, tmp_path, **training):
    settings = {"max_steps": 40, "lr": 1e-2, "eval_every": 20, "final_epochs": 0, "warmup": 0.0}
    return aang.run(
        task=folder,
        model="scratch:tiny",
        space="td",
        method="static",
        training={**settings, "end_task_rows": 16, "auxiliary_rows": 8, **training},
        out=tmp_path / "run",
    )


def test_a_task_with_a_label_a_word_trains_and_is_exported(tmp_path):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    folder = write_task(tmp_path / "tags", "token", 40)
    report = trained(folder, tmp_path)
    assert report.seeds[0].dev["accuracy"] > 0.9
    assert report.seeds[0].test["f1"] > 0.9
    rows = [json.loads(x) for x in (tmp_path / "run" / "predictions.jsonl").open(encoding="utf-8")]
    assert all(len(row["labels"]) == len(row["gold"]) == 6 for row in rows)
    right = sum(a == b for row in rows for a, b in zip(row["labels"], row["gold"], strict=True))
    assert right / (6 * len(rows)) == pytest.approx(report.seeds[0].test["accuracy"])
    (tmp_path / "new.txt").write_text("tuple file\n", encoding="utf-8")
    asked = chosen_model(tmp_path / "run", aang.load_registry())
    [answer] = answers(asked, *read_examples(asked, tmp_path / "new.txt"))
    assert answer == {"line": 1, "labels": ["long", "short"]}
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "run" / "model")
    assert set(model.config.id2label.values()) == {"long", "short"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    encoded = tokenizer(["tuple", "file"], is_split_into_words=True, return_tensors="pt")
    answer = model(**encoded).logits[0].argmax(-1)
    first = [encoded.word_ids().index(word) for word in (0, 1)]
    assert [model.config.id2label[int(answer[i])] for i in first] == ["long", "short"]


def test_a_task_with_several_labels_a_text_trains_and_is_exported(tmp_path):
    from transformers import AutoModelForSequenceClassification

    folder = write_task(tmp_path / "several", "multilabel", 60)
    report = trained(folder, tmp_path, max_steps=3)
    assert {"accuracy", "f1"} <= set(report.seeds[0].dev)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert model.config.problem_type == "multi_label_classification"
    assert list(model.config.id2label.values()) == ["a", "b", "c"]
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 30
    assert set(json.loads(lines[0])["probabilities"]) == {"a", "b", "c"}


def write_unbalanced(folder):
    folder.mkdir()
    for split in ("train", "dev"):
        lines = ["text,label"] + ["a list,often"] * 36 + ["a file,seldom"] * 4
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_balanced_weights_are_inverse_frequencies_with_mean_one(tmp_path):
    folder = write_unbalanced(tmp_path / "unbalanced")
    task = load_task(str(folder), reads=("text",), registered={}, external={})
    weights = class_weights(task)
    assert weights is not None
    assert weights.tolist() == pytest.approx([40 / 36 / 2, 40 / 4 / 2])
    rows = torch.tensor([36.0, 4.0])
    assert float((weights * rows).sum() / rows.sum()) == pytest.approx(1.0)
    assert float(weights[0] * 36) == pytest.approx(float(weights[1] * 4))


def test_balanced_weights_reach_the_end_task_of_a_run(tmp_path):
    from safetensors.torch import load_file

    folder = write_unbalanced(tmp_path / "unbalanced")
    report = aang.run(
        task=folder,
        model="scratch:tiny",
        space="td",
        method="static",
        training={"max_steps": 2, "final_epochs": 0, "class_weights": "balanced"},
        out=tmp_path / "run",
    )
    assert report.seeds[0].steps == 2
    fitted = load_file(tmp_path / "run" / "fitted.safetensors")
    assert list(fitted) == ["task/end-task/class_weights"]
    assert fitted["task/end-task/class_weights"].tolist() == pytest.approx(
        [40 / 36 / 2, 40 / 4 / 2]
    )


def labelled_rows(*counts):
    """A row for each number of each class, known by its index."""
    rows = []
    for label, count in enumerate(counts):
        for _ in range(count):
            origin = Origin("train", 0, len(rows))
            empty = torch.zeros(0, dtype=torch.bool)
            rows.append(Row(inputs={}, special=empty, origin=origin, label=label))
    return rows


def test_balanced_draws_take_every_class_equally_often_and_every_row_in_turn():
    rows = labelled_rows(36, 4, 5)
    drawn = LabelledRows(rows, 7, balanced=True).take(0, 108)
    for turn in range(0, 108, 3):
        assert sorted(row.label for row in drawn[turn : turn + 3]) == [0, 1, 2]
    times = Counter(row.origin.index for row in drawn)
    assert [times[n] for n in range(45)] == [1] * 36 + [9] * 4 + [times[n] for n in range(40, 45)]
    assert {times[n] for n in range(40, 45)} <= {7, 8}
    plain = LabelledRows(rows, 7).take(0, 45)
    assert Counter(row.label for row in plain) == {0: 36, 1: 4, 2: 5}


def test_balanced_draws_depend_on_the_seed_and_the_place_alone():
    rows = labelled_rows(9, 2)
    whole = LabelledRows(rows, 3, balanced=True).take(0, 50)
    late = LabelledRows(rows, 3, balanced=True)
    parts = [row for start in (30, 0, 10, 40, 20) for row in late.take(start, 10)]
    assert [*parts[10:30], *parts[40:50], *parts[:10], *parts[30:40]] == whole
    assert LabelledRows(rows, 4, balanced=True).take(0, 50) != whole


def test_balanced_draws_reach_a_run_and_want_one_class_a_row(tmp_path):
    folder = write_unbalanced(tmp_path / "unbalanced")
    training = {"max_steps": 2, "final_epochs": 0, "class_draws": "balanced"}
    config = {"model": "scratch:tiny", "space": "td", "method": "static"}
    report = aang.run(task=folder, training=training, out=tmp_path / "run", **config)
    assert report.seeds[0].steps == 2
    for split in ("train", "dev"):
        lines = [f"a list of {n},{n / 2}" for n in range(20)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"class_draws = 'balanced' draws rows by their one class"
    ):
        aang.run(task=folder, training=training, out=tmp_path / "other", **config)


def test_balanced_draws_change_which_rows_a_step_holds(tmp_path, monkeypatch):
    """The planner of a session draws from the balanced sequence, and so do its folds."""
    seen = []
    monkeypatch.setattr(
        "aang_core.train.session.LabelledRows",
        lambda rows, seed, balanced: (
            seen.append(balanced) or LabelledRows(rows, seed, balanced=balanced)
        ),
    )
    folder = write_unbalanced(tmp_path / "unbalanced")
    aang.run(
        task=folder,
        model="scratch:tiny",
        method="finetune",
        training={"max_steps": 1, "final_epochs": 0, "class_draws": "balanced"},
        out=tmp_path / "run",
    )
    assert seen == [True]
    folds = Folds(
        [
            attrs.evolve(r, inputs={"input_ids": torch.tensor([n])})
            for n, r in enumerate(labelled_rows(12, 4))
        ],
        *(2, 1, 0),
        balanced=True,
    )
    assert Counter(row.label for row in folds.take(0, 8)) == {0: 4, 1: 4}
