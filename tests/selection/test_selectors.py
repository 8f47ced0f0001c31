"""What selectors compute, against slow versions in float64, and how a discriminator learns."""

import attrs
import numpy as np
import pytest
import torch
from _selections import POOLS, write_pools
from aang_selectors.discriminator import epoch_batches, positive_weights, sigmoids, softmax
from aang_selectors.embedding import Embedding
from aang_selectors.gradient import Gradients
from aang_text.encoder.backbone import load

from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Hidden
from aang_core.data.task import load_task
from aang_core.errors import ConfigError
from aang_core.randomness import evaluating
from aang_core.registry.registry import load_registry
from aang_core.selection.pools import load_pools, target_pool
from aang_core.selection.protocols import SelectionContext, Window

READS = ("text", "text_pair", "tags")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("pools"))


def ground_of(root, name, dtype="float64", **options):
    """What a selector is called with: 8 rows a pool to train on."""
    registry = load_registry()
    target = load_task(str(root / "target"), reads=READS, registered={}, external={})
    pools = load_pools([str(root / pool) for pool in POOLS], READS, registry)
    settings = BackboneSettings(max_length=32, device="cpu", dtype=dtype)
    return SelectionContext(
        target=target,
        examples=target_pool(target, "target"),
        target_sample=range(8),
        pools=pools,
        samples=[range(8)] * len(pools),
        options={**registry.selectors[name].record.options, **options},
        seed=3,
        registry=registry,
        load=lambda: load("scratch:tiny", settings),
        batch_tokens=100,
    )


def alone(context, pool, number):
    """[H]: the mean over one row's positions, encoded by itself."""
    row = pool.rows(context.backbone, [number])
    with evaluating(context.backbone.body), torch.no_grad():
        return context.backbone.encode(plain_batch(row)).states.mean(0).numpy()


def test_embedding_is_the_mean_of_the_nearest_cosines(root):
    context = ground_of(root, "embedding", neighbours=3)
    selector = Embedding(context)
    selector.prepare()
    targets = [alone(context, context.examples, i) for i in range(8)]
    for pool in context.pools:
        found = selector.scores(Window(pool, [8, 11, 20])).tolist()
        for number, score in zip([8, 11, 20], found, strict=True):
            own = alone(context, pool, number)
            cosines = sorted(own @ t / np.linalg.norm(own) / np.linalg.norm(t) for t in targets)
            assert score == pytest.approx(np.mean(cosines[-3:]), abs=1e-12)


def slow_gradient(losses, loss, row):
    """The gradient of one row's own mean loss, by autograd, as the encoder's parameters see it."""
    model, batch = losses.model, losses.batch(loss, losses.piece(loss, [row]))
    hidden = model.backbone.encode(batch)
    leaf = hidden.states.detach().requires_grad_()
    value = model.heads.losses(Hidden(leaf, hidden.offsets), batch)[0]
    (upstream,) = torch.autograd.grad(value, leaf)
    body = model.body()
    found = torch.autograd.grad(hidden.states, list(body.values()), upstream, allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(body.items(), found, strict=True)
    }


def test_gradient_scores_are_each_examples_own_alignment(root):
    context = ground_of(root, "gradient", head_steps=3, norm_rows=4)
    selector = Gradients(context)
    selector.prepare()
    assert selector.losses.engine.kind == "fused"
    dev = selector.dev_gradient
    size = sum(float((v * v).sum()) for v in dev.values()) ** 0.5
    numbers = [9, 10, 21, 22]
    with selector.losses.evaluating():
        for pool in context.pools[:3]:
            found = selector.scores(Window(pool, numbers)).tolist()
            loss = pool.number + 1
            norms = [
                sum(float((g * g).sum()) for g in slow_gradient(selector.losses, loss, r).values())
                for r in pool.rows(context.backbone, range(4))
            ]
            scale = np.mean(norms) ** 0.5
            assert float(selector.norms[pool.number]) == pytest.approx(scale, rel=1e-9)
            for row, score in zip(pool.rows(context.backbone, numbers), found, strict=True):
                own = slow_gradient(selector.losses, loss, row)
                product = sum(float((own[n] * dev[n]).sum()) for n in dev)
                assert score == pytest.approx(product / size / scale, rel=1e-9, abs=1e-12)


def test_the_dev_gradient_is_that_of_the_mean_loss_over_dev(root):
    context = ground_of(root, "gradient", head_steps=3, norm_rows=4)
    selector = Gradients(context)
    selector.prepare()
    dev = attrs.evolve(context.examples, data=context.target.splits["dev"])
    with selector.losses.evaluating():
        each = [slow_gradient(selector.losses, 0, r) for r in dev.rows(context.backbone, range(10))]
    for name, value in selector.dev_gradient.items():
        torch.testing.assert_close(value, sum(g[name] for g in each) / 10, rtol=1e-9, atol=1e-12)


