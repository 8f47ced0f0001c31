"""Legality: counts from outside the code, exact reasons, and an obviously correct slow version."""

from __future__ import annotations

import attrs
import pytest
from _plugins import data, output, registry_of, representation, transform
from hypothesis import given
from hypothesis import strategies as st

from aang_core.errors import ConfigError, TaskError
from aang_core.registry.legality import (
    Illegal,
    Legal,
    Objective,
    enumerate_objectives,
    judge,
    legal_objectives,
    objective_rows,
)
from aang_core.registry.records import STAGES, Block, NamedObjective, Space
from aang_core.registry.registry import load_registry
from aang_core.registry.spaces import resolve_space

TRANSFORMS = ("bert-op", "mask", "replace", "no-op")
REPRESENTATIONS = ("bidirectional", "left-to-right", "right-to-left", "random-factorized")
WHOLE = {"representation:whole-sequence"}
# the paper's primitives, declared here anew: the counts must follow from the rules alone
PAPER = registry_of(
    data("task", provides={"data:labels", "data:end-task"}),
    data("in-domain", may_provide={"data:document-order"}),
    *(transform(name) for name in (*TRANSFORMS, "extra")),
    transform("delete", drops={"transform:selection", "transform:aligned"}),
    representation("bidirectional", provides=WHOLE),
    representation("random-factorized", provides=WHOLE),
    representation("left-to-right", provides={"representation:order"}),
    representation("right-to-left", provides={"representation:order"}),
    output("denoise", requires={"transform:selection", "transform:aligned"}),
    output("end-task", requires={"data:end-task"} | WHOLE),
    output("nsp", requires={"data:document-order"}),
    output("contrastive", requires={"backbone:dropout"}),
    output("unordered", conflicts={"data:document-order", "representation:order"}),
    NamedObjective(name="bert", objective="task/bert-op/bidirectional/denoise"),
)


def _space(data=("task",), transforms=TRANSFORMS, outputs=("denoise", "end-task"), **more):
    block = Block(data=data, transform=transforms, representation=REPRESENTATIONS, output=outputs)
    return Space(name="s", summary="", blocks=[block], **more)


def _counts(space, registry=PAPER, **settled):
    verdicts = enumerate_objectives(space, registry, **settled)
    return sum(isinstance(v, Legal) for v in verdicts), len(verdicts)


def test_the_paper_counts_follow_from_the_rules():
    assert _counts(_space()) == (24, 32)
    assert _counts(_space(("task", "in-domain"))) == (40, 64)
    assert _counts(_space(transforms=(*TRANSFORMS, "extra"))) == (30, 40)
    assert _counts(_space(("task", "in-domain"), (*TRANSFORMS, "extra"))) == (50, 80)


@pytest.mark.parametrize(
    ("name", "legal", "total"), [("td", 24, 32), ("td+ed", 40, 64), ("x+y+z", 3, 3)]
)
def test_the_built_in_spaces_have_the_paper_counts(name, legal, total):
    registry = load_registry()
    assert _counts(resolve_space(name, registry), registry) == (legal, total)


def test_every_built_in_space_has_only_what_its_names_promise():
    registry = load_registry()
    for name in registry.spaces:
        legal, total = _counts(resolve_space(name, registry), registry)
        assert legal == total or name in {"td", "td+ed", "full", "vision-td", "vision-td+ed"}, name
        assert legal > 0, name


def _reason(identifier, **settled):
    verdict = judge(Objective.parse(identifier, PAPER), PAPER, **settled)
    assert isinstance(verdict, Illegal)
    return verdict.reason


def test_reasons_say_who_needs_what_and_who_lacks_it():
    assert _reason("task/mask/left-to-right/end-task") == (
        "end-task needs representation:whole-sequence; left-to-right does not provide it"
    )
    assert _reason("in-domain/mask/right-to-left/end-task") == (
        "end-task needs data:end-task; in-domain does not provide it. "
        "end-task needs representation:whole-sequence; right-to-left does not provide it"
    )
    assert _reason("task/delete/bidirectional/denoise") == (
        "denoise needs transform:aligned; delete does not provide it. "
        "denoise needs transform:selection; delete does not provide it"
    )
    assert _reason("task/mask/left-to-right/unordered") == (
        "unordered conflicts with representation:order; left-to-right provides it"
    )
    assert _reason("task/mask/bidirectional/contrastive", backbone_capabilities=frozenset()) == (
        "contrastive needs backbone:dropout; the encoder does not provide it"
    )


def test_what_depends_on_the_data_is_needed_until_it_is_settled():
    order = "data:document-order"
    nsp = Objective.parse("in-domain/mask/bidirectional/nsp", PAPER)
    assert judge(nsp, PAPER) == Legal(nsp, (order,))
    assert judge(nsp, PAPER, settled=frozenset({order})) == Legal(nsp)
    assert isinstance(judge(nsp, PAPER, settled=frozenset()), Illegal)
    other = Objective.parse("in-domain/mask/bidirectional/unordered", PAPER)
    assert judge(other, PAPER) == Legal(other, (f"without {order}",))
    assert isinstance(judge(other, PAPER, settled=frozenset({order})), Illegal)


def test_an_encoder_that_is_not_known_counts_as_able():
    contrastive = Objective.parse("task/mask/bidirectional/contrastive", PAPER)
    assert judge(contrastive, PAPER) == Legal(contrastive)


