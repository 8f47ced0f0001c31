"""Pseudo-labels: the probe against scikit-learn, neighbours against all pairs, what is drawn and how much it weighs."""

from collections import Counter

import attrs
import pytest
import torch
from aang_text.data.pseudo import PseudoLabelled, confirmed, probed
from sklearn.linear_model import LogisticRegression

from aang_core.batch.protocols import Binding, Look
from aang_core.batch.rows import Layout
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError, TaskError
from aang_core.registry.options import check_options
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

OPTIONS = {"neighbours": 3, "agreement": 0.3, "confidence": 0.3, "refresh": 0}


def source(task=None, remark=print, **options):
    task = task or tiny_task()
    given = {**OPTIONS, **options}
    return PseudoLabelled(
        Binding(task=task, backbone=tiny_backbone(torch.float64), options=given, remark=remark)
    )


def test_neighbours_are_those_of_all_pairs():
    draw = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(
        torch.randn(30, 4, generator=draw, dtype=torch.float64), dim=-1
    )
    labels = torch.randint(3, (30,), generator=draw)
    found = confirmed(features, labels, 5)
    for i in range(30):
        others = sorted(
            (j for j in range(30) if j != i), key=lambda j: -float(features[i] @ features[j])
        )[:5]
        expected = sum(int(labels[j]) == int(labels[i]) for j in others) / 5
        assert float(found[i]) == pytest.approx(expected)
    assert confirmed(features, labels, 0).eq(1).all()
    assert confirmed(features[:2], labels[:2], 5).shape == (2,)


def test_the_first_model_is_a_probe_on_the_labelled_features():
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(40, 4, generator=draw, dtype=torch.float64)
    known = torch.tensor([0, 2, 3] * 10)
    labels, sure = probed(features[:30], known, features[30:])
    fitted = LogisticRegression(max_iter=1000).fit(features[:30].numpy(), known.numpy())
    assert labels.tolist() == fitted.predict(features[30:].numpy()).tolist()
    expected = fitted.predict_proba(features[30:].numpy()).max(1)
    torch.testing.assert_close(sure, torch.as_tensor(expected))
    alone, certain = probed(features[:3], torch.tensor([1, 1, 1]), features[3:6])
    assert alone.tolist() == [1, 1, 1]
    assert certain.tolist() == [1, 1, 1]


def test_rows_are_drawn_by_class_and_weigh_what_the_first_model_is_sure_of():
    said = []
    made = source(remark=said.append)
    assert "texts without labels are kept" in said[0]
    rows = made.draw(Layout(), 600, torch.Generator().manual_seed(0))
    counts = Counter(row.label for row in rows)
    for count in counts.values():
        assert count == pytest.approx(600 / len(counts), rel=0.3)
    confidence = {
        int(made.found.kept[n]): float(made.found.confidence[n]) for n in range(len(made))
    }
    for row in rows[:20]:
        assert row.weight == pytest.approx(confidence[row.origin.document])
        assert 0.3 <= row.weight <= 1
    pairs = made.draw(Layout("neighbours", "same-label"), 20, torch.Generator().manual_seed(1))
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        assert one.structure == other.structure == int(one.label == other.label)


def test_stricter_options_keep_fewer_and_none_is_refused_in_words():
    assert len(source(agreement=0.6)) <= len(source(agreement=0.3))
    with pytest.raises(TaskError, match=r"no label of .* is confirmed"):
        source(confidence=1.0)


def test_a_task_that_has_no_such_texts_is_refused():
    task = attrs.evolve(tiny_task(), unlabelled=None)
    with pytest.raises(TaskError, match="whose labels are not known"):
        source(task)
    with pytest.raises(TaskError, match="expected a task of classes"):
        source(tiny_task("regression"))


def test_bad_options_are_named():
    given = {
        "pseudo-labelled": {"agreement": 1.5, "neighbours": -1, "refresh": -2},
        "agree": {"gate": "some"},
    }
    with pytest.raises(ConfigError, match=r"(?s)gate.*agreement|agreement.*gate"):
        check_options(RunConfig.from_mapping({"primitives": given}), load_registry())


def looking(logits, means):
    """What a model says of rows: the given answers by the number of the text, for labelled ones the first."""

    def look(rows):
        places = [row.origin.document for row in rows]
        return Look(logits=logits[places], means=means[places])

    return look


def test_the_model_relabels_texts_and_what_it_decides_is_the_memory():
    made = source(neighbours=0, confidence=0.34, refresh=10)
    first, count = made.memory(), len(made.texts)
    logits = torch.zeros(count, 3)
    logits[torch.arange(count), torch.arange(count) % 3] = 4.0
    logits[:5] = 0.0  # not sure enough
    look = looking(logits, torch.ones(count, 4))
    memory, said = made.refreshed(look)
    assert memory["labels"].tolist() == [-1] * 5 + [n % 3 for n in range(5, count)]
    sure = float(torch.tensor([4.0, 0.0, 0.0]).softmax(0)[0])
    assert memory["confidence"].tolist() == pytest.approx([0.0] * 5 + [sure] * (count - 5))
    assert f"labels {count - 5} of {count} texts" in said
    assert torch.equal(made.memory()["labels"], first["labels"]), "looking changes nothing"
    made.remember(memory)
    assert len(made) == count - 5
    rows = made.draw(Layout(), 300, torch.Generator().manual_seed(0))
    assert all(row.label == row.origin.document % 3 for row in rows)
    assert all(row.weight == pytest.approx(sure) for row in rows)
    assert {name: value.tolist() for name, value in made.memory().items()} == {
        name: value.tolist() for name, value in memory.items()
    }
    twin = source(neighbours=0, confidence=0.34, refresh=10)
    twin.remember(memory)
    again = twin.draw(Layout(), 300, torch.Generator().manual_seed(0))
    assert [row.origin for row in again] == [row.origin for row in rows]
    assert len(dict(made.examples())) == count, "others may be kept later"


def test_a_model_that_is_sure_of_nothing_leaves_the_labels_as_they_are():
    made = source(confidence=0.34, refresh=10)
    count = len(made.texts)
    memory, said = made.refreshed(looking(torch.zeros(count, 3), torch.ones(count, 4)))
    assert torch.equal(memory["labels"], made.memory()["labels"])
    assert "the earlier ones stay" in said
