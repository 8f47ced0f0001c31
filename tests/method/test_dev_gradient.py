"""The dev gradient, and that following it is the exact one-step meta-gradient."""

import torch
from _steps import make_step

from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin
from aang_core.config.settings import Meta
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.dev_gradient import DevGradient
from aang_core.method.gradient.engine import Engine
from aang_core.method.gradient.metagrad import dot, looped
from aang_core.testing import tiny_backbone, tiny_task

IDS = ("task/mask/bidirectional/denoise", "task/replace/left-to-right/next-token")


def source_of(meta, seed=0, dtype=torch.float64):
    step = make_step((3, 2, 2), ids=IDS, dtype=dtype)
    backbone, task = step.model.backbone, tiny_task()
    examples = list(task.splits["train"])
    rows = backbone.rows(examples, [Origin("train", i, 0) for i in range(len(examples))])
    end_task = EndTask(Binding(task=task, backbone=backbone, options={}))
    return DevGradient(step.model, end_task, rows[:12], rows[12:], meta, seed)


def test_the_examples_that_fit_the_head_are_others_than_those_of_the_gradient():
    for split in ("train", "dev"):
        source = source_of(Meta(dev_rows=5, dev_head_rows=5, dev_head_split=split))
        fit, measure = source._examples(step=3)
        own = {(row.origin.source, row.origin.document) for row in measure}
        other = {(row.origin.source, row.origin.document) for row in fit}
        assert len(own) == len(other) == 5
        assert not own & other


def test_it_depends_on_seed_and_step_alone():
    meta = Meta(dev_rows=4, dev_head_rows=4)
    first, again, later = (source_of(meta).at(step, None) for step in (2, 2, 3))
    first, again, later = ({n: v.to_dense() for n, v in g.items()} for g in (first, again, later))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], later[name]) for name in first)


def test_the_running_mean():
    source = source_of(Meta(dev_rows=4, dev_head_rows=4, dev_gradient_decay=0.75))
    fresh = source.at(1, None)
    first = source.at(2, None)
    mean = source.at(1, first)
    for name in fresh:
        expected = 0.75 * first[name].to_dense() + 0.25 * fresh[name].to_dense()
        torch.testing.assert_close(mean[name].to_dense(), expected)


def test_it_can_pass_through_the_end_tasks_own_head():
    """As it is, or fitted from there; the head itself stays as it was."""
    source = source_of(Meta(dev_rows=4, dev_head_rows=4, dev_head_steps=0))
    own = source.model.heads.head(0)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    head = source._fitted_head([])
    assert head is not own
    assert all(torch.equal(head.state_dict()[name], value) for name, value in before.items())
    fitted = source_of(Meta(dev_rows=4, dev_head_rows=4, dev_head_steps=2))
    fit, _ = fitted._examples(0)
    moved = fitted._fitted_head(fit).state_dict()
    assert any(not torch.equal(moved[name], value) for name, value in before.items())
    for name, value in own.state_dict().items():
        assert torch.equal(value, before[name])


def test_in_bf16_it_points_the_same_way():
    """With cached casts it would be zero: those of the fitting pass carry no gradient (see `engine._bf16`)."""
    meta = Meta(dev_rows=8, dev_head_rows=8, dev_head_steps=10)
    source = source_of(meta, dtype=torch.float32)
    exact = source.at(2, None)
    precision = torch.get_float32_matmul_precision()
    with Engine(source.model, "fused", 0, "bf16").autocast():
        rough = source.at(2, None)
    assert torch.get_float32_matmul_precision() == precision
    assert all(value.dtype == torch.float32 for value in rough.values())
    cosine = dot(exact, rough) / (dot(exact, exact) * dot(rough, rough)).sqrt()
    assert 0.97 < float(cosine) < 1


def test_the_dev_head_is_fitted():
    """Ten steps from the initial state bring the loss of the rows that fit it down; the encoder rests."""
    meta = Meta(dev_rows=4, dev_head_rows=12, dev_head_start="fresh", dev_head_steps=10)
    source = source_of(meta)
    from aang_core.batch.packing import pack, plain_batch

    fit, _ = source._examples(0)
    before = {n: p.clone() for n, p in source.model.backbone.body.named_parameters()}
    hidden = source.model.backbone.encode(plain_batch(fit))
    targets = source.end_task.targets(pack(fit))
    initial = source.end_task.losses(source.end_task.head(), hidden, targets).mean()
    fitted = source.end_task.losses(source._fitted_head(fit), hidden, targets).mean()
    assert float(fitted.detach()) < 0.99 * float(initial.detach())
    for name, parameter in source.model.backbone.body.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_the_alignment_is_the_meta_gradient_of_one_sgd_step():
    """θ'(w) = θ − η Σ w_k g_k, so ``d L_dev(θ'(w)) / d w_k = −η ⟨g_k, ∇L_dev(θ')⟩``: exact at θ', first order at θ.

    At θ, halving η must about halve the relative error.
    """
    errors = []
    for eta in (0.2, 0.1, 0.05):
        step = make_step(
            (3, 4, 4),
            [0.0, 0.6, 0.4],
            ids=IDS,
            denoise={"decoder": "untied"},
            next_token={"decoder": "untied"},
            backbone=tiny_backbone(torch.float64),
        )
        model, body = step.model, dict(step.model.backbone.body.named_parameters())
        start = {name: p.detach().clone() for name, p in body.items()}

        def dev_gradient(step=step, model=model, body=body):
            hidden = model.backbone.encode(step.batch.select([0]))
            loss = model.heads.losses(hidden, step.batch.select([0]))[0]
            grads = torch.autograd.grad(loss, list(body.values()), allow_unused=True)
            return float(loss.detach()), {
                n: torch.zeros_like(p) if g is None else g
                for (n, p), g in zip(body.items(), grads, strict=True)
            }

        _, at_start = dev_gradient()
        result = looped(model, step.batch, step.coefficients, at_start)
        step.gradients()
        gradients = []
        for k in (1, 2):
            only = torch.zeros(3, dtype=torch.float64)
            only[k] = 1.0
            looped(model, step.batch, only, at_start)
            found = step.gradients()
            gradients.append(
                {n: found.get(f"body.{n}", torch.zeros_like(p)) for n, p in body.items()}
            )

        def dev_loss_after(
            weights, body=body, start=start, gradients=gradients, eta=eta, run=dev_gradient
        ):
            with torch.no_grad():
                for name, parameter in body.items():
                    move = sum(w * g[name] for w, g in zip(weights, gradients, strict=True))
                    parameter.copy_(start[name] - eta * move)
            return run()

        _, after = dev_loss_after([0.6, 0.4])
        exact_at_next = [-eta * sum(float((g[n] * after[n]).sum()) for n in g) for g in gradients]
        small = 1e-5
        numeric = [
            (
                dev_loss_after([0.6 + small * (k == 0), 0.4 + small * (k == 1)])[0]
                - dev_loss_after([0.6 - small * (k == 0), 0.4 - small * (k == 1)])[0]
            )
            / (2 * small)
            for k in (0, 1)
        ]
        torch.testing.assert_close(
            torch.tensor(exact_at_next), torch.tensor(numeric), rtol=1e-5, atol=1e-9
        )
        first_order = [-eta * float(d) for d in result.alignment.dots[1:]]
        gaps = [abs(f - n) / abs(n) for f, n in zip(first_order, numeric, strict=True)]
        errors.append(max(gaps))
    assert errors[1] < 0.75 * errors[0]
    assert errors[2] < 0.75 * errors[1]
