"""What makes an objective pointless is found by trying it, under whatever name it comes."""

import attrs
import pytest
import torch

from aang_core.batch.packing import BoundObjective, Piece, pack, prepare
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Targets
from aang_core.batch.stream import RowRule
from aang_core.check.sanity import (
    copied_positions,
    findings,
    findings_of,
    reachable,
    summary,
    visible_targets,
)
from aang_core.registry.options import settings_of
from aang_core.registry.records import load_factory
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_source, tiny_task

REGISTRY = load_registry()


@pytest.fixture(scope="module")
def bind():
    task, backbone = tiny_task(tags=True), tiny_backbone()
    source = tiny_source(task, backbone)

    def bound(objective: str, **options) -> BoundObjective:
        names = objective.split("/")[1:]
        made = [
            load_factory(record.factory)(
                Binding(
                    task=task,
                    backbone=backbone,
                    options=settings_of(record, options),
                    source=source,
                )
            )
            for record in map(REGISTRY.primitive, names)
        ]
        return BoundObjective(objective, source, *made)

    return bound


def kinds(objective):
    return [finding.kind for finding in findings(objective)]


REPRESENTATIONS = (
    "bidirectional",
    "left-to-right",
    "right-to-left",
    "random-factorized",
    "permuted",
)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_denoising_what_nobody_changed_shows_the_target_under_every_rule(bind, representation):
    assert kinds(bind(f"task/no-op/{representation}/denoise")) == ["target-visible"]


@pytest.mark.parametrize(
    "transform", ["mask", "replace", "bert-op", "span-mask", "noise-embeddings"]
)
def test_denoising_what_was_covered_does_not(bind, transform):
    assert kinds(bind(f"task/{transform}/bidirectional/denoise")) == []


@pytest.mark.parametrize("representation", ["left-to-right", "right-to-left", "permuted"])
@pytest.mark.parametrize("transform", ["no-op", "delete"])
def test_a_true_language_model_sees_no_target(bind, representation, transform):
    assert kinds(bind(f"task/{transform}/{representation}/next-token")) == []


def test_span_borders_see_an_unmasked_span_through_either_side(bind):
    for representation in ("bidirectional", "left-to-right", "right-to-left"):
        assert "target-visible" in kinds(bind(f"task/no-op/{representation}/span-boundary"))
    assert kinds(bind("task/span-mask/bidirectional/span-boundary")) == []


def test_targets_that_the_teacher_fills_in_are_no_constant(bind):
    """They are uniform until they are taught; the same targets without a teacher are pointless."""
    objective = bind("task/mask/bidirectional/agree")
    assert kinds(objective) == []
    objective.output.asks_teacher = False
    assert kinds(objective) == ["constant-target"]


def test_a_question_with_one_answer_is_constant(bind):
    (finding,) = findings(bind("task/no-op/bidirectional/real-synthetic"))
    assert finding.kind == "constant-target"
    assert finding.text.endswith("targets are 0")
    assert kinds(bind("task/replace/bidirectional/real-synthetic")) == []


class NextOverBidirectional:
    """A stranger's mistake: the next token, though every position sees the whole row."""

    def __init__(self, inner):
        self.layout, self.min_rows, self.row_multiple = inner.layout, 1, 1
        self.pointwise, self.inner = True, inner

    def targets(self, packed):
        return self.inner.targets(attrs.evolve(packed, tag="causal"))


def test_a_strangers_output_is_judged_by_what_it_does(bind):
    objective = bind("task/no-op/left-to-right/next-token")
    full = bind("task/no-op/bidirectional/denoise").representation
    wrong = attrs.evolve(
        objective, representation=full, output=NextOverBidirectional(objective.output)
    )
    assert kinds(wrong) == ["target-visible"]


class Alone:
    tag = "matrix"

    def allowed(self, length, generator):
        return torch.eye(length, dtype=torch.bool)


def test_rows_that_attend_to_nothing_are_told(bind):
    objective = attrs.evolve(bind("task/mask/bidirectional/denoise"), representation=Alone())
    assert kinds(objective) == ["isolated-rows"]
    never = bind("task/mask/random-factorized/denoise", **{"random-factorized": {"keep": 0.0}})
    assert kinds(never) == ["isolated-rows"]


class NoTargets(NextOverBidirectional):
    def targets(self, packed):
        return Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))


class Empty:
    provides = frozenset()

    def __len__(self):
        return 0


