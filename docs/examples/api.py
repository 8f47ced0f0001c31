"""aang from Python: a whole run with a callback, then its parts for a loop of your own.

Run it with ``python docs/examples/api.py TASK OUT [MODEL]``; TASK as for ``aang run --task``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import aang_core as aang
from aang_core.method.gradient.metagrad import fused
from aang_core.processes import Processes
from aang_core.train.resolve import bind_objectives, load_backbone, resolve
from aang_core.train.session import Session, build_session


class Diary(aang.Callback):
    """Writes down dev scores as they come."""

    def __init__(self) -> None:
        self.scores: list[float] = []

    def on_evaluation(self, session: Session, progress) -> None:
        self.scores.append(progress.evaluations[-1][session.task.metric])


def whole_run(task: str, out: Path, model: str) -> aang.RunReport:
    """What ``aang run`` does, in one call."""
    diary = Diary()
    report = aang.run(
        task=task,
        model=model,
        space="td",
        seeds=[0],
        training={"max_steps": 4, "eval_every": 2, "final_epochs": 0},
        out=out,
        callbacks=diary,
    )
    print("dev", [round(score, 3) for score in diary.scores], "test", report.seeds[0].test)
    return report


def own_loop(task: str, model: str) -> dict[str, dict[str, float]]:
    """Objectives, a fused batch, the meta-gradient and the weighting, one by one."""
    registry = aang.load_registry()
    config = aang.RunConfig(task=task, model=model, space="td")
    space = aang.resolve_space(config.space, registry)
    print(
        len(aang.legal_objectives(aang.enumerate_objectives(space, registry), space)), "objectives"
    )

    resolved = resolve(config, registry)
    backbone = load_backbone(resolved, seed=0)
    objectives = bind_objectives(resolved, resolved.task, backbone, seed=0)
    session = build_session(config, 0, resolved.task, backbone, objectives, Processes())
    weights = aang.WeightState.initial(session.factors)
    optimizer = torch.optim.AdamW(session.parameters.values(), lr=1e-4)

    for step in range(2):
        plan = session.planner.plan(step, weights)
        _, batch = session.planner.batch(plan, Processes())
        towards = session.dev.at(step, None)  # the dev gradient V
        backbone.body.train()
        result = fused(session.model, batch, plan.coefficients, towards)
        optimizer.step()
        optimizer.zero_grad()
        seen = aang.observe(weights, result.alignment, plan.sampled, plan.weights, config.meta)
        weights = aang.updated(seen, session.factors, config.meta)
    return weights.stage_weights(session.factors)


if __name__ == "__main__":
    place, folder, encoder = (*sys.argv[1:], "scratch:tiny")[:3]
    whole_run(place, Path(folder), encoder)
    print(own_loop(place, encoder))
