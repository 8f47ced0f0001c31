"""Tasks with several labels a text, a label a word, or unbalanced classes, from files to an exported model."""

import json

import pytest
import torch

import aang_core as aang
from aang_core.data.task import load_task
from aang_core.method.end_task import class_weights
from aang_core.train.export import answers, chosen_model, read_examples

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
