"""A whole experiment on tiny tasks: broken off and gone on with, its controls, its tables, what is refused."""

import json
import statistics
import zipfile

import attrs
import pytest
from _selections import write_pools
from _tasks import untimed, write_task
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.data.auxiliary import read_selection
from aang_core.errors import AangError, ConfigError, RunError, TaskError
from aang_core.registry.registry import load_registry
from aang_core.study.selected.experiment import run_experiment
from aang_core.study.selected.experiment_spec import dump_spec, read_spec
from aang_core.study.trials.pool import StudyCallback

REGISTRY = load_registry()
SPEC = """
title = "Tiny"
targets = ["{root}/target"]
pools = ["{root}/target", "{root}/near", "{root}/pairs"]
top = [3, 6]
seeds = [0, 1]
[rows]
train = 12
pool = 20
[run]
model = "scratch:tiny"
training = {{ end_task_rows = 4, epochs = 1, final_epochs = 0, eval_every = 50, lr = 1e-2 }}
[select]
examples_per_task = 6
picture_rows = 0
options.discriminator-bce = {{ epochs = 1, batch_rows = 4 }}
"""


class Broken(Exception):
    """What ends an experiment before its time."""


class Breaking(StudyCallback):
    """Counts runs, and breaks the experiment off before one of them."""

    def __init__(self, at=0):
        self.at, self.planned, self.kept, self.started, self.trained = at, [], [], [], 0

    def on_plan(self, trials, finished):
        self.planned, self.kept = list(trials), list(finished)

    def on_start(self, trial, attempt):
        self.started.append(trial)
        if len(self.kept) + len(self.started) == self.at:
            raise Broken

    def on_seed(self, session):
        self.trained += 1


def carried_out(path, out, at=0, resume=False):
    """Carry out an experiment, and give its results and who heard of it."""
    heard = Breaking(at)
    return run_experiment(path, out, REGISTRY, resume, heard), heard


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("pools"))


def written(root, folder, text=SPEC):
    path = folder / "spec.toml"
    path.write_text(text.format(root=root), "utf-8")
    return path


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """An experiment that was broken off before its sixth run, and then gone on with."""
    folder = tmp_path_factory.mktemp("experiment")
    path, out = written(root, folder), folder / "out"
    with pytest.raises(Broken):
        carried_out(path, out, at=6)
    assert len(list(out.rglob("report.json"))) == 5
    so_far = json.loads((out / "results.json").read_text("utf-8"))
    assert so_far["runs"] == {"planned": 16, "finished": 5}
    assert "11 of 16 runs are not finished" in (out / "results.md").read_text("utf-8")
    results, second = carried_out(path, out, resume=True)
    return path, out, results, second


def test_what_was_finished_is_kept_and_the_rest_is_made(finished):
    _, out, results, second = finished
    arms = 8  # none, full, and at either N the selection and two random draws
    assert results["runs"] == {"planned": 2 * arms, "finished": 2 * arms}
    assert second.trained == 2 * arms - 5
    assert second.started == second.planned[5:]
    assert second.kept == second.planned[:5]
    assert not list(out.rglob("model.safetensors"))  # models are kept only where that is asked for
    assert not list(out.rglob("*.partial"))


def test_an_experiment_that_was_not_broken_off_gives_the_same(root, finished, tmp_path):
    text = SPEC.replace("top = [3, 6]\nseeds = [0, 1]", "top = [6]\ncontrols = []\nseeds = [1]")
    run_experiment(written(root, tmp_path, text), tmp_path / "out", REGISTRY)
    place = "runs/target/discriminator-bce-top-6/seed-1/report.json"
    whole, resumed = (
        json.loads((out / place).read_text("utf-8")) for out in (tmp_path / "out", finished[1])
    )
    assert untimed(whole) == untimed(resumed)


