"""Pseudo-labels: the probe against scikit-learn, neighbours against all pairs, what is drawn and how much it weighs."""

from collections import Counter

import attrs
import pytest
import torch
from aang_text.data.pseudo import PseudoLabelled, confirmed, probed
from sklearn.linear_model import LogisticRegression

from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Layout
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError, TaskError
from aang_core.registry.options import check_options
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

OPTIONS = {"neighbours": 3, "agreement": 0.3, "confidence": 0.3}


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
    given = {"pseudo-labelled": {"agreement": 1.5, "neighbours": -1}, "agree": {"gate": "some"}}
    with pytest.raises(ConfigError, match=r"(?s)gate.*agreement|agreement.*gate"):
        check_options(RunConfig.from_mapping({"primitives": given}), load_registry())
