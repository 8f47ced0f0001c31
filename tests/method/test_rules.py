"""Every weighting rule: against a slow reading, and what must hold of all of them."""

import math
import statistics

import attrs
import pytest
import torch
from _plugins import ORIGIN
from _rules import IDS, RECORDS, Course, K, Look, random_looks, registry
from aang_weightings.bandit import exploration
from hypothesis import given
from hypothesis import strategies as st

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError, PluginError
from aang_core.method.weights.chosen import chosen_weighting
from aang_core.method.weights.rules import AlgorithmOne, RuleBinding, make_rule
from aang_core.method.weights.weighting import Factors, WeightState
from aang_core.registry.options import check_options
from aang_core.registry.records import STAGES, Weighting
from aang_core.registry.registry import Registered
from aang_core.train.checkpoint import weight_state, weight_tensors

RULES = sorted(RECORDS)
EARLY = {"confident": {"start": 0.0, "looks": 2}, "hindsight": {"steps": 2}}
"""Options with which a rule moves within a few steps."""
OFTEN = {"dev_gradient_every": 1}


def close(found, expected):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def softmax(logits):
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def shown(look):
    """(k, signal) of the objectives that a look observed."""
    pairs = zip(look.sampled, look.signals[1:], strict=True)
    return [(k, signal) for k, signal in pairs if signal is not None]


def faded(looks, forget):
    """Mean, standard error and effective number of looks, each look weighing `forget` of the one after it."""
    weights = [forget ** (len(looks) - 1 - i) for i in range(len(looks))]
    total, squares = sum(weights), sum(w * w for w in weights)
    mean = sum(w * x for w, x in zip(weights, looks, strict=True)) / total
    around = sum(w * (x - mean) ** 2 for w, x in zip(weights, looks, strict=True))
    count = total**2 / squares
    return mean, math.sqrt(around / (total - squares / total) / count), count


@pytest.mark.parametrize("forget", [1.0, 0.9])
def test_confident_moves_by_the_near_end_of_the_interval(forget):
    """Against sums over lists of all looks; two steps make a look here."""
    options = {"lr": 0.7, "errors": 1.3, "start": 0.2, "looks": 3, "forget": forget}
    meta = {"update_every": 2, "dev_gradient_every": 1, "dev_gradient_decay": 0.5}
    course = Course("confident", options=options, meta={**meta, "end_task_lr": 0.4})
    looks, seen = random_looks(40, hidden=(6,)), [[] for _ in range(K + 2)]
    logits, pair, window = [0.0] * K, [0.0, 0.0], [[] for _ in range(K + 2)]
    for i, look in enumerate(looks):
        weights = softmax(logits)
        course.step(look, elapsed=i / len(looks))
        for k, signal in shown(look):
            window[k].append(signal)
        if look.signals[0] is not None:
            window[K].append(look.signals[0])
        if there := shown(look):
            mass = sum(weights[k] for k, _ in there)
            window[K + 1].append(sum(weights[k] * signal for k, signal in there) / mass)
        if i % 2 == 0:
            continue
        for own, signals in zip(seen, window, strict=True):
            own += [statistics.fmean(signals)] if signals else []
        window = [[] for _ in range(K + 2)]
        if i / len(looks) < 0.2:
            continue
        sure = {}
        for k, own in enumerate(seen):
            if len(own) > 1:
                mean, error, count = faded(own, forget)
                if count >= 3:
                    far = max(abs(mean) - 1.3 * math.sqrt(3) * error, 0.0)
                    sure[k] = math.copysign(far, mean)
        known = [k for k in range(K) if k in sure]
        if known:
            before = sum(weights[k] for k in known)
            after = sum(weights[k] * math.exp(0.7 * sure[k]) for k in known)
            for k in known:
                logits[k] += 0.7 * sure[k] - math.log(after / before)
        if K in sure and K + 1 in sure:
            pair = [pair[0] + 0.4 * sure[K], pair[1] + 0.4 * sure[K + 1]]
    assert max(logits) - min(logits) > 0.1
    close(course.weights, softmax(logits))
    close(course.state.end_task, pair)


