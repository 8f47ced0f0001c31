"""Training on the best of a selection: which rows are read, what is refused, several N with controls, resuming."""

import json
import shutil

import attrs
import pytest
from _selections import settings as selecting
from _selections import write_pools
from _tasks import TRAINING, write_split
from aang_cli.main import main
from click.testing import CliRunner

import aang_core as aang
from aang_core.config.file import dump_config, load_config
from aang_core.config.settings import RunConfig
from aang_core.data.auxiliary import check_selection, load_selected, same_task
from aang_core.errors import ConfigError, RunError, TaskError
from aang_core.registry.registry import load_registry
from aang_core.registry.spaces import suggestions
from aang_core.study.selected.selections import arms_of, control_named, run_selected

LABELLED = ("near", "pairs", "numbers")
SHORT = {**TRAINING, "epochs": 1, "eval_every": 50}
REGISTRY = load_registry()
SUGGEST = suggestions(REGISTRY)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("pools"))


@pytest.fixture(scope="module")
def chosen(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("selections") / "chosen"
    aang.select(out=out, **selecting(root, "random", pools=LABELLED))
    return out


def config(root, selection, top=6, **changed):
    own = {"task": str(root / "target"), "selection": str(selection), "top": top}
    base = {"model": "scratch:tiny", "training": SHORT, **own}
    return RunConfig.from_mapping({**base, **changed}, suggest=SUGGEST)


def loaded(asked):
    return load_selected(asked, ("text", "text_pair"), REGISTRY)


def test_a_selection_brings_the_defaults_of_training_on_it(root, chosen, tmp_path):
    given = {"selection": "somewhere", "top": 5, "training": {"lr": 1e-5}}
    asked = RunConfig.from_mapping(given, suggest=SUGGEST)
    assert (asked.space, asked.method) == ("supervised", "static")
    assert asked.training.final_epochs == 5
    assert asked.training.lr == 1e-5
    path = tmp_path / "config.toml"
    path.write_text(dump_config(asked), "utf-8")
    assert load_config(path) == asked
    assert 'auxiliary_rows = "proportional"' in path.read_text("utf-8")


def test_what_a_selection_brings_is_declared_by_a_space_and_a_selector():
    """The core knows no name: another plugin's space and control, under other names, serve as well."""
    supervised = REGISTRY.spaces["supervised"]
    mine = attrs.evolve(supervised, record=attrs.evolve(supervised.record, name="mine"))
    chance = REGISTRY.selectors["random"]
    drawn = attrs.evolve(chance, record=attrs.evolve(chance.record, name="drawn"))
    other = attrs.evolve(REGISTRY, spaces={"mine": mine}, selectors={"drawn": drawn})
    asked = RunConfig.from_mapping({"selection": "somewhere"}, suggest=suggestions(other))
    assert (asked.space, asked.method) == ("mine", "static")
    assert control_named("random", other) == "drawn"
    with pytest.raises(ConfigError, match="control 'random-matched', found none"):
        control_named("random-matched", other)
    both = attrs.evolve(other, spaces={"mine": mine, "supervised": supervised})
    with pytest.raises(ConfigError, match="for selections: 'mine' and 'supervised'; choose"):
        RunConfig.from_mapping({"selection": "somewhere"}, suggest=suggestions(both))


def test_the_tasks_of_the_best_rows_are_read_with_these_rows_alone(root, chosen):
    best = [json.loads(line) for line in (chosen / "selection.jsonl").open(encoding="utf-8")][:9]
    tasks = loaded(config(root, chosen, top=9))
    assert set(tasks) == {line["task"] for line in best}
    for name, task in tasks.items():
        written = (root / name / "train.jsonl").read_text("utf-8").splitlines()
        rows = sorted(line["row"] for line in best if line["task"] == name)
        assert task.splits["train"]["text"][:] == [json.loads(written[r])["text"] for r in rows]
    assert sum(len(task.splits["train"]) for task in tasks.values()) == 9


def test_what_contradicts_a_selection_is_listed_before_it_is_read():
    asked = RunConfig.from_mapping(
        {"selection": "nowhere", "aux_tasks": ["other"], "method": "finetune"}, suggest=SUGGEST
    )
    with pytest.raises(ConfigError) as fault:
        check_selection(asked)
    assert "3 faults" in str(fault.value)
    for said in ("--top N", "leave out --aux-task (other)", "finetune trains on the target alone"):
        assert said in str(fault.value)
    with pytest.raises(ConfigError, match="give --selection DIR"):
        check_selection(RunConfig.from_mapping({"top": 3}))


def test_a_selection_for_another_target_is_refused(root, chosen):
    with pytest.raises(
        ConfigError, match=r"was selected for the target .*target'.*task is .*near'"
    ):
        loaded(config(root, chosen, task=str(root / "near")))


def test_more_examples_than_there_are_are_refused_before_training(root, chosen, tmp_path):
    asked = config(root, chosen, top=5000)
    with pytest.raises(RunError, match="expected a top from 1 to 96, found 5000"):
        aang.run(asked, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_directory_without_a_selection_says_what_makes_one(root, tmp_path):
    with pytest.raises(RunError, match="aang select"):
        loaded(config(root, tmp_path))


def test_rows_that_a_task_has_no_longer_are_named(root, chosen, tmp_path):
    moved = tmp_path / "pools"
    shutil.copytree(root, moved)
    selection = tmp_path / "selection"
    aang.select(out=selection, **selecting(moved, "random", pools=LABELLED))
    for name in ("near", "pairs"):
        rows = [json.loads(text) for text in (moved / name / "train.jsonl").open(encoding="utf-8")]
        write_split(moved / name, "train", rows[:10])
    with pytest.raises(ConfigError) as fault:
        loaded(config(moved, selection, top=96))
    assert "2 faults" in str(fault.value)
    assert "near has 10 training rows now (0 to 9)" in str(fault.value).replace(f"{moved}/", "")
    shutil.rmtree(moved / "near")
    with pytest.raises(TaskError, match="near"):
        loaded(config(moved, selection, top=96))


def test_lines_without_labels_cannot_be_a_further_task(root, tmp_path):
    aang.select(out=tmp_path / "lines", **selecting(root, "random", pools=("lines.txt",)))
    with pytest.raises(ConfigError, match="texts without labels"):
        loaded(config(root, tmp_path / "lines"))


def test_a_task_and_its_file_are_the_same(root):
    (root / "target" / "task.toml").write_text('name = "target"\n', "utf-8")
    assert same_task(str(root / "target"), str(root / "target" / "task.toml"))
    assert same_task("sample", "sample")
    assert not same_task("sample", str(root / "target"))


def test_arms_come_by_n_with_their_controls():
    names = [arm.name for arm in arms_of(["a"], ["none", "random-matched", "random"], [10, 20])]
    assert names == [
        "none",
        *("a-top-10", "random-top-10", "random-matched-a-top-10"),
        *("a-top-20", "random-top-20", "random-matched-a-top-20"),
    ]


@pytest.fixture(scope="module")
def selected(root, tmp_path_factory):
    """A selection that is no control."""
    out = tmp_path_factory.mktemp("selections") / "embedding"
    aang.select(out=out, **selecting(root, "embedding", pools=LABELLED))
    return out


def test_several_n_and_controls_are_trained_and_compared(root, selected, tmp_path):
    out = tmp_path / "runs"
    asked = config(root, selected)
    controls = ("none", "full", "random-matched")
    found = run_selected(asked, (3, 6), controls, out, REGISTRY)
    names = [row["run"] for row in found.rows]
    assert names[:3] == ["none", "full", "embedding-top-3"]
    assert {p.name for p in out.glob("scores.*")} == {"scores.svg", "scores.png"}
    plain, full = (load_config(out / name / "config.toml") for name in ("none", "full"))
    assert (plain.method, plain.selection, plain.aux_tasks) == ("finetune", "", ())
    assert [same_task(a, str(root / n)) for a, n in zip(full.aux_tasks, LABELLED, strict=True)]
    assert load_config(out / "embedding-top-6" / "config.toml").top == 6
    steps = {json.loads((out / n / "report.json").read_text())["seeds"][0]["steps"] for n in names}
    assert len(steps) == 1  # as many steps on the target, whatever stands beside it

    shutil.rmtree(out / "embedding-top-6")
    before = (out / "none" / "report.json").stat().st_mtime_ns
    other = attrs.evolve(asked, training=attrs.evolve(asked.training, lr=0.5))
    with pytest.raises(
        RunError, match=r"training\.lr is 0\.5 here and 0\.0001 there; resume it with the same"
    ):
        run_selected(other, (3, 6), controls, out, REGISTRY, resume=True)
    assert not (out / "embedding-top-6").exists()
    with pytest.raises(RunError, match="go on with --resume"):
        run_selected(asked, (3, 6), controls, out, REGISTRY)

    class Second(aang.Callback):
        refused = 0

        def on_begin(self, directory):
            with pytest.raises(RunError, match="another process is at work on"):
                run_selected(asked, (3, 6), controls, out, REGISTRY, resume=True)
            self.refused += 1

    second = Second()
    again = run_selected(asked, (3, 6), controls, out, REGISTRY, resume=True, callback=second)
    assert second.refused == 1  # one run was missing
    assert [row["values"] for row in again.rows] == [row["values"] for row in found.rows]
    assert (out / "none" / "report.json").stat().st_mtime_ns == before


def test_the_command_trains_one_n_into_out_itself(root, selected, tmp_path):
    words = ["run", "--task", str(root / "target"), "--model", "scratch:tiny", "--json"]
    words += ["--selection", str(selected), "--top", "4", "--out", str(tmp_path / "run")]
    words += [
        w for k, v in SHORT.items() if k != "max_steps" for w in ("--set", f"training.{k}={v}")
    ]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["space"] == "supervised"
    assert report["weights"]["end_task"] == pytest.approx(24 / 28)
    assert (tmp_path / "run" / "model").is_dir()


def test_the_command_says_what_several_n_need(root, selected, tmp_path):
    words = ["run", "--selection", str(selected), "--top", "4"]
    for more, said in (
        (["--top", "6"], "several --top needs --out"),
        (["--control", "none"], "--control needs --out"),
        (["--top", "6", "--dry-run", "--out", str(tmp_path / "x")], "exclude each other"),
    ):
        done = CliRunner().invoke(main, [*words, *more])
        assert done.exit_code == 2
        assert said in done.stderr
    done = CliRunner().invoke(main, ["run", "--control", "none", "--out", str(tmp_path / "x")])
    assert "needs --selection DIR and --top N" in done.stderr