def test_a_missing_source_is_an_error_unless_it_is_optional():
    missing = {"in-domain": "no corpus; give --external in-domain=FILE"}
    with pytest.raises(TaskError, match=r"needs the data source 'in-domain'\. no corpus"):
        enumerate_objectives(_space(("task", "in-domain")), PAPER, unavailable=missing)
    optional = _space(("task", "in-domain"), optional={"in-domain"})
    verdicts = enumerate_objectives(optional, PAPER, unavailable=missing)
    assert sum(isinstance(v, Legal) for v in verdicts) == 24
    reasons = {v.reason for v in verdicts if v.objective.data == "in-domain"}
    assert reasons == set(missing.values())


def test_an_objective_in_two_blocks_counts_once_and_keeps_its_place():
    space = _space()
    again = attrs.evolve(space, blocks=(*space.blocks, *space.blocks))
    assert enumerate_objectives(again, PAPER) == enumerate_objectives(space, PAPER)


def test_a_space_without_legal_objectives_says_why():
    space = _space(("in-domain",), outputs=("end-task",))
    with pytest.raises(ConfigError) as error:
        legal_objectives(enumerate_objectives(space, PAPER), space)
    assert "space 's' has no legal objective among its 16" in str(error.value)
    assert "8 × end-task needs data:end-task; in-domain does not provide it\n" in str(error.value)


def test_rows_hold_what_the_command_promises():
    (row,) = objective_rows(
        [judge(Objective.parse("task/bert-op/bidirectional/denoise", PAPER), PAPER)], PAPER
    )
    assert row == {
        "id": "task/bert-op/bidirectional/denoise",
        "data": "task",
        "transform": "bert-op",
        "representation": "bidirectional",
        "output": "denoise",
        "legal": True,
        "reason": "",
        "needs": [],
        "named": ["bert"],
    }


@pytest.mark.parametrize("text", ["", "task", "a/b/c/d/e"])
def test_an_id_has_four_parts(text):
    with pytest.raises(ConfigError, match="an objective is data/transform/representation/output"):
        Objective.parse(text, PAPER)


def test_an_id_with_unknown_parts_names_them_all():
    with pytest.raises(ConfigError) as error:
        Objective.parse("tusk/mask/denoise/nsp", PAPER)
    assert "unknown primitive 'tusk'; did you mean 'task'?" in str(error.value)
    assert "unknown primitive 'denoise'" in str(error.value)


# capabilities that anything may provide, require or conflict with
_CAPABILITIES = st.frozensets(
    st.sampled_from([f"{stage}:{x}" for stage in (*STAGES, "backbone") for x in "uv"]), max_size=2
)
_MAKERS = dict(zip(STAGES, (data, transform, representation, output), strict=True))


@st.composite
def _worlds(draw):
    """A registry of up to three primitives a stage, a space over it, and what has been settled."""
    records, names = [], {}
    for stage, make in _MAKERS.items():
        names[stage] = [f"{stage}-{i}" for i in range(draw(st.integers(1, 3)))]
        for name in names[stage]:
            keys = ["provides", "requires", "conflicts"] + ["may_provide"] * (stage == "data")
            records.append(make(name, **{key: draw(_CAPABILITIES) for key in keys}))
    choose = {
        stage: st.lists(st.sampled_from(options), min_size=1, unique=True)
        for stage, options in names.items()
    }
    blocks = draw(st.lists(st.builds(Block, **choose), min_size=1, max_size=3))
    provided = draw(st.none() | st.dictionaries(st.sampled_from(names["data"]), _CAPABILITIES))
    backbone = draw(st.none() | _CAPABILITIES)
    return registry_of(*records), Space(name="s", summary="", blocks=blocks), provided, backbone


def _by_loops(registry, space, provided, backbone):
    """id → legal, by nested loops and the definition."""
    found = {}
    for block in space.blocks:
        for d in block.data:
            for t in block.transform:
                for r in block.representation:
                    for o in block.output:
                        chosen = [registry.primitives[name].record for name in (d, t, r, o)]
                        has = set(backbone or ())
                        for record in chosen:
                            has |= record.capabilities
                        settled = provided is not None and d in provided
                        has |= provided[d] if settled else set()
                        maybe = set() if settled else set(chosen[0].may_provide)
                        legal = True
                        for record in chosen:
                            for need in record.requires:
                                assumed = backbone is None and need.startswith("backbone:")
                                legal &= need in has or need in maybe or assumed
                            legal &= not record.conflicts & has
                        found[f"{d}/{t}/{r}/{o}"] = legal
    return found


@given(_worlds())
def test_enumeration_agrees_with_nested_loops(world):
    registry, space, provided, backbone = world
    verdicts = enumerate_objectives(
        space, registry, provided=provided, backbone_capabilities=backbone
    )
    found = {v.objective.id: isinstance(v, Legal) for v in verdicts}
    assert len(found) == len(verdicts), "ids are unique"
    assert found == _by_loops(registry, space, provided, backbone)
    assert list(found) == list(_by_loops(registry, space, provided, backbone)), "in listed order"
    assert all(v.reason for v in verdicts if isinstance(v, Illegal))


@given(_worlds())
def test_settling_what_is_needed_makes_an_objective_plainly_legal(world):
    registry, space, _, backbone = world
    for verdict in enumerate_objectives(space, registry, backbone_capabilities=backbone):
        if isinstance(verdict, Legal):
            needed = {need for need in verdict.needs if not need.startswith("without ")}
            again = judge(
                verdict.objective,
                registry,
                settled=frozenset(needed),
                backbone_capabilities=backbone,
            )
            if not any(f"without {need}" in verdict.needs for need in needed):
                assert again == Legal(verdict.objective)
