"""`aang run --control shuffled`, and how far the seeds of a run agree on the weights that they learned."""

import itertools
import json

import attrs
import pytest
from _tasks import flags, settings, write_task
from aang_cli.main import main
from click.testing import CliRunner

import aang_core as aang
from aang_core.analysis.answer import helped
from aang_core.analysis.compare import compare_runs
from aang_core.analysis.page.page import build_story, page, told
from aang_core.analysis.page.story import read_story
from aang_core.errors import ConfigError, RunError
from aang_core.rundir.finished import read_control, read_runs
from aang_core.rundir.report import weights_agreement


def ranks(values):
    """From 1, equal ones the mean of their places."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def pearson(first, second):
    a, b = ([v - sum(values) / len(values) for v in values] for values in (first, second))
    return (
        sum(x * y for x, y in zip(a, b, strict=True))
        / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
    )


def test_agreement_is_the_mean_rank_correlation_of_all_pairs():
    tables = [
        {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.1},
        {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.2},
        {"a": 0.1, "b": 0.2, "c": 0.7, "e": 0.3},
    ]
    expected = []
    for first, second in itertools.combinations(tables, 2):
        names = sorted(first.keys() & second.keys())
        expected.append(pearson(*(ranks([t[n] for n in names]) for t in (first, second))))
    assert weights_agreement("aang", tables) == pytest.approx(sum(expected) / 3)
    assert weights_agreement("aang", tables[:1]) is None
    assert (
        weights_agreement("aang", tables[:1] * 3) is None
    )  # those of a recipe, which nothing moved
    assert weights_agreement("aang", [dict.fromkeys("abc", 1 / 3)] * 2) is None
    assert weights_agreement("static", tables) is None
    assert weights_agreement("finetune", [{}, {}]) is None


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def command(*words):
    return CliRunner().invoke(main, ["run", *map(str, words)])


@pytest.fixture(scope="module")
def made(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    seeds = ("--seed", 0, "--seed", 1, "--against", "none")
    first = command("--task", task, "--out", out, "--control", "shuffled", *seeds, *flags())
    assert first.exit_code == 0, first.stderr
    return out, first


def test_the_control_is_the_same_run_with_shuffled_weights(made):
    out, first = made
    run, control = read_runs([out, out.with_name("run-shuffled")])
    assert not run.is_control
    assert control.is_control
    assert run.seeds == control.seeds
    assert run.report["weights_agreement"] == pytest.approx(run.agreement)
    lines = first.stdout.splitlines()
    (said,) = [line for line in lines if line.startswith("control: ")]
    agreed = f"{run.agreement:+.2f} in run, {control.agreement:+.2f} in run-shuffled (shuffled)"
    assert said.endswith(f"with a mean rank correlation of {agreed}")


def test_comparisons_and_the_page_put_the_two_agreements_beside_each_other(made):
    out, _ = made
    run, control = read_runs([out, out.with_name("run-shuffled")])
    found = compare_runs([control, run])
    assert [row["weights_agreement"] for row in found.rows] == [control.agreement, run.agreement]
    assert any("in run-shuffled (shuffled)" in remark for remark in found.remarks)
    html, _ = page(build_story(run, [control]), [read_story(control)])
    said = "Learned weights agree between seeds with a mean rank correlation of"
    assert f"{said} {run.agreement:+.2f} in run, {control.agreement:+.2f} in run-shuffled" in html
    alone, _ = page(attrs.evolve(build_story(run), control={}))
    assert said in alone
    assert "(shuffled)" not in alone


def test_the_run_records_its_control_and_its_page_shows_it(made, tmp_path):
    out, _ = made
    run, control = read_runs([out, out.with_name("run-shuffled")])
    known = read_control(out)
    assert (known["directory"], known["control"]) == ("run-shuffled", "shuffled")
    assert known["delta"] == pytest.approx(helped(control, run)["delta"])
    agreed = f"{run.agreement:+.2f} in run, {control.agreement:+.2f} in run-shuffled (shuffled)"
    html, _ = page(*told(run))
    assert f"Control with shuffled weights: {known['said']}" in html
    assert html.count(agreed) == 1
    compared, _ = page(build_story(run, [control]), [read_story(control)])
    assert "Control with shuffled weights" not in compared
    assert compared.count(agreed) == 1
    (tmp_path / "control.json").write_text('{"directory": "../x", "control": "shuffled"}', "utf-8")
    with pytest.raises(RunError, match=r"control\.json is damaged"):
        read_control(tmp_path)


def test_a_finished_run_is_kept_and_the_control_added(task, tmp_path):
    out = tmp_path / "run"
    one = command("--task", task, "--out", out, "--against", "none", *flags(max_steps=2))
    assert one.exit_code == 0, one.stderr
    before = (out / "seed.json").stat().st_mtime_ns if (out / "seed.json").exists() else None
    two = command("--resume", "--out", out, "--control", "shuffled", "--json")
    assert two.exit_code == 0, two.stderr
    if before is not None:
        assert (out / "seed.json").stat().st_mtime_ns == before
    found = json.loads(two.stdout)["control"]
    assert found["directory"] == str(tmp_path / "run-shuffled")
    assert found["scores"].keys() == {"run", "run-shuffled"}
    assert "rank correlation" not in found["said"]  # one seed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dry-run", "--top", "2", "--top", "3"), "goes with one run"),
        (("--folds", "2", "--out", "x"), "exclude each other"),
        (("--processes", "2"), "exclude each other"),
    ],
)
def test_flags_that_make_no_sense_beside_it_are_refused(words, said):
    done = command("--control", "shuffled", *words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_dry_run_refuses_what_the_run_would(task):
    asked = ("--task", task, "--dry-run", "--control", "shuffled", *flags())
    assert command(*asked).exit_code == 0
    done = command(*asked, "--set", "meta.rule=equal")
    assert done.exit_code == 1
    assert "can do nothing where weights stay equal" in done.stderr


def test_a_run_that_learns_no_weights_or_is_the_control_has_none(task, tmp_path):
    given = settings(method="static")
    with pytest.raises(ConfigError, match="learns no weights"):
        aang.run(task=str(task), out=tmp_path / "run", control="shuffled", **given)
    given = settings(meta={"control": "shuffled"})
    with pytest.raises(ConfigError, match=r"whose own meta.control is 'none'"):
        aang.run(task=str(task), out=tmp_path / "run", control="shuffled", **given)
    with pytest.raises(ConfigError, match="got 'random'"):
        aang.run(task=str(task), out=tmp_path / "run", control="random", **settings())
    assert not (tmp_path / "run").exists()
