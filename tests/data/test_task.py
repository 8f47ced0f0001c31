"""Tasks as people write them: folders, task.toml, single files, data sets; and everything that can be wrong."""

import json
from pathlib import Path

import pytest

from aang_core.data.audit import audit_task, findings
from aang_core.data.task import Task, load_task
from aang_core.errors import TaskError

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")
READS = ("text", "text_pair")


def load(path: object, **given) -> Task:
    return load_task(str(path), reads=READS, registered={}, external=given)


def jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def examples(labels: list) -> list[dict]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def splits(folder: Path, train: list, dev: list, test: list | None = None) -> Path:
    for name, labels in (("train", train), ("dev", dev), ("test", test)):
        if labels is not None:
            jsonl(folder / f"{name}.jsonl", examples(labels))
    return folder


def toml(folder: Path, text: str) -> None:
    (folder / "task.toml").write_text(text, encoding="utf-8")


def refused(path: object, *parts: str) -> None:
    with pytest.raises(TaskError) as caught:
        load(path)
    for part in parts:
        assert part in str(caught.value)


@needs_data
@pytest.mark.parametrize(
    ("name", "sizes", "classes", "metric"),
    [
        ("acl-arc", (1688, 114, 139), 6, "f1"),
        ("chemprot", (4169, 2427, 3469), 13, "accuracy"),
        ("glue-rte", (1244, 139, 1384), 2, "accuracy"),
        ("glue-mrpc", (2576, 1500, 1725), 2, "accuracy"),  # 1,726 lines, one of them a header
        ("glue-wnli", (565, 70, 71), 2, "accuracy"),
    ],
)
def test_public_data_load_as_they_are(name, sizes, classes, metric):
    task = load(DATA / name)
    assert tuple(len(task.splits[split]) for split in ("train", "dev", "test")) == sizes
    assert (len(task.label_names), task.metric, task.kind) == (classes, metric, "class")
    pair = name.startswith("glue")
    assert task.splits["test"].column_names == ["text", *(["text_pair"] if pair else []), "label"]
    assert ("in-domain" in task.external) is not pair


@needs_data
def test_a_stray_header_line_is_dropped_and_told():
    task = load(DATA / "glue-mrpc" / "task.toml")
    assert task.label_names == ("different", "same")
    assert task.splits["test"][0]["text"].startswith("PCCW's chief operating officer")
    assert any("test.tsv:1 was read as a header" in remark for remark in task.remarks)
    assert task.splits["train"][0]["text"].count('"') == 2  # quotation marks mean themselves


def test_numeric_classes_are_sorted_as_numbers_and_named(tmp_path):
    splits(tmp_path, [10, 2, 1, 2, 10, 1], [2], [10])
    toml(tmp_path, 'label_names = { "10" = "ten" }')
    task = load(tmp_path)
    assert task.label_names == ("1", "2", "ten")
    assert task.splits["train"]["label"][:] == [2, 1, 0, 1, 2, 0]
    assert task.name == tmp_path.name


def test_decimals_make_a_regression(tmp_path):
    task = load(splits(tmp_path, [0.5, 1, 3.25], [2], [4.0]))
    assert (task.kind, task.metric, task.num_outputs, task.label_names) == (
        "regression",
        "pearson",
        1,
        (),
    )
    assert task.splits["train"]["label"][:] == [0.5, 1.0, 3.25]
    assert any("regression" in remark for remark in task.remarks)
    toml(tmp_path, 'kind = "regression"\nmetric = "f1"')
    refused(tmp_path, "'f1' does not suit", "pearson, spearman")


def test_lists_are_several_labels(tmp_path):
    task = load(splits(tmp_path, [["a", "b"], [], ["c"]], [["b"]], [[]]))
    assert (task.kind, task.label_names) == ("multilabel", ("a", "b", "c"))
    assert task.splits["train"]["label"][:] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert not any("token" in remark for remark in task.remarks)


def test_lists_that_repeat_a_label_may_be_labels_of_words(tmp_path):
    task = load(splits(tmp_path, [["O", "O", "B"], ["B"]], [["B"]], [["O"]]))
    assert task.kind == "multilabel"
    assert any("1 of 2 lists" in r and 'kind = "token"' in r for r in task.remarks)