def test_nothing_to_predict_and_nothing_to_draw(bind):
    objective = bind("task/mask/bidirectional/denoise")
    assert kinds(attrs.evolve(objective, output=NoTargets(objective.output))) == ["no-target"]
    assert kinds(attrs.evolve(objective, source=Empty())) == ["no-rows"]


def test_copies_are_traced_to_their_positions(bind):
    for name in ("task/mask/bidirectional/denoise", "task/no-op/permuted/next-token"):
        objective = bind(name)
        piece = prepare(objective, 16, torch.Generator().manual_seed(0))
        place = copied_positions(objective.output, piece.packed)
        assert (place >= 0).all()
        assert torch.equal(piece.packed.original["input_ids"][place], piece.targets.value)
        if "denoise" in name:
            assert torch.equal(place, piece.targets.index)
        else:
            there = piece.packed.positions[place] - piece.packed.positions[piece.targets.index]
            assert torch.equal(there, piece.targets.extra["offset"])


@pytest.mark.parametrize(
    "output", ["tf", "capitalization", "real-synthetic", "end-task", "token-labels"]
)
def test_what_is_no_copy_is_traced_to_nothing(bind, output):
    objective = bind(f"task/replace/bidirectional/{output}")
    packed = prepare(objective, 16, torch.Generator().manual_seed(0)).packed
    assert (copied_positions(objective.output, packed) == -1).all()


def test_visibility_equals_a_loop_over_targets(bind):
    """The obvious way: walk from each reading state over the rule, and look for the target's own position."""
    for name in ("task/bert-op/permuted/denoise", "task/bert-op/left-to-right/span-boundary"):
        objective = bind(name)
        piece = prepare(objective, 24, torch.Generator().manual_seed(1))
        packed, targets = piece.packed, piece.targets
        copied = copied_positions(objective.output, packed)
        expected = []
        for m in range(len(targets)):
            place = int(copied[m])
            row = int(packed.row_of[place])
            start = int(packed.offsets[row])
            seen = _walked(piece.rules[row], int(packed.lengths[row]), targets, m, start)
            unchanged = packed.inputs["input_ids"][place] == targets.value[m]
            expected.append(bool(unchanged) and place - start in seen)
        assert visible_targets(objective.output, piece).tolist() == expected
        assert any(expected)
        assert not all(expected)


def _walked(rule, length, targets, m, start):
    allowed = rule.matrix(length)
    todo = [int(i) - start for i in targets.index[m].reshape(-1)]
    seen = set()
    while todo:
        position = todo.pop()
        if position not in seen:
            seen.add(position)
            todo += allowed[position].nonzero().flatten().tolist()
    return seen


def test_layers_reach_further_than_one_step():
    chain = torch.eye(5, dtype=torch.bool) | torch.diag(torch.ones(4, dtype=torch.bool), -1)
    reach = reachable(RowRule("matrix", chain), 5)
    assert torch.equal(reach, torch.ones(5, 5, dtype=torch.bool).tril())


def test_noise_hides_what_it_covers(bind):
    objective = bind("task/noise-embeddings/bidirectional/denoise")
    piece = prepare(objective, 8, torch.Generator().manual_seed(0))
    assert not visible_targets(objective.output, piece).any()
    bare = Piece(attrs.evolve(piece.packed, noise=None), piece.rules, piece.targets)
    assert visible_targets(objective.output, bare).all()


def test_the_test_of_one_objective_changes_no_other_draw(bind):
    objective = bind("task/bert-op/random-factorized/denoise")
    state = torch.random.get_rng_state()
    assert findings(objective, seed=3) == findings(objective, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_line_counts_and_names(bind):
    ids = [f"task/no-op/{each}/denoise" for each in REPRESENTATIONS]
    found = findings_of([bind(each) for each in (*ids, "task/mask/bidirectional/denoise")])
    line = summary(found)
    assert line.startswith(
        f"5 of 6 objectives show their target: {ids[0]}, {ids[1]}, {ids[2]} and 2 more"
    )
    assert "\n" not in line
    assert summary({}) == ""
    assert summary({"a": ()}) == ""


def test_marks_of_the_source_do_not_matter(bind):
    """Rows without any mark are tried like others."""
    objective = bind("task/no-op/bidirectional/denoise")
    rows = [attrs.evolve(row, marks={}) for row in objective.source.rows()]
    packed = objective.transform.apply(pack(rows), torch.Generator().manual_seed(0))
    assert (copied_positions(objective.output, packed) >= 0).all()