def test_confident_rests_before_its_start_and_where_the_interval_holds_nought():
    looks = [
        Look([0.1] + [0.3 * (-1) ** i * (k + 1) for k in range(K)], [*range(K)]) for i in range(30)
    ]
    early = Course("confident", options={"start": 0.5}, meta=OFTEN)
    sure = Look([0.1] + [0.1 * k for k in range(K)], [*range(K)])
    for i in range(15):
        early.step(sure, elapsed=i / 30)
    close(early.weights, [1 / K] * K)
    early.step(sure, elapsed=0.5)
    assert float(early.weights[-1]) > 1 / K
    close(
        Course("confident", options={"start": 0.0}, meta=OFTEN).through(looks).weights, [1 / K] * K
    )


@pytest.mark.parametrize(("by", "shares"), [("data", {"aux": 2.0}), ("data+output", {})])
def test_budget_moves_weight_within_groups_alone(by, shares):
    groups = {}
    for k, id_ in enumerate(IDS):
        parts = id_.split("/")
        name = parts[0].split(":")[0] + (f"+{parts[3]}" if by == "data+output" else "")
        groups.setdefault(name, []).append(k)
    total = sum(shares.get(name, 1.0) for name in groups)
    weights = [0.0] * K
    for name, members in groups.items():
        for k in members:
            weights[k] = shares.get(name, 1.0) / total / len(members)
    course = Course("budget", options={"by": by, "shares": shares}, meta={"factor_lr": 0.6})
    close(course.weights, weights)
    looks = random_looks(20, hidden=(2,))
    for look in looks:
        course.step(look)
        for members in groups.values():
            there = [(k, signal) for k, signal in shown(look) if k in members]
            if there:
                before = sum(weights[k] for k, _ in there)
                for k, signal in there:
                    weights[k] *= math.exp(0.6 * signal)
                after = sum(weights[k] for k, _ in there)
                for k, _ in there:
                    weights[k] *= before / after
        close(course.weights, weights)
    for name, members in groups.items():
        share = sum(float(course.weights[k]) for k in members)
        assert share == pytest.approx(shares.get(name, 1.0) / total, abs=1e-12)
    assert course.state.end_task.tolist() == [0.0, 0.0]


def test_budget_keeps_a_warm_start_within_its_groups():
    start = [0.1, 0.2, 0.1, 0.1, 0.1, 0.3, 0.1]
    course = Course("budget", start=start)
    close(course.weights, [1 / 12, 1 / 6, 1 / 12, 1 / 6, 1 / 6, 1 / 4, 1 / 12])


def test_bandit_is_exp3_with_flads_exploration():
    course = Course("bandit", start=[1, 2, 3, 4, 5, 6, 7])
    rewards, looks = [0.0] * K, random_looks(120)

    def epsilon(turn):
        return max(0.5 / K, min(1 / K, math.sqrt(math.log(K) / (K * turn))))

    for turn, look in enumerate(looks, 1):
        course.step(look)
        chances = dict(zip(look.sampled, look.chances, strict=True))
        for k, signal in shown(look):
            rewards[k] += signal / chances[k]
        prior = [math.log((k + 1) / 28) for k in range(K)]
        chosen = softmax([p + epsilon(turn) * r for p, r in zip(prior, rewards, strict=True)])
        floor = epsilon(turn + 1)
        close(course.weights, [(1 - K * floor) * w + floor for w in chosen])
        assert float(course.weights.min()) >= 0.5 / K - 1e-12
    assert float(course.weights.max()) > 1.5 / K


def test_exploration_falls_from_an_equal_share_to_half_of_it():
    assert [exploration(t, 24) for t in (1, 70, 10_000)] == pytest.approx(
        [1 / 24, 1 / 24, 0.5 / 24]
    )
    assert exploration(1, 1) == 0.5


def test_equal_keeps_weights_and_remembers_norms():
    course = Course("equal").through(random_looks(9))
    close(course.weights, [1 / K] * K)
    assert course.state.end_task_weight == 0.5
    assert bool((course.state.norms > 0).any())
    assert course.state.steps == 0


