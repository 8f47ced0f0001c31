"""What `aang_core.select` refuses before any training, and by which message; and damage to what it had written."""

import json

import pytest
from _selections import settings, write_pools
from _tasks import examples, write_split

import aang_core
from aang_core.data.auxiliary import read_selection
from aang_core.errors import AangError, ConfigError, RunError, TaskError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("pools"))


@pytest.fixture
def mine(tmp_path):
    """A root of one's own, to spoil."""
    return write_pools(tmp_path / "pools")


def broken(out, **given):
    """A selection that stops after its first shards."""

    def stop(what, done, total):
        if what == "scoring" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aang_core.select(out=out, progress=stop, **given)


def test_shared_texts_are_listed_and_left_out_on_request(mine, tmp_path):
    train = examples(40, 200)
    for row, text in ((3, examples(1, 25)[0]["text"]), (7, examples(1, 36)[0]["text"].upper())):
        train[row]["text"] = text
    write_split(mine / "near", "train", train)
    given = settings(mine)
    with pytest.raises(TaskError) as caught:
        aang_core.select(out=tmp_path / "out", **given)
    message = str(caught.value)
    assert "the pool near shares texts with dev or test of target in 2 of its 40 rows" in message
    assert "(from 0: 3, 7)" in message
    assert "--exclude-leaks" in message
    assert not (tmp_path / "out").exists()
    selection = aang_core.select(out=tmp_path / "out", exclude_leaks=True, **given)
    assert not {3, 7} & set(selection.top(len(selection))["near"])
    assert selection.summary["tasks"][0]["leaks"] == [3, 7]


def test_one_text_of_a_pair_is_a_leak_too(mine, tmp_path):
    train = examples(40, 300)
    for i, row in enumerate(train):
        row["text_pair"] = f"Something else lies in number {i}."
    train[11]["text_pair"] = examples(1, 34)[0]["text"]
    write_split(mine / "pairs", "train", train)
    with pytest.raises(
        TaskError, match=r"the pool pairs shares .* in 1 of its 40 rows \(from 0: 11\)"
    ):
        aang_core.select(out=tmp_path / "out", **settings(mine))


def test_every_fault_of_the_data_comes_in_one_message(mine, tmp_path):
    near = examples(40, 200)
    for i, row in enumerate(near):
        row["label"] = str(i)
    write_split(mine / "near", "train", near)
    (mine / "near" / "task.toml").write_text('kind = "class"\n', "utf-8")
    for split in ("dev", "test"):
        write_split(mine / "near", split, near[:4])
    pools = ("near", "pairs", "target")
    with pytest.raises(TaskError) as caught:
        aang_core.select(out=tmp_path / "out", **settings(mine, pools=pools, top=1000))
    message = str(caught.value)
    assert "(near) has 40 classes in 40 rows, all of them numbers" in message
    assert 'kind = "regression"' in message
    assert "is the target itself; leave it out" in message
    assert "top is 1000, and the pools have" in message
    assert not (tmp_path / "out").exists()


def test_a_task_with_one_class_is_refused(mine, tmp_path):
    one = [{**row, "label": "same"} for row in examples(40, 200)]
    write_split(mine / "near", "train", one)
    with pytest.raises(TaskError, match="holds 1 class"):
        aang_core.select(out=tmp_path / "out", **settings(mine))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"selector": "discriminator-bcf"}, "did you mean 'discriminator-bce'"),
        ({"options": {"epoch": 3}}, "`options.epoch` is no setting"),
        (
            {"selector": "discriminator-ce", "options": {"epochs": 1.5}},
            "`options.epochs` must be a whole number of at least 0",
        ),
        (
            {"selector": "discriminator-ce", "options": {"lr": -1.0}},
            "`options.lr` must be a number of at least 0",
        ),
        ({"selector": "random-matched"}, "give --like DIR"),
        ({"examples_per_task": -1}, "must be a whole number of at least 0"),
        ({"shards": 3}, "is no setting"),
        ({"target": "nowhere"}, "neither a folder, a file nor a registered task"),
        ({"selector": "discriminator-ce", "examples_per_task": 0}, "raise --examples-per-task"),
    ],
)
def test_settings_that_cannot_be_are_refused(root, tmp_path, changed, message):
    with pytest.raises(AangError) as caught:
        aang_core.select(out=tmp_path / "out", **settings(root, **changed))
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pools_are_asked_for_and_need_names_of_their_own(root, tmp_path):
    with pytest.raises(ConfigError, match="at least one task or text file"):
        aang_core.select(target=str(root / "target"), out=tmp_path / "out")
    copy = tmp_path / "lines.text"
    copy.write_text("a line\n", "utf-8")
    given = settings(root, pools=("lines.txt",))
    given["from_"].append(str(copy))
    with pytest.raises(TaskError, match="same name 'lines'"):
        aang_core.select(out=tmp_path / "out", **given)