def test_rows_of_the_table_are_those_of_the_runs(finished):
    _, out, results, _ = finished
    rows = {row["arm"]: row for row in results["rows"]}
    for arm, row in rows.items():
        reports = [
            json.loads((out / "runs/target" / arm / f"seed-{s}/report.json").read_text("utf-8"))
            for s in (0, 1)
        ]
        for split in ("dev", "test"):
            scores = [report["seeds"][0][split]["accuracy"] for report in reports]
            assert row[split]["mean"] == pytest.approx(statistics.fmean(scores))
            assert row[split]["std"] == pytest.approx(statistics.stdev(scores))
        spent = statistics.fmean(report["seeds"][0]["cost"]["cpu_seconds"] for report in reports)
        total = row["total"]["cpu_seconds"]
        assert row["training"]["cpu_seconds"] == pytest.approx(spent)
        assert total == pytest.approx(spent + row["selection"]["cpu_seconds"])
        full = rows["full"]["total"]["cpu_seconds"]
        assert row["of_full"]["cpu_seconds"] == pytest.approx(total / full)
    assert rows["discriminator-bce-top-3"]["selection"]["cpu_seconds"] > 0
    assert rows["none"]["selection"]["cpu_seconds"] == 0
    assert rows["none"]["tokens"] < rows["random-top-3"]["tokens"] < rows["full"]["tokens"]


def test_matched_draws_have_the_selections_counts(finished):
    _, out, _, _ = finished
    for seed in (0, 1):
        place = out / f"selections/target/seed-{seed}"
        own, matched = (
            read_selection(place / name)
            for name in ("discriminator-bce", "random-matched-discriminator-bce")
        )
        for top in (3, 6):
            sizes = [{n: len(r) for n, r in each.top(top).items()} for each in (own, matched)]
            assert sizes[0] == sizes[1]


def test_differences_are_paired_with_every_control_of_the_same_n(finished):
    found = [c for c in finished[2]["comparisons"] if c["split"] == "test"]
    against = {(each["arm"][-1], each["against"]) for each in found}
    matched = "random-matched-discriminator-bce-top-"
    assert against == {
        (n, name) for n in "36" for name in ("none", "full", f"random-top-{n}", f"{matched}{n}")
    }
    assert all(each["seeds"] == [0, 1] for each in found)


def test_tables_pictures_and_archives_are_written(finished):
    _, out, results, _ = finished
    text = (out / "results.md").read_text("utf-8")
    assert "| random-top-6 | 6 | 2 |" in text
    assert "![target](score-target.svg)" in text
    assert (out / "score-target.png").stat().st_size > 1000
    assert "submissions/full.zip" in results["submissions"]
    with zipfile.ZipFile(out / "submissions/full.zip") as archive:
        assert archive.namelist() == ["target.tsv"]
        assert len(archive.read("target.tsv").decode().splitlines()) == 11
    assert json.loads((out / "results.json").read_text("utf-8")) == results


