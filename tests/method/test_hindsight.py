"""The rule `hindsight`: its direction and its weights against slow versions in float64, and what it refuses."""

import math

import pytest
import torch
from _rules import Course, K, random_looks
from _steps import make_step
from aang_weightings.hindsight import PastMove

from aang_core.batch.packing import pack, plain_batch
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin
from aang_core.config.settings import Meta
from aang_core.errors import ConfigError
from aang_core.method.cross_fitting import Folds
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.dev_gradient import DevGradient
from aang_core.method.gradient.metagrad import fused
from aang_core.testing import tiny_task

IDS = ("task/mask/bidirectional/denoise", "task/replace/left-to-right/next-token")
H = 3


def made(folds=None, **meta):
    """A step, and the dev gradient of its model."""
    untied = {"decoder": "untied"}  # so that all of a gradient flows through the states
    step = make_step((3, 2, 2), [0.5, 0.3, 0.2], IDS, denoise=untied, next_token=untied)
    backbone, task = step.model.backbone, tiny_task()
    examples = list(task.splits["train"])
    rows = backbone.rows(examples, [Origin("train", i, 0) for i in range(len(examples))])
    end_task = EndTask(Binding(task=task, backbone=backbone, options={}))
    settings = Meta(dev_rows=5, **meta)
    if folds:
        folds = Folds(rows, folds, settings.dev_gradient_every, 0)
    dev = DevGradient(step.model, end_task, rows[:12], rows[12:], settings, 0, folds)
    return step, dev


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def put(body, vector):
    """Set the body to a flat vector, in place."""
    with torch.no_grad():
        for parameter in body.values():
            values, vector = vector[: parameter.numel()], vector[parameter.numel() :]
            parameter.copy_(values.view_as(parameter))


def dev_loss(step, dev, vector, rows):
    """L at a flat vector of the body, by the end-task's head as it is."""
    body = step.model.body()
    own = flat(body.values()).clone()
    put(body, vector)
    hidden = step.model.backbone.encode(plain_batch(rows))
    losses = dev.end_task.losses(step.model.heads.head(0), hidden, dev.end_task.targets(pack(rows)))
    put(body, own)
    return losses.mean().detach()


def own_gradients(step):
    """Each loss's flat gradient of the body by autograd, one after another."""
    body = step.model.body()
    for k in range(len(step.batch.segments)):
        losses = step.model.heads.losses(step.model.backbone.encode(step.batch), step.batch)
        grads = torch.autograd.grad(losses[k], list(body.values()), allow_unused=True)
        pairs = zip(body.values(), grads, strict=True)
        yield flat([torch.zeros_like(p) if g is None else g for p, g in pairs])


@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_gradients_are_aligned_with_what_the_last_stretch_did_to_the_dev_loss(decay):
    """Over four stretches in which the body takes any steps: ``⟨g_k, V⟩``, V by hand from whole flat vectors."""
    step, dev = made(dev_gradient_decay=decay)
    body, direction, draw = step.model.body(), PastMove(dev, H), torch.Generator().manual_seed(1)
    way, found, expected, signs = [flat(body.values()).clone()], None, None, set()
    for t in range(4 * H + 1):
        found = direction.at(t, found)
        if t < H:
            assert found is None
        elif t % H == 0:
            _, rows = dev._examples(t - H)
            move = way[t] - way[t - H]
            change = dev_loss(step, dev, way[t], rows) - dev_loss(step, dev, way[t - H], rows)
            signs.add(bool(change > 0))
            fresh = move * change / (move @ move)
            expected = fresh if expected is None else decay * expected + (1 - decay) * fresh
            torch.testing.assert_close(move @ fresh, change)  # what the mean gradient would give
        if t >= H:
            torch.testing.assert_close(flat(found.values()), expected, rtol=1e-9, atol=1e-13)
            aligned = fused(step.model, step.batch, step.coefficients, found).alignment
            step.gradients()
            dots = torch.stack([gradient @ expected for gradient in own_gradients(step)])
            torch.testing.assert_close(aligned.dots, dots, rtol=1e-8, atol=1e-13)
        moved = way[t] + 0.02 * torch.randn(len(way[t]), generator=draw, dtype=torch.float64)
        put(body, moved)
        way.append(moved)
        with torch.no_grad():  # the head trains as well, which must not enter
            for parameter in step.model.heads.head(0).parameters():
                parameter.add_(0.05)
    assert signs == {True, False}  # both ways


def test_the_body_is_as_it_was_and_a_rest_gives_no_direction():
    step, dev = made()
    body = step.model.body()
    before = flat(body.values()).clone()
    direction = PastMove(dev, 1)
    assert direction.at(0, None) is None
    assert direction.at(1, None) is None  # nothing has moved: the steps were skipped
    put(body, before + 0.01)
    assert direction.at(2, None) is not None
    assert torch.equal(flat(body.values()), before + 0.01)
    assert all(value.is_contiguous() for value in direction.memory.values())


def test_folds_must_be_held_for_whole_stretches():
    _, dev = made(folds=3, dev_gradient_every=6)
    assert PastMove(dev, 3).every == 3
    with pytest.raises(
        ConfigError, match=r"weightings.hindsight.steps = 4 .* meta.dev_gradient_every = 6"
    ):
        PastMove(dev, 4)


def test_weights_move_by_the_mean_of_each_stretch():
    """Against plain lists: exponentiated steps that keep the sum of what was observed, and λ by the same means."""
    meta = {"factor_lr": 0.7, "end_task_lr": 0.3}
    course = Course("hindsight", options={"steps": H}, meta=meta)
    looks, logits, pair = random_looks(4 * H, seed=2), [0.0] * K, [0.0, 0.0]
    for start in range(0, len(looks), H):
        signals, sums = [[] for _ in range(K)], [[], []]
        weights = course.weights.tolist()
        for look in looks[start : start + H]:
            own = course.state.weights(course.factors, torch.tensor(look.sampled)).tolist()
            shown = [
                (k, w, s)
                for k, w, s in zip(look.sampled, own, look.signals[1:], strict=True)
                if s is not None
            ]
            for k, _, signal in shown:
                signals[k].append(signal)
            if look.signals[0] is not None:
                sums[0].append(look.signals[0])
            if total := sum(w for _, w, _ in shown):
                sums[1].append(sum(w * s for _, w, s in shown) / total)
            course.step(look)
        seen = [k for k in range(K) if signals[k]]
        step = {k: 0.7 * sum(signals[k]) / len(signals[k]) for k in seen}
        share = sum(weights[k] for k in seen)
        kept = math.log(sum(weights[k] * math.exp(step[k]) for k in seen) / share)
        logits = [logits[k] + (step[k] - kept if k in step else 0.0) for k in range(K)]
        pair = [p + 0.3 * (sum(s) / len(s) if s else 0.0) for p, s in zip(pair, sums, strict=True)]
        close = {"rtol": 1e-10, "atol": 1e-12}
        expected = torch.tensor(logits, dtype=torch.float64)
        torch.testing.assert_close(course.state.logits(course.factors), expected, **close)
        torch.testing.assert_close(
            course.state.end_task, torch.tensor(pair, dtype=torch.float64), **close
        )


def test_a_stretch_of_no_step_is_refused():
    from aang_weightings.hindsight import check

    assert list(check({"steps": 0})) == ["steps must be at least 1 (got 0)"]