def test_a_file_that_is_no_text_is_refused(root, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff\xfe\x00 no utf-8 \xc3\x28\n")
    with pytest.raises(TaskError, match="expected UTF-8, one text a line"):
        aang_core.select(
            target=str(root / "target"), from_=bad, model="scratch:tiny", out=tmp_path / "out"
        )


def test_an_occupied_directory_is_left_as_it_is(root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(RunError, match="not an empty folder"):
        aang_core.select(out=tmp_path / "out", **settings(root))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    aang_core.select(out=tmp_path / "done", **settings(root))
    with pytest.raises(RunError, match="holds a selection already; go on with --resume"):
        aang_core.select(out=tmp_path / "done", **settings(root))
    with pytest.raises(RunError, match=r"cannot write .*; choose another --out"):
        aang_core.select(out=tmp_path / "out" / "mine.txt" / "below", **settings(root))
    with pytest.raises(RunError, match="no selection to resume"):
        aang_core.select(out=tmp_path / "none", resume=True)


def test_two_do_not_go_on_with_one_selection(root, tmp_path):
    broken(tmp_path / "out", **settings(root))
    refused = []

    def second(what, done, total):
        if what == "scoring" and not refused:
            with pytest.raises(RunError, match="another process is at work on") as caught:
                aang_core.select(out=tmp_path / "out", resume=True)
            refused.append(caught.value)

    aang_core.select(out=tmp_path / "out", resume=True, progress=second)
    assert refused


def test_a_resume_with_other_settings_or_other_data_is_refused(mine, tmp_path):
    given = settings(mine)
    broken(tmp_path / "out", **given)
    with pytest.raises(RunError, match="seed is 1 here and 0 there"):
        aang_core.select(out=tmp_path / "out", resume=True, **{**given, "seed": 1})
    changed = examples(40, 200)
    changed[0]["label"] = changed[1]["label"]
    write_split(mine / "near", "train", changed)
    with pytest.raises(RunError, match="the data of near changed since"):
        aang_core.select(out=tmp_path / "out", resume=True)
    write_split(mine / "target", "train", examples(25, 0))
    with pytest.raises(RunError, match="the data of the target, near changed since"):
        aang_core.select(out=tmp_path / "out", resume=True)


def test_damaged_shards_are_all_named_and_can_be_deleted(root, tmp_path):
    given = settings(root)
    aang_core.select(out=tmp_path / "whole", **given)
    broken(tmp_path / "out", **given)
    shards = sorted((tmp_path / "out" / "work" / "scores").iterdir())
    assert len(shards) > 3
    data = bytearray(shards[0].read_bytes())
    data[-1] ^= 1
    shards[0].write_bytes(data)
    shards[2].write_bytes(shards[2].read_bytes()[:20])
    with pytest.raises(RunError) as caught:
        aang_core.select(out=tmp_path / "out", resume=True)
    message = str(caught.value)
    assert "2 faults" in message
    assert shards[0].name in message
    assert shards[2].name in message
    assert "delete it, and it is scored again" in message
    shards[0].unlink()
    shards[2].unlink()
    aang_core.select(out=tmp_path / "out", resume=True)
    whole, out = (tmp_path / n / "selection.jsonl" for n in ("whole", "out"))
    assert whole.read_bytes() == out.read_bytes()


def test_a_damaged_preparation_is_named(root, tmp_path):
    given = settings(root, "embedding")
    broken(tmp_path / "out", **given)
    prepared = tmp_path / "out" / "work" / "prepared.safetensors"
    prepared.write_bytes(prepared.read_bytes()[:-8])
    with pytest.raises(RunError, match=r"prepared\.safetensors .* delete it, and it is made again"):
        aang_core.select(out=tmp_path / "out", resume=True)


def test_what_read_selection_refuses(root, tmp_path):
    with pytest.raises(RunError, match="make one with `aang select`"):
        read_selection(tmp_path)
    out = tmp_path / "out"
    selection = aang_core.select(out=out, **settings(root))
    with pytest.raises(RunError, match=f"expected a top from 1 to {len(selection)}, found 1000"):
        selection.top(1000)
    rows = (out / "selection.jsonl").read_text("utf-8").splitlines(keepends=True)
    (out / "selection.jsonl").write_text("".join(rows[:-1]), "utf-8")
    with pytest.raises(RunError, match=r"summary\.json says"):
        read_selection(out)
    (out / "selection.jsonl").write_text("".join([rows[1], *rows]), "utf-8")
    with pytest.raises(
        RunError, match=r"selection\.jsonl:1 is damaged.*expected the rank 1, found 2"
    ):
        read_selection(out)
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    (out / "summary.json").write_text(json.dumps({**summary, "schema": 9}), "utf-8")
    with pytest.raises(RunError, match="has the schema 9"):
        read_selection(out)


def test_controls_of_another_selection_are_refused(root, tmp_path):
    aang_core.select(out=tmp_path / "like", **settings(root))
    like = {"like": str(tmp_path / "like")}
    given = settings(root, "random-matched", options=like)
    with pytest.raises(ConfigError, match="rows of near are kept out here; give the --seed"):
        aang_core.select(out=tmp_path / "out", **{**given, "seed": 5})
    with pytest.raises(ConfigError, match="its pools are near, pairs, numbers, lines, not near"):
        aang_core.select(out=tmp_path / "out", **{**given, "from_": given["from_"][:1]})