@pytest.mark.parametrize(
    ("name", "meta"),
    [
        ("aang", {}),
        ("tartan", {"factored": False}),
        ("exponentiated", {"logit_step": "exponentiated"}),
    ],
)
def test_the_named_forms_of_algorithm_1_are_those_that_the_settings_make(name, meta):
    looks, named = random_looks(12), Course(name, meta={"factor_lr": 0.4})
    config = RunConfig.from_mapping({"meta": {"alignment": "dot", "factor_lr": 0.4, **meta}})
    plain = Course("equal")
    binding = RuleBinding(options={}, config=config, factors=plain.factors, seed=0)
    plain.rule = AlgorithmOne(binding)
    assert torch.equal(named.through(looks).weights, plain.through(looks).weights)


@given(
    st.sampled_from(RULES),
    st.sampled_from(["none", "shuffled"]),
    st.integers(0, 2**31),
    st.integers(1, 12),
)
def test_weights_stay_on_the_simplex(name, control, seed, count):
    options = EARLY.get(name)
    course = Course(name, options=options, meta=OFTEN, control=control).through(
        random_looks(count, seed)
    )
    for state in course.states:
        weights = state.weights(course.factors)
        assert bool((weights > 0).all())
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
        assert 0 < state.end_task_weight < 1


@given(st.sampled_from(RULES), st.integers(0, 2**31))
def test_another_order_of_objectives_gives_the_same_weights_in_that_order(name, seed):
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed)).tolist()
    place = {k: i for i, k in enumerate(order)}
    looks = random_looks(8, seed)
    plain = Course(name, options=EARLY.get(name), meta=OFTEN).through(looks)
    moved = [attrs.evolve(look, sampled=[place[k] for k in look.sampled]) for look in looks]
    other = Course(name, [IDS[k] for k in order], EARLY.get(name), OFTEN).through(moved)
    torch.testing.assert_close(other.weights, plain.weights[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["confident", "budget", "exponentiated", "hindsight", "equal"])
def test_what_was_never_observed_keeps_its_share(name):
    course = Course(name, options=EARLY.get(name), meta=OFTEN)
    before = course.weights[4]
    after = course.through(random_looks(15, hidden=(4,))).weights
    assert float(after[4]) == pytest.approx(float(before), rel=1e-9)
    assert name == "equal" or float(after.max() - after.min()) > 0.05


@pytest.mark.parametrize("name", RULES)
def test_a_control_moves_every_weight_by_what_another_objective_earned(name):
    """The rule itself sees what it would see: with the same looks its own logits are those of the plain run."""
    looks = [attrs.evolve(look, signals=[None, *look.signals[1:]]) for look in random_looks(12)]
    plain = Course(name, options=EARLY.get(name), meta=OFTEN).through(looks)
    control = Course(name, options=EARLY.get(name), meta=OFTEN, control="shuffled").through(looks)
    taken = control.rule.taken_from.tolist()
    seen, at = [], 0
    for _ in range(K):  # one cycle through all of them
        seen.append(at)
        at = taken[at]
    assert sorted(seen) == list(range(K))
    first = plain.states[0].logits(plain.factors)
    moved = plain.state.logits(plain.factors) - first
    close(control.state.logits(control.factors), first + moved[taken])
    again = Course(name, control="shuffled", seed=1).rule.taken_from.tolist()
    assert again != taken


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("control", ["none", "shuffled"])
def test_a_state_comes_back_from_tensors_with_all_that_the_rule_remembers(name, control):
    looks = random_looks(9)
    course = Course(name, options=EARLY.get(name), meta=OFTEN, control=control).through(looks[:5])
    course.states[-1] = weight_state(weight_tensors(course.state, "weights"), "weights")
    whole = Course(name, options=EARLY.get(name), meta=OFTEN, control=control).through(looks[:5])
    for look in looks[5:]:
        course.step(look)
        whole.step(look)
    found, expected = (weight_tensors(c.state, "w") for c in (course, whole))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


class Spoilt:
    """Returns what it is told to."""

    answer = None

    def __init__(self, binding):
        self.binding = binding

    def next(self, state, alignment, plan, factors):
        return self.answer(state)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda state: None, "expected a WeightState, found NoneType"),
        (
            lambda state: attrs.evolve(state, objectives=state.objectives / 0),
            "expected finite logits",
        ),
        (
            lambda state: attrs.evolve(state, objectives=torch.zeros(3).double()),
            "expected logits of 7",
        ),
        (
            lambda state: attrs.evolve(state, memory={"n": 1}),
            r"a tensor in memory\['n'\], found int",
        ),
        (lambda state: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_rule_that_fails_is_named_with_its_plugin(answer, said, monkeypatch):
    monkeypatch.setattr(Spoilt, "answer", staticmethod(answer))
    course = Course("equal")
    record = Weighting(name="spoilt", summary="", factory="test_rules:Spoilt")
    entry = Registered(record=record, provenance=ORIGIN)
    course.rule = make_rule(course.config, entry, 0, course.factors)
    with pytest.raises(PluginError, match=f"'spoilt' of plugin 'synthetic'.* step 1.*{said}"):
        course.step(random_looks(1)[0])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("confident", {"looks": 1}, "looks must be at least 2"),
        ("confident", {"start": 1.0}, "start must be a share"),
        ("confident", {"forget": 0.0}, "forget must be above 0"),
        ("budget", {"by": "date"}, "by must be one or several of data"),
        ("budget", {"shares": {"task": 0}}, "shares.task must be a number above 0"),
        ("bandit", {"rate": 0.1}, "rate"),
        ("bandid", {}, "unknown weighting 'bandid'; did you mean 'bandit'"),
    ],
)
def test_options_that_a_rule_cannot_do_with_are_refused(name, options, said):
    config = RunConfig.from_mapping({"weightings": {name: options}})
    with pytest.raises(ConfigError, match=said):
        check_options(config, registry())


