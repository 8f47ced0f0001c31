"""The built-in spaces: golden counts, and where each number comes from."""

from collections import Counter

import attrs
import pytest

import aang_core as aang
from aang_core.config.settings import RunConfig
from aang_core.data.auxiliary import expanded, load_auxiliary, with_sources
from aang_core.errors import ConfigError, TaskError
from aang_core.registry.legality import Illegal, Legal, enumerate_objectives
from aang_core.registry.registry import load_registry
from aang_core.registry.spaces import resolve_space
from aang_core.train.callbacks import Callback
from aang_core.train.resolve import resolve

REGISTRY = load_registry()


def legal(name, registry=REGISTRY, **settled):
    verdicts = enumerate_objectives(resolve_space(name, registry), registry, **settled)
    return [v.objective for v in verdicts if isinstance(v, Legal)], len(verdicts)


def test_full_is_the_paper_figure_with_its_counts():
    found, total = legal("full")
    assert (len(found), total) == (290, 400)
    assert Counter(objective.output for objective in found) == {
        "denoise": 4 * 5 * 4,
        "real-synthetic": 4 * 5 * 4,
        "tf-idf": 4 * 5 * 4,
        "next-token": 4 * 5 * 2,
        "end-task": 1 * 5 * 2,
    }
    assert {o.representation for o in found if o.output == "next-token"} == {
        "left-to-right",
        "right-to-left",
    }
    assert {(o.data, o.representation) for o in found if o.output == "end-task"} == {
        ("task", "bidirectional"),
        ("task", "random-factorized"),
    }


def test_full_goes_on_without_the_corpora_that_are_missing():
    space = resolve_space("full", REGISTRY)
    missing = {"out-of-domain": "out-of-domain: expected a corpus", "neural-lm": "no vocabulary"}
    verdicts = enumerate_objectives(space, REGISTRY, unavailable=missing)
    lost = [v for v in verdicts if isinstance(v, Illegal) and v.objective.data in missing]
    assert len(lost) == 200
    assert {v.reason for v in lost} == set(missing.values())
    assert sum(isinstance(v, Legal) for v in verdicts) == 10 + 2 * (3 * 20 + 10)


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("elmo", ["task/no-op/left-to-right/next-token", "task/no-op/right-to-left/next-token"]),
        ("electra", ["neural-lm/replace/bidirectional/real-synthetic"]),
        ("spanbert", ["task/span-mask/bidirectional/denoise"]),
        ("supervised", ["aux/no-op/bidirectional/supervised"]),
    ],
)
def test_named_recipes_are_exactly_their_objectives(name, ids):
    assert [objective.id for objective in legal(name)[0]] == ids


def test_a_document_objective_joins_any_space_with_an_ordered_corpus():
    space = resolve_space("dapt", REGISTRY, ["nsp"])
    for settled, count in (
        ({"data:document-order", "data:documents"}, 2),
        ({"data:document-order"}, 1),
    ):
        verdicts = enumerate_objectives(space, REGISTRY, provided={"in-domain": frozenset(settled)})
        assert sum(isinstance(v, Legal) for v in verdicts) == count


def write_task(folder, name, labels=("yes", "no")):
    folder.mkdir()
    lines = [f"text number {i},{labels[i % 2]}" for i in range(12)]
    for split in ("train", "dev"):
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    (folder / "task.toml").write_text(f'name = "{name}"\n', encoding="utf-8")
    return str(folder)


