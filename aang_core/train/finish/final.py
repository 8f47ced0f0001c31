"""After the last phase: epochs on the end-task alone from the best parameters, and a probe as the last layer.

Each is kept only if it is better on dev.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aang_core.files import same_file
from aang_core.method.gradient.row_gradients import coalesce, values
from aang_core.train.callbacks import Stopped
from aang_core.train.checkpoint import SEARCHED
from aang_core.train.head_fitting import fit_probe
from aang_core.train.session import Session
from aang_core.train.step import dropout, training

if TYPE_CHECKING:
    from aang_core.train.trainer import Trainer


def final_epochs(session: Session) -> tuple[int, int]:
    """The most epochs of the final fine-tuning, and the steps of each.

    Never more steps than `max_steps`, unless passes are counted in place of steps (`epochs`).
    """
    settings = session.config.training
    if session.config.method == "probe":
        return 0, 0
    steps = -(-len(session.planner.labelled.rows) // settings.end_task_rows)
    bound = settings.final_epochs if settings.epochs else settings.max_steps // steps
    return min(settings.final_epochs, bound), steps


def fine_tune_at_last(trainer: Trainer) -> None:
    """Epochs on the end-task alone from the best parameters, kept only where dev improves (paper's code).

    :raises Stopped: after a step, if the callback asks for it. On resuming, the fine-tuning starts again.
    """
    session, settings = trainer.session, trainer.session.config.training
    best = trainer.judge.best
    searched = best.with_name(
        SEARCHED
    )  # what the fine-tuning begins with, while it may replace `best`
    session.processes.barrier()  # for the one that writes
    begun = searched.exists()  # resumed: `best` may be from an unfinished fine-tuning
    session.load(searched if begun else best)
    session.processes.barrier()
    if session.processes.is_main and not begun:
        same_file(best, searched)  # what replaces `best` is a new file
    epochs, epoch_steps = final_epochs(session)
    optimizer = session.new_optimizer(settings.final_lr)
    waited = 0
    for _ in range(epochs):
        for _ in range(epoch_steps):
            _step(trainer, optimizer)
        trainer.evaluate()
        waited = 0 if trainer.progress.waited == 0 else waited + 1
        if waited >= settings.final_patience or trainer.asked_to_end():
            break
    trainer.judge.load_best()


def _step(trainer: Trainer, optimizer: torch.optim.Optimizer) -> None:
    session, step = trainer.session, trainer.progress.done
    plan = session.planner.end_task_plan(step, session.config.training.end_task_rows)
    _, batch = session.planner.batch(plan, session.processes)
    with training(session), dropout(session, step):
        if batch is not None:
            session.engine.plain(batch.to(session.device), plan.coefficients)
        session.processes.sum_gradients(session.parameters.values())
    coalesce(session.parameters.values())
    given = [p.grad for p in session.parameters.values() if p.grad is not None]
    finite = all(bool(values(g).isfinite().all()) for g in given)
    if finite:
        optimizer.step()
    else:
        trainer.remark(
            f"final fine-tuning: step {step + 1} was skipped: its gradient is not finite"
        )
    optimizer.zero_grad(set_to_none=True)
    trainer.progress = trainer.progress.charged(
        labelled_rows=plan.end_task_rows,
        rows=plan.end_task_rows,
        tokens=session.processes.total(batch.tokens if batch else 0, session.device),
        skipped=not finite,
    )
    if trainer.asked_to_stop():  # only this fine-tuning comes after the last checkpoint
        raise Stopped(trainer.progress.done)


def finish_with_probe(trainer: Trainer) -> None:
    """Fit the head's last layer anew on the best encoder's features, and keep it where dev prefers it."""
    trainer.progress = trainer.progress.reading(fit_probe(trainer.session))
    trainer.evaluate(probe=True)
    trainer.judge.load_best()
