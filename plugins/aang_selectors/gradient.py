"""``gradient``: how far a step on one example would lower the target's loss on dev, to first order.

V is the gradient of the target's mean dev loss, g_i the gradient of example i's own loss, both over the pretrained
encoder's parameters with heads fitted beforehand. The score is ``⟨g_i, V⟩ / (‖V‖ · s)``: the dot products come from one
forward and one backward pass over many examples at once (`Engine.aligned`), s is the root mean square of ‖g‖ over some
examples of the same pool, so that losses of different size can be ranked together. Examples of labelled tasks have that
task's loss; lines of a text file have the loss of the objective that the option names (masked language modelling).

After TracIn (Pruthi et al., NeurIPS 2020) and LESS (Xia et al., ICML 2024), which take Adam's step and several
checkpoints; here it is plain gradient descent at one. B rows of a batch, M targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from aang_core.batch.rows import Row
from aang_core.errors import ConfigError, ModelError
from aang_core.method.gradient.metagrad import dot
from aang_core.randomness import generator
from aang_core.registry.records import STAGES
from aang_core.selection.pools import Pool
from aang_core.selection.protocols import SelectionContext, Window
from aang_selectors.pool_losses import TARGET, PoolLosses, targets_of_rows


class Gradients:
    """Options: ``objective`` (transform/representation/output, of texts without labels), ``head_steps`` of
    ``head_rows`` examples at ``head_lr`` to fit each new head, ``dev_rows`` for V, ``norm_rows`` for s.

    :ivar dev_gradient: V by parameter. :ivar norms: [pools] s.
    :raises ConfigError: for options that cannot be.
    """

    def __init__(self, context: SelectionContext) -> None:
        self.context = context
        self._objective = context.options["objective"].split("/")
        known = context.registry.primitives
        stages = [known[name].stage if name in known else "" for name in self._objective]
        if stages != list(STAGES[1:]):
            raise ConfigError(
                "option objective: expected transform/representation/output, such as "
                f"'bert-op/bidirectional/denoise', found {context.options['objective']!r}"
            )
        if context.options["norm_rows"] < 1 or context.options["dev_rows"] < 1:
            raise ConfigError("options norm_rows and dev_rows must be at least 1")
        self.dev_gradient: dict[str, Tensor] = {}
        self.norms = torch.zeros(0)

    @cached_property
    def losses(self) -> PoolLosses:
        """Made when they are first asked for, since they load the encoder."""
        return PoolLosses(self.context, self._objective)

    def prepare(self) -> dict[str, Tensor]:
        """Fit the heads, take V, and the size of each pool's gradients."""
        with self.losses.evaluating():
            self._fit_heads()
            self.dev_gradient = self._dev_gradient()
            self._settle_engine()
            sizes = [self._norm(pool) for pool in self.context.pools]
        self.norms = torch.tensor(sizes, dtype=torch.float64)
        named = self.losses.model.heads.named_parameters()
        heads = {f"heads.{name}": p.detach() for name, p in named}
        dev = {f"dev.{name}": value for name, value in self.dev_gradient.items()}
        # heads may share the encoder's embeddings, which need no copy; a clone is contiguous and its own
        return {"norms": self.norms, **{n: v.clone() for n, v in {**heads, **dev}.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Heads, V and norms as they were."""
        model, device = self.losses.model, self.losses.engine.device
        with torch.no_grad():
            for name, parameter in model.heads.named_parameters():
                parameter.copy_(state[f"heads.{name}"])
        self.dev_gradient = {name: state[f"dev.{name}"].to(device) for name in model.body()}
        self.norms = state["norms"]
        with self.losses.evaluating():
            self._settle_engine()

    def scores(self, window: Window) -> Tensor:
        """[B] float64; −inf for a row in which the loss has no target."""
        context, number = self.context, window.pool.number
        rows = window.pool.rows(context.backbone, window.numbers)
        found = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
        dev_norm = dot(self.dev_gradient, self.dev_gradient).sqrt().double().cpu()
        with self.losses.evaluating():
            for batch in context.batches(rows):
                dots, counts = self._dots(number + 1, [rows[i] for i in batch])
                seen = counts > 0
                values = dots / (dev_norm * self.norms[number])
                found[torch.tensor(batch)[seen]] = values[seen]
        return found

    def _dots(self, loss: int, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """⟨g_i, V⟩ and the number of targets of each row, [B] each."""
        engine = self.losses.engine
        if engine.kind == "looped":
            each = [self._one(loss, row) for row in rows]
            dots, targets = zip(*each, strict=True)
            return torch.tensor(dots, dtype=torch.float64), torch.tensor(targets)
        piece = self.losses.piece(loss, rows)
        counts = targets_of_rows(piece)
        batch = self.losses.batch(loss, piece)
        result = engine.aligned(batch, torch.ones(1), self.dev_gradient, examples=True)
        self.losses.forget()
        if result.examples is None:
            raise ModelError("the engine gave no alignments of single examples")
        # A row's share is of the mean over all M targets; its own loss is the mean over its own.
        share = result.examples.double().cpu() * len(piece.targets)
        return share / counts.clamp(min=1), counts

    def _one(self, loss: int, row: Row) -> tuple[float, int]:
        """⟨g_i, V⟩ and the number of targets, from a pass of its own: where layers do not see one stream."""
        piece = self.losses.piece(loss, [row])
        batch = self.losses.batch(loss, piece)
        result = self.losses.engine.aligned(batch, torch.ones(1), self.dev_gradient)
        self.losses.forget()
        return float(result.alignment.dots[0]), len(piece.targets)

    def _norm(self, pool: Pool) -> float:
        """The root mean square of ‖g‖ over single examples.

        :raises ModelError: where every gradient vanishes.
        """
        context, loss = self.context, pool.number + 1
        sample = context.samples[pool.number] or range(len(pool))
        numbers = list(sample)[: context.options["norm_rows"]]
        squares = []
        for row in pool.rows(context.backbone, numbers):
            batch = self.losses.batch(loss, self.losses.piece(loss, [row]))
            result = self.losses.engine.aligned(batch, torch.ones(1), self.dev_gradient)
            self.losses.forget()
            if bool(result.alignment.observed[0]):
                squares.append(float(result.alignment.squared_norms[0]))
        if not sum(squares) > 0:
            raise ModelError(
                f"the gradients of {len(numbers)} examples of {pool.name} all vanish; raise --examples-per-task"
            )
        return float((sum(squares) / len(squares)) ** 0.5)

    def _fit_heads(self) -> None:
        """Adam on each head, the encoder as it is: a head that knows nothing sends gradients of noise."""
        context, options, model = self.context, self.context.options, self.losses.model
        pools = [context.examples, *context.pools]
        samples = [context.target_sample, *context.samples]
        body = {id(p) for p in model.backbone.body.parameters()}
        total = options["head_steps"] * len(pools)
        for k, (pool, sample) in enumerate(zip(pools, samples, strict=True)):
            own = [p for p in model.heads.head(k).parameters() if id(p) not in body]
            if not own or not sample:
                continue
            optimizer = torch.optim.AdamW(own, lr=options["head_lr"], fused=True)
            rows = pool.rows(context.backbone, sample)
            for step in range(options["head_steps"]):
                context.progress("fitting heads", k * options["head_steps"] + step, total)
                random = generator(context.seed, "selection-heads", k, step)
                order = torch.randperm(len(rows), generator=random)
                chosen = [rows[i] for i in order[: options["head_rows"]].tolist()]
                batch = self.losses.batch(k, self.losses.piece(k, chosen))
                torch.autograd.backward(self.losses.mean(batch, frozen_encoder=True), inputs=own)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        context.progress("fitting heads", total, total)

    def _dev_gradient(self) -> dict[str, Tensor]:
        """V: the gradient of the target's mean loss over at most ``dev_rows`` rows of dev."""
        context = self.context
        dev = attrs.evolve(context.examples, data=context.target.splits["dev"])
        order = torch.randperm(len(dev), generator=generator(context.seed, "selection-dev"))
        rows = dev.rows(context.backbone, sorted(order[: context.options["dev_rows"]].tolist()))
        body = self.losses.model.body()
        total = {name: torch.zeros_like(p) for name, p in body.items()}
        for chosen in context.batches(rows):
            piece = self.losses.piece(TARGET, [rows[i] for i in chosen])
            loss = self.losses.mean(self.losses.batch(TARGET, piece))
            share = len(chosen) / len(rows)
            grads = torch.autograd.grad(loss * share, list(body.values()), allow_unused=True)
            for name, gradient in zip(body, grads, strict=True):
                if gradient is not None:
                    total[name] += gradient
        return total

    def _settle_engine(self) -> None:
        """Compare the engines on a few rows; from then on the loop runs where one pass cannot."""
        pool, backbone = self.context.pools[0], self.context.backbone
        rows = pool.rows(backbone, range(min(4, len(pool))))
        batch = self.losses.batch(1, self.losses.piece(1, rows))
        reason = self.losses.engine.check(batch, torch.ones(1), self.dev_gradient)
        if reason or not backbone.packed:
            why = reason or f"{backbone.name} does not see rows as one stream"
            self.context.remark(f"gradients are taken one example at a time, which is slow: {why}")
