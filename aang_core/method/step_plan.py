"""The plan of one step: the sampled objectives, their weights, rows and coefficients; and its batch.

A plan depends on the seed, the step and the weights alone, so that every process, engine and resumed run
makes the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import attrs
import torch
from torch import Tensor

from aang_core.batch.packing import BoundObjective, Piece, fuse, pack, prepare
from aang_core.batch.row_shares import share_rows
from aang_core.batch.rows import Row
from aang_core.batch.stream import FULL, FusedBatch
from aang_core.config.settings import RunConfig
from aang_core.method.cross_fitting import Folds
from aang_core.method.end_task import EndTask, LabelledRows
from aang_core.method.weights.weighting import Factors, WeightState
from aang_core.processes import Processes
from aang_core.randomness import generator

END_TASK = 0
"""The number of the end-task among a step's losses; auxiliary objective k has 1 + k."""


@attrs.frozen(eq=False)
class StepPlan:
    """One step.

    :param step: from 0.
    :param end_task_rows: rows of the end-task; 0 leaves it out (pretraining).
    :param sampled: [n] the auxiliary objectives that have rows.
    :param weights: [n] their w_k.
    :param candidates, candidate_weights: [m] the objectives among which the rows were dealt, and their w_k: where
        rows are drawn by weight, the light ones among them have none in most steps.
    :param chances: [n] the probability with which each of `sampled` had a place in the step and rows in it.
    :param rows: n row counts.
    :param coefficients: what multiplies each mean loss, in stream order: the end-task's first, where it takes part.
    :param end_task_weight: λ_e.
    :param transform_logits: the factors W_T by name, for transforms that follow them (`weighted`).
    :param elapsed: the share of the phase's steps that are done before this one, for outputs that are ramped up.
    :param searches: whether the step follows a dev gradient, whose rows it must not train on.
    """

    step: int
    end_task_rows: int
    sampled: Tensor
    weights: Tensor
    candidates: Tensor
    candidate_weights: Tensor
    chances: Tensor
    rows: tuple[int, ...]
    coefficients: Tensor
    end_task_weight: float
    transform_logits: Mapping[str, float] = attrs.field(factory=dict)
    elapsed: float = 0.0
    searches: bool = False

    @property
    def numbers(self) -> list[int]:
        """The losses of the step in stream order."""
        auxiliary = [1 + k for k in self.sampled.tolist()]
        return [END_TASK, *auxiliary] if self.end_task_rows else auxiliary

    @property
    def all_rows(self) -> list[int]:
        """Rows in stream order."""
        return [self.end_task_rows, *self.rows] if self.end_task_rows else list(self.rows)


class Planner:
    """Plans steps and builds their batches for one seed; with `folds`, a step of the search leaves out the held one."""

    def __init__(
        self,
        config: RunConfig,
        seed: int,
        objectives: Sequence[BoundObjective],
        factors: Factors,
        end_task: EndTask,
        labelled: LabelledRows,
        folds: Folds | None = None,
    ) -> None:
        self.folds = folds
        self.config, self.seed = config, seed
        self.objectives, self.factors = objectives, factors
        self.end_task, self.labelled = end_task, labelled

    def plan(
        self, step: int, state: WeightState, phase: str = "joint", elapsed: float = 0.0
    ) -> StepPlan:
        """The plan of a step under these weights.

        :param step: in its phase, from 0.
        :param phase: ``joint`` (end-task and auxiliaries), ``auxiliary`` or ``end-task``.
        :param elapsed: as in `StepPlan`.
        """
        training, meta = self.config.training, self.config.meta
        if phase == "end-task":
            extra = training.auxiliary_rows if training.row_budget == "end-task" else 0
            return self.end_task_plan(step, training.end_task_rows + extra)
        draw = generator(self.seed, "objectives", step)
        count = meta.objectives_per_step or len(self.objectives)
        sampled = torch.randperm(len(self.objectives), generator=draw)[:count].sort().values
        weights = state.weights(self.factors, sampled)
        needs = [self.objectives[k].need for k in sampled.tolist()]
        shared = share_rows(weights, training.auxiliary_rows, needs, meta.row_shares, draw)
        kept = torch.tensor([rows > 0 for rows in shared.rows])
        scale = state.balance(sampled) if meta.balance else torch.ones_like(weights)
        joint = phase == "joint"
        end_task_weight = state.end_task_weight if joint else 0.0
        end_task = torch.full((int(joint),), end_task_weight, dtype=torch.float64)
        auxiliary = (1 - end_task_weight) * (shared.coefficients * scale)[kept]
        return StepPlan(
            step=step,
            end_task_rows=training.end_task_rows if joint else 0,
            sampled=sampled[kept],
            weights=weights[kept],
            candidates=sampled,
            candidate_weights=weights,
            chances=shared.chances[kept] * len(sampled) / len(self.objectives),
            rows=tuple(rows for rows in shared.rows if rows > 0),
            coefficients=torch.cat([end_task, auxiliary]),
            end_task_weight=end_task_weight,
            transform_logits=state.stage_logits(self.factors, "transform"),
            elapsed=elapsed,
            searches=joint,
        )

    def end_task_plan(self, step: int, rows: int) -> StepPlan:
        """A step of the end-task alone."""
        none = torch.zeros(0, dtype=torch.float64)
        return StepPlan(
            step=step,
            end_task_rows=rows,
            sampled=none.long(),
            weights=none,
            candidates=none.long(),
            candidate_weights=none,
            chances=none,
            rows=(),
            coefficients=torch.ones(1, dtype=torch.float64),
            end_task_weight=1.0,
        )

    def batch(self, plan: StepPlan, processes: Processes) -> tuple[list[int], FusedBatch | None]:
        """The places in the plan that this process takes, and their batch (None where it takes none)."""
        places = processes.shard(plan.all_rows)
        numbers, rows = plan.numbers, plan.all_rows
        pieces = [(numbers[i], self._piece(plan, numbers[i], rows[i])) for i in places]
        return places, (fuse(pieces) if pieces else None)

    def labelled_rows(self, plan: StepPlan) -> list[Row]:
        """The end-task's rows of a step."""
        if self.folds is not None and plan.searches:
            return self.folds.take(plan.step, plan.end_task_rows)
        return self.labelled.take(plan.step * plan.end_task_rows, plan.end_task_rows)

    def _piece(self, plan: StepPlan, number: int, rows: int) -> Piece:
        if number == END_TASK:
            packed = pack(self.labelled_rows(plan))
            return Piece(packed, (FULL,) * rows, self.end_task.targets(packed))
        draw = generator(self.seed, "rows", plan.step, number)
        objective = self.objectives[number - 1]
        if hasattr(objective.transform, "weighted"):
            learned = objective.transform.weighted(plan.transform_logits)
            objective = attrs.evolve(objective, transform=learned)
        avoided = None
        if self.folds is not None and plan.searches:
            avoided = partial(self.folds.is_held, plan.step)
        return prepare(objective, rows, draw, plan.elapsed, avoided)
