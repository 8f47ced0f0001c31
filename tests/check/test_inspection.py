"""A walk tells what really happens: tokens, changes, targets, rules, and what the loss reads."""

import json
from pathlib import Path

import pytest
import torch

from aang_core.check.walk import pieces, walk
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError, TaskError
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone
from aang_core.train.resolve import bind_one

CATS = str(Path(__file__).resolve().parents[2] / "docs" / "examples" / "cats")
REGISTRY = load_registry()
CONFIG = RunConfig.from_mapping({"task": CATS, "model": "scratch:tiny"})


@pytest.fixture(scope="module")
def backbone():
    return bind_one(CONFIG, "bert", REGISTRY)[1]


@pytest.fixture(scope="module")
def seen(backbone):
    def of(objective, rows=1, seed=0, config=CONFIG):
        return walk(bind_one(config, objective, REGISTRY, backbone)[0], backbone, rows, seed)

    return of


def test_masked_language_modelling(seen):
    (row,) = seen("task/mask/left-to-right/denoise").rows
    changed = [i for i, each in enumerate(row.changed) if each]
    assert [i for i, each in enumerate(row.selected) if each] == changed
    assert all(row.shown[i] == "[MASK]" for i in changed)
    assert [target.reads for target in row.targets] == [(i,) for i in changed]
    assert [target.value for target in row.targets] == [row.before[i] for i in changed]
    assert not any(target.visible for target in row.targets)
    assert row.read == tuple(changed)
    assert torch.equal(row.allowed, torch.ones(len(row.shown), len(row.shown)).tril().bool())


def test_a_deleted_token_is_known_by_its_place(seen):
    (row,) = seen("task/delete/left-to-right/next-token", seed=2).rows
    assert row.removed
    assert row.came_from == tuple(i for i in range(len(row.before)) if i not in row.removed)
    assert row.shown == tuple(row.before[i] for i in row.came_from)
    assert [t.value for t in row.targets] == list(row.shown[1:-1])
    assert [t.about for t in row.targets] == [t.reads[0] + 1 for t in row.targets]


def test_noise_is_neither_a_change_nor_a_removal(seen):
    (row,) = seen("task/noise-embeddings/bidirectional/denoise").rows
    assert row.noisy == row.selected
    assert any(row.noisy)
    assert not any(row.changed)
    assert not row.removed


def test_a_dropped_embedding_is_neither_a_change_nor_a_removal(seen):
    (row,) = seen("task/cutoff/bidirectional/denoise").rows
    assert row.dropped == row.selected
    assert any(row.dropped)
    assert not any((*row.changed, *row.noisy, *row.removed))
    assert not any(target.visible for target in row.targets)


def test_what_the_loss_reads_is_more_than_the_targets_own_position(seen):
    (row,) = seen("task/span-mask/bidirectional/span-boundary", seed=1).rows
    borders = {i for target in row.targets for i in target.reads}
    assert set(row.read) == borders
    assert all(target.about not in target.reads for target in row.targets)


def test_answers_come_in_the_outputs_own_words(seen):
    (row,) = seen("task/no-op/bidirectional/end-task").rows
    assert row.answer in {"animal", "thing"}
    assert [target.value for target in row.targets] == [row.answer]
    assert row.read == (0,)
    (row,) = seen("task/no-op/bidirectional/token-labels").rows
    assert {target.value for target in row.targets} == {"noun", "verb", "other"}
    (row,) = seen("task/no-op/bidirectional/capitalization").rows
    assert row.targets[0].value == "capital first"


def test_two_texts_in_one_row_and_rows_in_groups(seen):
    walked = seen("in-domain/no-op/bidirectional/nsp")
    assert walked.layout == "pair of next"
    assert walked.rows[0].before.count("[SEP]") == 2
    walked = seen("task/no-op/bidirectional/contrastive")
    assert len(walked.rows) == 4
    assert walked.rows[0].before == walked.rows[1].before
    assert walked.rows[0].targets[0].rows == (0, 1)


def test_warnings_stand_beside_the_example(seen):
    assert [f.kind for f in seen("task/no-op/bidirectional/denoise").findings] == ["target-visible"]
    assert seen("task/mask/bidirectional/denoise").findings == ()


def test_the_same_seed_shows_the_same_and_another_one_another(seen):
    first = seen("task/bert-op/random-factorized/denoise", rows=2).as_mapping()
    assert first == seen("task/bert-op/random-factorized/denoise", rows=2).as_mapping()
    assert first != seen("task/bert-op/random-factorized/denoise", rows=2, seed=1).as_mapping()
    assert len(first["rows"]) == 2
    assert json.loads(json.dumps(first))["rows"][0]["allowed"] == first["rows"][0]["allowed"]


def test_an_encoder_without_words_shows_numbers():
    ids = {"input_ids": torch.tensor([3, 1, 4])}
    assert pieces(object(), ids) == ("3", "1", "4")
    assert pieces(object(), {"pixels": torch.zeros(2, 5)}) == ("#0", "#1")
    assert len(pieces(tiny_backbone(), ids)) == 3


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        ("task/mask/left-to-right/end-task", ConfigError, "is not legal: end-task needs"),
        ("task/mask/denoise", ConfigError, "an objective is data/transform/representation/output"),
        ("task/maks/bidirectional/denoise", ConfigError, "did you mean 'mask'"),
        ("gpt", ConfigError, "is the name of several objectives: out-of-domain/no-op"),
        ("generated/mask/bidirectional/denoise", TaskError, "expected a causal language model"),
    ],
)
def test_what_cannot_be_shown_says_why(objective, error, message, backbone):
    with pytest.raises(error, match=message):
        bind_one(CONFIG, objective, REGISTRY, backbone)


def test_the_literatures_names_are_understood(backbone):
    assert (
        bind_one(CONFIG, "spanbert", REGISTRY, backbone)[0].id
        == "task/span-mask/bidirectional/denoise"
    )