def test_a_share_for_no_group_is_refused_with_the_groups_that_there_are():
    with pytest.raises(
        ConfigError, match="'tsk'; the groups of this run are aux, in-domain, task; did"
    ):
        Course("budget", options={"shares": {"tsk": 2}})


def test_a_rule_that_nobody_brings_and_a_control_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="unknown weighting 'confidnt'; did you mean 'confident'"):
        chosen_weighting(RunConfig.from_mapping({"meta": {"rule": "confidnt"}}), registry())
    config = RunConfig.from_mapping({"method": "static", "meta": {"control": "shuffled"}})
    with pytest.raises(ConfigError, match="'static' learns no weights"):
        chosen_weighting(config, registry())
    assert chosen_weighting(RunConfig.from_mapping({}), registry()) is None


def test_algorithm_1_without_factors_is_tartan():
    looks, meta = random_looks(12), {"factor_lr": 0.4}
    alone = Course("aang", meta={**meta, "factored": False}).through(looks).weights
    assert torch.equal(alone, Course("tartan", meta=meta).through(looks).weights)
    assert not torch.equal(alone, Course("aang", meta=meta).through(looks).weights)


def test_by_default_weights_stay_equal_and_tartan_learns():
    for method, learns in (("aang", False), ("tartan", True)):
        course = Course("equal")
        course.rule = make_rule(RunConfig.from_mapping({"method": method}), None, 0, course.factors)
        weights = course.through(random_looks(6)).weights
        assert (float(weights.max() - weights.min()) > 1e-6) is learns


@pytest.mark.parametrize("rule", [{}, {"rule": "equal"}], ids=["by default", "by name"])
@pytest.mark.parametrize(
    "meta",
    [{"factor_lr": 0.5}, {"logit_step": "softmax", "end_task_lr": 0.0}, {"control": "shuffled"}],
)
def test_settings_of_learning_are_refused_where_weights_stay_equal(meta, rule):
    config = RunConfig.from_mapping({"meta": {**meta, **rule}})
    for name, value in meta.items():
        with pytest.raises(ConfigError, match=rf"meta\.{name} = {value}.*--rule aang"):
            chosen_weighting(config, registry())
    learning = RunConfig.from_mapping({"meta": {**meta, "rule": "aang"}})
    assert chosen_weighting(learning, registry()).record.name == "aang"
    alone = RunConfig.from_mapping({"method": "tartan", "meta": meta})
    assert chosen_weighting(alone, registry()) is None


def test_placed_leaves_the_stages_and_gives_the_logits():
    factors = Factors.of(IDS)
    state = WeightState.initial(factors)
    stages = {stage: torch.rand(len(factors.names[stage])).double() for stage in STAGES}
    state = attrs.evolve(state, stages=stages).placed(factors, torch.arange(K).double())
    close(state.logits(factors), list(range(K)))
    assert state.stages is stages
