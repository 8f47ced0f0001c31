"""``gradient``: how far a step on one example would lower the target's loss on dev, to first order.

V is the gradient of the target's mean dev loss, g_i the gradient of example i's own loss, both over the pretrained
encoder's parameters with heads fitted beforehand. The score is ``⟨g_i, V⟩ / (‖V‖ · s)``: the dot products come from one
forward and one backward pass over many examples at once (`Engine.aligned`), s is the root mean square of ‖g‖ over some
examples of the same pool, so that losses of different size can be ranked together. Examples of labelled tasks have that
task's loss; lines of a text file have the loss of the objective that the option names (masked language modelling).

After TracIn (Pruthi et al., NeurIPS 2020) and LESS (Xia et al., ICML 2024), which take Adam's step and several
checkpoints; here it is plain gradient descent at one. B rows of a batch, M targets, P parameters, K pools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from aang_core.batching import Piece, fuse, pack, row_rules
from aang_core.dev_gradient import evaluating
from aang_core.end_task import EndTask
from aang_core.engine import Engine
from aang_core.errors import ConfigError, ModelError
from aang_core.heads import Heads
from aang_core.metagrad import Model, dot
from aang_core.primitives import STAGES, load_factory
from aang_core.protocols import Binding, BoundOutput, BoundRepresentation, BoundTransform
from aang_core.randomness import generator, seeded
from aang_core.rows import Row
from aang_core.selection.pools import Pool, target_pool
from aang_core.selection.selectors import SelectionGround, Window
from aang_core.stream import FULL
from aang_core.task import Task

_TARGET = 0  # the target's loss; that of pool k is k + 1


@attrs.frozen(eq=False)
class Loss:
    """What one pool's examples are asked; `transform` and `representation` only for texts without labels."""

    output: BoundOutput
    transform: BoundTransform | None = None
    representation: BoundRepresentation | None = None


class PoolHeads(Heads):
    """A head for the target and for each pool.

    :param makers: what messages call each of them.
    """

    def __init__(self, outputs: Sequence[BoundOutput], makers: Sequence[str]) -> None:
        nn.Module.__init__(self)
        self.outputs, self.makers = list(outputs), list(makers)
        self.names = [str(k) for k in range(len(outputs))]
        self.heads = nn.ModuleDict(
            {name: output.head() for name, output in zip(self.names, outputs, strict=True)}
        )