def test_token_tasks_have_a_label_a_word(tmp_path):
    toml(tmp_path, 'kind = "token"')
    rows = [
        {"text": ["Ann", "sings"], "label": ["N", "V"]},
        {"text": "Bo sits", "label": ["N", "V"]},
    ]
    jsonl(tmp_path / "train.jsonl", rows)
    jsonl(tmp_path / "dev.jsonl", rows[:1])
    task = load(tmp_path)
    assert task.splits["train"][1] == {"text": ["Bo", "sits"], "label": [0, 1]}
    jsonl(tmp_path / "dev.jsonl", [{"text": ["Ann", "sings"], "label": ["N"]}])
    refused(tmp_path, "dev.jsonl:1: 2 words but 1 labels")


def test_a_column_of_lists_is_kept_where_the_encoder_reads_it(tmp_path):
    rows = [{"text": "a b", "tags": ["X", "Y"], "label": n} for n in "cd"]
    for name in ("train", "dev"):
        jsonl(tmp_path / f"{name}.jsonl", rows)
    task = load_task(str(tmp_path), reads=(*READS, "tags"), registered={}, external={})
    assert task.splits["train"][0] == {"text": "a b", "tags": ["X", "Y"], "label": 0}
    jsonl(tmp_path / "dev.jsonl", [{**rows[0], "tags": "X"}, rows[1]])
    with pytest.raises(TaskError, match=r"dev.jsonl:2: column 'tags' holds .* not a text"):
        load_task(str(tmp_path), reads=(*READS, "tags"), registered={}, external={})