def test_the_command_goes_on_and_prints_one_document(finished):
    path, out, results, _ = finished
    words = ["select", "--experiment", str(path), "--out", str(out)]
    done = CliRunner().invoke(main, [*words, "--resume", "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == results["rows"]
    taken = CliRunner().invoke(main, words)
    assert taken.exit_code == 1
    assert "holds an experiment already" in taken.stderr
    mixed = CliRunner().invoke(main, [*words, "--seed", "3"])
    assert mixed.exit_code == 2
    assert "leave out --seed" in mixed.stderr


def test_an_experiment_with_other_settings_is_not_gone_on_with(root, finished, tmp_path):
    other = written(root, tmp_path, SPEC.replace("[3, 6]", "[3, 7]"))
    with pytest.raises(RunError, match="was begun with other settings"):
        run_experiment(other, finished[1], REGISTRY, resume=True)
    with pytest.raises(RunError, match="holds no experiment to resume"):
        run_experiment(other, tmp_path / "nothing", REGISTRY, resume=True)


def test_two_do_not_go_on_with_one_experiment(finished):
    path, out, results, _ = finished

    class Second(StudyCallback):
        refused = 0

        def on_plan(self, trials, finished):
            with pytest.raises(RunError, match="another process is at work on"):
                run_experiment(path, out, REGISTRY, resume=True)
            self.refused += 1

    second = Second()
    again = run_experiment(path, out, REGISTRY, resume=True, callback=second)
    assert again["rows"] == results["rows"]
    assert second.refused == 1


def test_a_specification_comes_back_from_its_own_text(finished, tmp_path):
    spec = read_spec(finished[0])
    path = tmp_path / "again.toml"
    path.write_text(dump_spec(spec), "utf-8")
    assert attrs.asdict(read_spec(path)) == attrs.asdict(spec)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("end_task_rows = 4", "end_task_row = 4", "is no setting; did you mean 'end_task_rows'"),
        ("examples_per_task = 6", 'examples_per_task = "all"', "must be a whole number"),
        ("top = [3, 6]", 'selectors = ["random"]', "'random' is a control"),
        ("top = [3, 6]", 'selectors = ["discriminatr-bce"]', "did you mean 'discriminator-bce'"),
        ("top = [3, 6]", "top = [3, 60]", "top is 60, and the pools have"),
        ('"{root}/near", "{root}/pairs"', '"{root}/target/"', "is the only pool"),
        ("pool = 20", "pool = 1", "holds 1 class"),
    ],
)
def test_what_cannot_work_is_said_before_any_training(root, tmp_path, old, new, said):
    path = written(root, tmp_path, SPEC.replace(old, new))
    with pytest.raises(AangError, match=said):
        carried_out(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pool_rows_that_stand_in_the_targets_dev_or_test_are_left_out(root, tmp_path):
    leaky = tmp_path / "leaky"
    write_task(leaky)
    dev = (root / "target/dev.jsonl").read_text("utf-8")
    train = (leaky / "train.jsonl").read_text("utf-8").replace("box", "crate")
    (leaky / "train.jsonl").write_text(train + dev, "utf-8")
    own = (leaky / "test.jsonl").read_text("utf-8").replace("box", "crate")
    (leaky / "dev.jsonl").write_text(own, "utf-8")
    text = SPEC.replace("{root}/near", str(leaky)).replace("pool = 20", "pool = 0")
    with pytest.raises(Broken):
        carried_out(written(root, tmp_path, text), tmp_path / "out", at=1)
    [kept] = tmp_path.glob("out/data/target/seed-0/pools/leaky/train.jsonl")
    assert len(kept.read_text("utf-8").splitlines()) == 24
    assert "box" not in kept.read_text("utf-8")


def test_a_targets_name_leads_nowhere_else(root, tmp_path):
    """A task is called what its file says; two targets of one name would read each other's rows."""
    hostile = tmp_path / "hostile"
    write_task(hostile)
    (hostile / "task.toml").write_text('name = "../../Far off"\n', "utf-8")
    alone = SPEC.replace('"{root}/target", ', "")
    text = alone.replace('["{root}/target"]', f'["{hostile}"]')
    with pytest.raises(Broken):
        carried_out(written(root, tmp_path, text), tmp_path / "a/b/out", at=1)
    assert [p.name for p in (tmp_path / "a/b/out/data").iterdir()] == ["far-off"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
    text = alone.replace('["{root}/target"]', f'["{hostile}", "{hostile}/task.toml"]')
    with pytest.raises(ConfigError, match="two targets have the name 'far-off'"):
        run_experiment(written(root, tmp_path, text), tmp_path / "out", REGISTRY)


def test_a_place_that_cannot_be_written_to_is_named(root, tmp_path):
    path = written(root, tmp_path)
    with pytest.raises(RunError, match=r"cannot write .*; choose another --out"):
        run_experiment(path, path / "out", REGISTRY)


def test_a_task_that_cannot_be_drawn_says_so(root, tmp_path):
    with pytest.raises(TaskError):
        run_experiment(
            written(root, tmp_path, SPEC.replace("{root}/target", "{root}/nowhere")),
            tmp_path / "out",
            REGISTRY,
        )