def test_texts_without_labels_are_scored_by_their_own_words(root):
    """A batch's masked words are drawn together, so one row of its own is what the slow version repeats."""
    context = ground_of(root, "gradient", head_steps=3, norm_rows=4)
    selector = Gradients(context)
    selector.prepare()
    lines, dev = context.pools[3], selector.dev_gradient
    size = sum(float((v * v).sum()) for v in dev.values()) ** 0.5
    (score,) = selector.scores(Window(lines, [12])).tolist()
    with selector.losses.evaluating():
        (row,) = lines.rows(context.backbone, [12])
        own = slow_gradient(selector.losses, 4, row)
    product = sum(float((own[n] * dev[n]).sum()) for n in dev)
    assert score == pytest.approx(product / size / float(selector.norms[3]), rel=1e-9)


def test_gradients_by_the_loop_are_the_same(root):
    context = ground_of(root, "gradient", head_steps=2, norm_rows=4)
    selector = Gradients(context)
    selector.prepare()
    window = Window(context.pools[1], [8, 9, 30])
    one_pass = selector.scores(window)
    selector.losses.engine.kind = "looped"
    torch.testing.assert_close(selector.scores(window), one_pass, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [sigmoids, softmax])
def test_a_discriminator_tells_the_target_from_other_texts(root, kind):
    context = ground_of(
        root, "discriminator-bce", dtype="float32", epochs=20, batch_rows=4, lr=3e-3, head_lr=1e-2
    )
    selector = kind(context)
    selector.prepare()
    near, pairs, _, lines = (
        selector.scores(Window(pool, range(8, 28))).mean().item() for pool in context.pools
    )
    assert near > 2 * pairs
    assert near > 2 * lines


def test_the_discriminators_loss_is_the_papers(root):
    """One batch in float64: the task's cross-entropy, plus a sigmoid a task whose positives weigh (N − N_t) / N_t."""
    context = ground_of(root, "discriminator-bce")
    selector = sigmoids(context)
    heads = selector.heads
    rows = context.pools[0].rows(context.backbone, [1, 2, 3])
    weights = torch.tensor([1.5, 2.0, 2.5, 3.0, 3.5], dtype=torch.float64)
    context.backbone.body.eval()
    with torch.no_grad():
        loss = float(selector._loss(1, rows, weights))
        states = np.stack([alone(context, context.pools[0], i) for i in (1, 2, 3)])
        logits = heads.discriminator(torch.tensor(states)).numpy()
        own = heads.tasks["1"](torch.tensor(states)).numpy()
    sigmoid = 1 / (1 + np.exp(-logits))
    terms = [
        -weights[t].item() * np.log(sigmoid[b, t]) if t == 1 else -np.log(1 - sigmoid[b, t])
        for b in range(3)
        for t in range(5)
    ]
    task = [-own[b, row.label] + np.log(np.exp(own[b]).sum()) for b, row in enumerate(rows)]
    assert loss == pytest.approx(np.mean(terms) + np.mean(task), rel=1e-9)


def test_positives_weigh_as_much_as_negatives():
    assert positive_weights([100, 300, 600]).tolist() == pytest.approx([9.0, 7 / 3, 2 / 3])


def test_an_epoch_has_every_row_once_and_one_task_a_batch():
    batches = epoch_batches([10, 7, 4], 4, seed=0, epoch=0)
    seen = sorted((task, row) for task, rows in batches for row in rows)
    assert seen == [(t, row) for t, size in enumerate([10, 7, 4]) for row in range(size)]
    assert all(1 <= len(rows) <= 4 for _, rows in batches)
    tasks = [task for task, _ in batches]
    assert tasks != sorted(tasks)
    assert batches == epoch_batches([10, 7, 4], 4, seed=0, epoch=0)
    assert batches != epoch_batches([10, 7, 4], 4, seed=0, epoch=1)


def test_options_that_cannot_be_are_refused(root):
    with pytest.raises(ConfigError, match="expected one of mean, first, found 'last'"):
        Embedding(ground_of(root, "embedding", pooling="last"))
    with pytest.raises(ConfigError, match="from 1 to 8"):
        Embedding(ground_of(root, "embedding", neighbours=9))
    with pytest.raises(ConfigError, match="transform/representation/output"):
        Gradients(ground_of(root, "gradient", objective="denoise"))
    empty = attrs.evolve(ground_of(root, "discriminator-bce"), samples=[[], [], [], []])
    with pytest.raises(ConfigError, match="none of near, pairs, numbers, lines"):
        sigmoids(empty)