def test_one_single_file_is_split_by_class_and_says_so(tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [f'"text, {i}",{"rare" if i % 20 == 0 else "common"}' for i in range(100)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    task = load(path)
    assert {name: len(part) for name, part in task.splits.items()} == {
        "train": 70,
        "dev": 15,
        "test": 15,
    }
    for part in task.splits.values():
        assert set(part["label"]) == {0, 1}
    texts = [text for part in task.splits.values() for text in part["text"]]
    assert sorted(texts) == sorted(f"text, {i}" for i in range(100))
    assert "split by class" in task.remarks[-1]
    again = load(tmp_path)  # the folder, which holds this one file
    assert again.splits["dev"]["text"][:] == task.splits["dev"]["text"][:]


def test_a_single_file_needs_three_of_each_class(tmp_path):
    refused(jsonl(tmp_path / "all.jsonl", examples([*"aaaabb"])), "at least 3", "b (2)")


def test_dev_is_made_from_train_where_only_test_is_given(tmp_path):
    splits(tmp_path, [*"ab"] * 20, ["a"], ["b", "a"])
    (tmp_path / "dev.jsonl").unlink()
    task = load(tmp_path)
    assert {name: len(part) for name, part in task.splits.items()} == {
        "train": 34,
        "dev": 6,
        "test": 2,
    }


def test_an_unlabelled_test_split_has_no_label_column(tmp_path):
    splits(tmp_path, [*"abab"], ["a"])
    jsonl(tmp_path / "test.jsonl", [{"text": "x"}, {"text": "y", "label": None}])
    task = load(tmp_path)
    assert task.splits["test"].column_names == ["text"]
    assert any("no labels" in remark for remark in task.remarks)


def test_one_example_of_a_class_is_found(tmp_path):
    task = load(splits(tmp_path, [*"aab"], ["a"]))
    assert "fewer than 2 rows in train: b (1)" in findings(audit_task(task))


def test_other_names_places_and_external_corpora(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    splits(tmp_path / "elsewhere", [*"ab"], [*"ab"])
    (tmp_path / "elsewhere" / "dev.jsonl").rename(tmp_path / "elsewhere" / "held-out.jsonl")
    (tmp_path / "in-domain.txt").write_text("one\n")
    (tmp_path / "wide.txt").write_text("two\n")
    toml(
        tmp_path,
        'data = "elsewhere"\nfiles = { dev = "held-out.jsonl" }\n[external]\nout-of-domain = "wide.txt"',
    )
    task = load(tmp_path, **{"in-domain": str(tmp_path / "wide.txt")})
    assert len(task.splits["dev"]) == 2
    assert task.external == dict.fromkeys(("in-domain", "out-of-domain"), tmp_path / "wide.txt")
    with pytest.raises(TaskError, match=r"--external.*gone\.txt"):
        load(tmp_path, **{"in-domain": "gone.txt"})


def test_a_saved_data_set_with_class_names(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})

    def part(labels):
        columns = {"text": [f"t{i}" for i in range(len(labels))], "label": labels}
        return Dataset.from_dict(columns, features=features)

    saved = DatasetDict(train=part([1, 0]), validation=part([0]), test=part([-1]))
    saved.save_to_disk(str(tmp_path / "saved"))
    task = load(f"hf:{tmp_path / 'saved'}")
    assert task.label_names == ("no", "yes")
    assert task.splits["train"]["label"][:] == [1, 0]
    assert task.splits["test"].column_names == [
        "text"
    ]  # −1 is how published test splits hide labels
    for name in ("train", "validation"):
        (tmp_path / "parquet").mkdir(exist_ok=True)
        saved[name].to_parquet(str(tmp_path / "parquet" / f"{name}.parquet"))
    assert load(tmp_path / "parquet").label_names == ("no", "yes")
    refused("hf:nobody/nothing-of-this-name", "cannot load", "hf:NAME")


def test_registered_tasks_and_near_misses(tmp_path):
    task = load(splits(tmp_path, [*"ab"], ["a"]))
    got = load_task("toy", reads=READS, registered={"toy": lambda: task}, external={})
    assert got.splits is task.splits
    assert got.remarks == task.remarks
    with pytest.raises(TaskError, match="did you mean 'toy'"):
        load_task("toi", reads=READS, registered={"toy": lambda: task}, external={})


def test_every_fault_of_a_task_file_is_named(tmp_path):
    toml(
        tmp_path,
        'metrik = "f1"\nkind = "clas"\nheader = "a"\ncolumns = { txt = "a" }\nfiles = { dev = 1 }',
    )
    refused(
        tmp_path,
        "task.toml: 5 faults",
        ":1: `metrik` is no setting; did you mean 'metric'?",
        "(got 'clas'); did you mean 'class'?",
        ":3: `header` must be a list of at least one column name",
        ":4: `columns.txt` is no setting; did you mean 'text'?",
        ":5: `files.dev` must be a text",
    )


@pytest.mark.parametrize(
    ("train", "dev", "parts"),
    [
        ([*"ab"], ["a", "z"], ["dev.jsonl:2", "'z'", "does not occur in train"]),
        ([*"ab", None], ["a"], ["train.jsonl:3", "holds no label"]),
        ([*"ab", float("nan")], ["a"], ["train.jsonl:3", "holds no label"]),
        ([0.5, 1.5, float("inf")], [1], ["train.jsonl:3"]),
        ([0.5, 1.5], ["high"], ["dev.jsonl:1", "finite number"]),
        ([*"aa"], ["a"], ["at least two"]),
        ([*"ab"], [], ["dev.jsonl is empty"]),
        ([*"ab", {"x": 1}], ["a"], ["train.jsonl:3", "expected one label"]),
    ],
)
def test_bad_labels(tmp_path, train, dev, parts):
    refused(splits(tmp_path, train, dev), *parts)


def test_bad_texts_are_all_counted(tmp_path):
    splits(tmp_path, [*"ab"], ["a"])
    jsonl(tmp_path / "train.jsonl", [{"text": " ", "label": "a"}] * 7 + [{"text": 3, "label": "b"}])
    refused(tmp_path, "8 faults", "train.jsonl:1", "and 3 more")


def test_a_missing_column_lists_those_there_are(tmp_path):
    splits(tmp_path, [*"ab"], ["a"])
    jsonl(tmp_path / "train.jsonl", [{"premise": "p", "label": "a"}])
    refused(tmp_path, "no column 'text'", "'premise', 'label'", "columns = { text =")
    jsonl(tmp_path / "train.jsonl", [{"text": "p", "text_pair": "q", "label": "a"}])
    refused(tmp_path, "dev.jsonl has no column 'text_pair'")


def test_missing_and_doubled_splits(tmp_path):
    refused(tmp_path, "holds no task", "no data file")
    refused(tmp_path / "gone", "neither a folder")
    splits(tmp_path, [*"ab"], ["a"])
    (tmp_path / "train.csv").write_text("text,label\n")
    refused(tmp_path, "two files for the train split")
    for name in ("train.csv", "train.jsonl"):
        (tmp_path / name).unlink()
    refused(tmp_path, "no train split")


def test_label_names_must_fit(tmp_path):
    splits(tmp_path, ["yes", "no"], ["no"])
    toml(tmp_path, 'label_names = { "yess" = "agree" }')
    refused(tmp_path, "label_names maps 'yess'", "did you mean 'yes'?")
    toml(tmp_path, 'label_names = { yes = "x", no = "x" }')
    refused(tmp_path, "several labels the name x")