class Gradients:
    """Options: ``objective`` (transform/representation/output, of texts without labels), ``head_steps`` of
    ``head_rows`` examples at ``head_lr`` to fit each new head, ``dev_rows`` for V, ``norm_rows`` for s.
    """

    def __init__(self, ground: SelectionGround) -> None:
        self.ground = ground
        self._names = ground.options["objective"].split("/")
        stages = [
            ground.registry.primitives[n].stage if n in ground.registry.primitives else ""
            for n in self._names
        ]
        if stages != list(STAGES[1:]):
            raise ConfigError(
                "option objective: expected transform/representation/output, such as "
                f"'bert-op/bidirectional/denoise', found {ground.options['objective']!r}"
            )
        if ground.options["norm_rows"] < 1 or ground.options["dev_rows"] < 1:
            raise ConfigError("options norm_rows and dev_rows must be at least 1")
        self._ready: tuple[Model, Engine, list[Loss]] | None = None
        self.dev_gradient: dict[str, Tensor] = {}
        self.norms = torch.zeros(0)

    def prepare(self) -> dict[str, Tensor]:
        """Fit the heads, take V, and the size of each pool's gradients."""
        model, _, _ = self._parts()
        with evaluating(model.backbone.body), evaluating(model.heads):
            self._fit_heads()
            self.dev_gradient = self._dev_gradient()
            self._settle_engine()
            sizes = [self._norm(pool) for pool in self.ground.pools]
        self.norms = torch.tensor(sizes, dtype=torch.float64)
        named = model.heads.named_parameters()
        heads = {f"heads.{name}": p.detach() for name, p in named}
        dev = {f"dev.{name}": value for name, value in self.dev_gradient.items()}
        # heads may share the encoder's embeddings, which need no copy; a clone is contiguous and its own
        return {"norms": self.norms, **{n: v.clone() for n, v in {**heads, **dev}.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Heads, V and norms as they were."""
        model, engine, _ = self._parts()
        with torch.no_grad():
            for name, parameter in model.heads.named_parameters():
                parameter.copy_(state[f"heads.{name}"])
        self.dev_gradient = {name: state[f"dev.{name}"].to(engine.device) for name in model.body()}
        self.norms = state["norms"]
        with evaluating(model.backbone.body), evaluating(model.heads):
            self._settle_engine()

    def scores(self, window: Window) -> Tensor:
        """[B] float64; −inf for a row in which the loss has no target."""
        ground, number = self.ground, window.pool.number
        model, engine, _ = self._parts()
        rows = window.pool.rows(ground.backbone, window.numbers)
        found = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
        dev_norm = dot(self.dev_gradient, self.dev_gradient).sqrt().double().cpu()
        with evaluating(model.backbone.body), evaluating(model.heads):
            for batch in ground.batches(rows):
                dots, counts = self._dots(number + 1, [rows[i] for i in batch], engine)
                seen = counts > 0
                values = dots / (dev_norm * self.norms[number])
                found[torch.tensor(batch)[seen]] = values[seen]
        return found

    def _dots(self, loss: int, rows: Sequence[Row], engine: Engine) -> tuple[Tensor, Tensor]:
        """⟨g_i, V⟩ and the number of targets of each row, [B] each."""
        if engine.kind == "looped":
            each = [self._one(loss, row, engine) for row in rows]
            dots, targets = zip(*each, strict=True)
            return torch.tensor(dots, dtype=torch.float64), torch.tensor(targets)
        piece = self._piece(loss, rows)
        counts = _targets_of_rows(piece, len(rows))
        batch = fuse([(loss, piece)]).to(engine.device)
        result = engine.aligned(batch, torch.ones(1), self.dev_gradient, examples=True)
        _forget(engine.model)
        if result.examples is None:
            raise ModelError("the engine gave no alignments of single examples")
        # A row's share is of the mean over all M targets; its own loss is the mean over its own.
        share = result.examples.double().cpu() * len(piece.targets)
        return share / counts.clamp(min=1), counts

    def _one(self, loss: int, row: Row, engine: Engine) -> tuple[float, int]:
        """⟨g_i, V⟩ and the number of targets, from a pass of its own: where layers do not see one stream."""
        piece = self._piece(loss, [row])
        batch = fuse([(loss, piece)]).to(engine.device)
        result = engine.aligned(batch, torch.ones(1), self.dev_gradient)
        _forget(engine.model)
        return float(result.alignment.dots[0]), len(piece.targets)

    def _norm(self, pool: Pool) -> float:
        """The root mean square of ‖g‖ over single examples.

        :raises ModelError: where every gradient vanishes.
        """
        ground, loss = self.ground, pool.number + 1
        engine = self._parts()[1]
        sample = ground.samples[pool.number] or range(len(pool))
        numbers = list(sample)[: ground.options["norm_rows"]]
        squares = []
        for row in pool.rows(ground.backbone, numbers):
            batch = fuse([(loss, self._piece(loss, [row]))]).to(engine.device)
            alignment = engine.aligned(batch, torch.ones(1), self.dev_gradient).alignment
            _forget(engine.model)
            if bool(alignment.observed[0]):
                squares.append(float(alignment.squared_norms[0]))
        if not sum(squares) > 0:
            raise ModelError(
                f"the gradients of {len(numbers)} examples of {pool.name} all vanish; raise --examples-per-task"
            )
        return float((sum(squares) / len(squares)) ** 0.5)

    def _fit_heads(self) -> None:
        """Adam on each head, the encoder as it is: a head that knows nothing sends gradients of noise."""
        ground, options = self.ground, self.ground.options
        model, engine, _ = self._parts()
        pools = [ground.examples, *ground.pools]
        samples = [ground.target_sample, *ground.samples]
        body = {id(p) for p in model.backbone.body.parameters()}
        total = options["head_steps"] * len(pools)
        for k, (pool, sample) in enumerate(zip(pools, samples, strict=True)):
            head = model.heads.head(k)
            own = [p for p in head.parameters() if id(p) not in body]
            if not own or not sample:
                continue
            optimizer = torch.optim.AdamW(own, lr=options["head_lr"], fused=True)
            rows = pool.rows(ground.backbone, sample)
            for step in range(options["head_steps"]):
                ground.progress("fitting heads", k * options["head_steps"] + step, total)
                order = torch.randperm(
                    len(rows), generator=generator(ground.seed, "selection-heads", k, step)
                )
                chosen = [rows[i] for i in order[: options["head_rows"]].tolist()]
                batch = fuse([(k, self._piece(k, chosen))]).to(engine.device)
                with engine.autocast():
                    with torch.no_grad():
                        hidden = model.backbone.encode(batch)
                    loss = model.heads.losses(hidden, batch)[0]
                torch.autograd.backward(loss, inputs=own)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        ground.progress("fitting heads", total, total)

    def _dev_gradient(self) -> dict[str, Tensor]:
        """V: the gradient of the target's mean loss over at most ``dev_rows`` rows of dev."""
        ground = self.ground
        model, engine, _ = self._parts()
        dev = attrs.evolve(target_pool(ground.target, ""), data=ground.target.splits["dev"])
        order = torch.randperm(len(dev), generator=generator(ground.seed, "selection-dev"))
        rows = dev.rows(ground.backbone, sorted(order[: ground.options["dev_rows"]].tolist()))
        body = model.body()
        total = {name: torch.zeros_like(p) for name, p in body.items()}
        for chosen in ground.batches(rows):
            batch = fuse([(_TARGET, self._piece(_TARGET, [rows[i] for i in chosen]))])
            batch = batch.to(engine.device)
            with engine.autocast():
                loss = model.heads.losses(model.backbone.encode(batch), batch)[0]
            share = len(chosen) / len(rows)
            grads = torch.autograd.grad(loss * share, list(body.values()), allow_unused=True)
            for name, gradient in zip(body, grads, strict=True):
                if gradient is not None:
                    total[name] += gradient
        return total

    def _settle_engine(self) -> None:
        """Compare the engines on a few rows; from then on the loop runs where one pass cannot."""
        _, engine, _ = self._parts()
        pool = self.ground.pools[0]
        rows = pool.rows(self.ground.backbone, range(min(4, len(pool))))
        batch = fuse([(1, self._piece(1, rows))]).to(engine.device)
        reason = engine.check(batch, torch.ones(1), self.dev_gradient)
        if reason or not self.ground.backbone.packed:
            why = reason or f"{self.ground.backbone.name} does not see rows as one stream"
            self.ground.remark(f"gradients are taken one example at a time, which is slow: {why}")

    def _piece(self, loss: int, rows: Sequence[Row]) -> Piece:
        """Rows with what they are asked. Corruption follows from the seed and the first row."""
        asked = self._parts()[2][loss]
        if asked.transform is None or asked.representation is None:
            packed = pack(rows)
            return Piece(packed, (FULL,) * len(rows), asked.output.targets(packed))
        random = generator(self.ground.seed, "selection-mask", loss, rows[0].origin.document)
        packed = asked.transform.apply(pack(rows), random)
        packed, rules = row_rules(asked.representation, packed, random)
        return Piece(packed, rules, asked.output.targets(packed))

    def _parts(self) -> tuple[Model, Engine, list[Loss]]:
        """Heads and engine around the encoder, made when they are first asked for."""
        if self._ready is None:
            ground = self.ground
            losses = [Loss(self._end_task(ground.target))]
            losses += [
                self._unlabelled() if pool.task is None else Loss(self._end_task(pool.task))
                for pool in ground.pools
            ]
            makers = ["the target's loss", *(f"the loss of {p.name}" for p in ground.pools)]
            with seeded(ground.seed, "selection-heads", device=torch.device("cpu")):
                heads = PoolHeads([loss.output for loss in losses], makers).to(ground.device)
            model = Model(ground.backbone, heads)
            kind = "fused" if ground.backbone.packed else "looped"
            self._ready = model, Engine(model, kind, 0, ground.precision), losses
        return self._ready

    def _end_task(self, task: Task) -> EndTask:
        return EndTask(Binding(task=task, backbone=self.ground.backbone, options={}))

    def _unlabelled(self) -> Loss:
        """The transform, representation and output that the option names, bound without a source."""
        ground = self.ground
        bound = []
        for name in self._names:
            record = ground.registry.primitive(name)
            binding = Binding(
                task=ground.target,
                backbone=ground.backbone,
                options=record.options,
                seed=ground.seed,
                remark=ground.remark,
            )
            bound.append(load_factory(record.factory)(binding))
        transform, representation, output = bound
        return Loss(output, transform, representation)


def _targets_of_rows(piece: Piece, rows: int) -> Tensor:
    """[B] how many targets each row has."""
    index = piece.targets.index
    first = index if index.ndim == 1 else index[:, 0]
    owner = first if piece.targets.level == "row" else piece.packed.row_of[first]
    return torch.bincount(owner, minlength=rows)


def _forget(model: Model) -> None:
    """Nothing is trained here, so gradients are dropped."""
    for parameter in (*model.backbone.body.parameters(), *model.heads.parameters()):
        parameter.grad = None