def test_every_further_task_is_a_data_source_of_its_own(tmp_path):
    one, other = write_task(tmp_path / "a", "My RTE"), write_task(tmp_path / "b", "mrpc")
    tasks = load_auxiliary([one, other], ("text",), REGISTRY)
    assert list(tasks) == ["my-rte", "mrpc"]
    registry = with_sources(REGISTRY, tasks)
    space = expanded(resolve_space("supervised", registry), registry, tasks)
    assert space.blocks[0].data == ("aux:my-rte", "aux:mrpc")
    assert registry.primitive("aux:mrpc").options["task"] == "mrpc"
    assert "aux:mrpc" not in REGISTRY.primitives
    with pytest.raises(TaskError, match="two further tasks have the name 'mrpc'"):
        load_auxiliary([other, other], ("text",), REGISTRY)
    with pytest.raises(ConfigError, match="'aux:mrpc' is claimed by"):
        with_sources(registry, {"mrpc": tasks["mrpc"]})


def test_a_space_and_with_may_name_a_further_task(tmp_path):
    main, other = write_task(tmp_path / "a", "main"), write_task(tmp_path / "b", "other")
    config = RunConfig(
        task=main,
        model="scratch:tiny",
        space="td",
        with_=("aux:other", "supervised"),
        aux_tasks=(other,),
    )
    resolved = resolve(config, REGISTRY)
    assert resolved.space is not None
    assert "aux:other" in resolved.space.blocks[0].data
    assert list(resolved.task.auxiliary) == ["other"]
    found = enumerate_objectives(resolved.space, resolved.registry)
    ours = [v.objective for v in found if isinstance(v, Legal) and "supervised" in v.objective.id]
    assert len(ours) == 4 * 2
    assert {objective.data for objective in ours} == {"aux:other"}


def test_a_run_learns_from_a_further_task(tmp_path):
    main = write_task(tmp_path / "a", "main")
    other = write_task(tmp_path / "b", "other", ("0.5", "2.5"))
    config = RunConfig(task=main, model="scratch:tiny", space="supervised", aux_tasks=(other,))
    small = {"max_steps": 2, "final_epochs": 0, "end_task_rows": 4, "auxiliary_rows": 4}
    training = attrs.evolve(config.training, **small)
    report = aang.run(attrs.evolve(config, training=training), out=tmp_path / "run")
    (name,) = report.seeds[0].weights["objectives"]
    assert name == "aux:other/no-op/bidirectional/supervised"
    without = attrs.evolve(config, aux_tasks=(), training=training)
    with pytest.raises(TaskError, match="give --aux-task TASK"):
        aang.run(without, out=tmp_path / "other")


class Listening(Callback):
    def __init__(self):
        self.told, self.remarks = [], []

    def on_preparation(self, what, done, total):
        self.told.append((what, done, total))

    def on_remark(self, remark):
        self.remarks.append(remark)


def test_a_run_tells_what_it_prepares_and_remarks_on_each_thing_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    main = write_task(tmp_path / "a", "main")
    (tmp_path / "corpus").mkdir()
    for name, text in (("a", "One is.\nTwo is."), ("b", ""), ("c", "Three is.\nFour is.")):
        (tmp_path / "corpus" / f"{name}.txt").write_text(text, encoding="utf-8")
    listening = Listening()
    report = aang.run(
        task=main,
        model="scratch:tiny",
        space="electra",
        with_=["in-domain", "nsp"],
        external={"in-domain": str(tmp_path / "corpus")},
        primitives={"neural-lm": {"fit_steps": 2, "corpus": "in-domain"}},
        training={"max_steps": 2, "final_epochs": 0, "end_task_rows": 4, "auxiliary_rows": 8},
        callbacks=listening,
        out=tmp_path / "run",
    )
    assert set(report.seeds[0].weights["objectives"]) == {
        "neural-lm/replace/bidirectional/real-synthetic",
        "in-domain/replace/bidirectional/real-synthetic",
        "in-domain/replace/bidirectional/nsp",
    }
    assert ("neural-lm: fitting a denoise head", 2, 2) in listening.told
    assert listening.told[-1] == ("neural-lm: sampling proposals", 1, 1)
    assert len([text for text in listening.remarks if "1 empty documents" in text]) == 1
    assert len(list((tmp_path / "cache" / "aang" / "proposals").iterdir())) == 1
