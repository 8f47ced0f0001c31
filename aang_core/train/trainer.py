"""A seed from its first step to its best checkpoint: phases, evaluations, early stopping, resuming.

What training leaves on disk is written here: ``history.jsonl`` (a line a step), ``checkpoint/step-*`` (to go on from)
and ``checkpoint/best.safetensors`` (what dev chose).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch

from aang_core.errors import RunError
from aang_core.files import same_file, save_tensors, write_text
from aang_core.method.precision import precision_remark
from aang_core.method.slow_copy import SlowCopy
from aang_core.processes import Processes
from aang_core.rundir.report import strict_line
from aang_core.train import checkpoint
from aang_core.train.callbacks import Callback, Progress, Spent, Stopped
from aang_core.train.checkpoint import load_into
from aang_core.train.evaluation import scores
from aang_core.train.head_fitting import fit_heads
from aang_core.train.probe import fit_probe
from aang_core.train.resuming import (
    BEST,
    SEARCHED,
    discard,
    newest,
    remove,
    restore,
    snapshot,
    trained_tensors,
)
from aang_core.train.session import Session
from aang_core.train.step import Preparation, StepRecord, dropout, train_step, training


def phases(session: Session) -> list[tuple[str, int]]:
    """The method's phases and their greatest numbers of steps."""
    settings = session.config.training
    if session.config.method == "finetune":
        return [("end-task", settings.max_steps)]
    if session.config.method == "pretrain-finetune":
        return [("auxiliary", settings.pretrain_steps), ("end-task", settings.max_steps)]
    return [("joint", settings.max_steps)]


def final_epochs(session: Session) -> tuple[int, int]:
    """The most epochs of the final fine-tuning, and the steps of each.

    Never more steps than `max_steps`, unless passes are counted in place of steps (`epochs`).
    """
    settings = session.config.training
    steps = -(-len(session.planner.labelled.rows) // settings.end_task_rows)
    bound = settings.final_epochs if settings.epochs else settings.max_steps // steps
    return min(settings.final_epochs, bound), steps


class Trainer:
    """Trains one session in one directory.

    :param started: the clocks when the seed began, before its session was built; by default now.
    """

    def __init__(
        self,
        session: Session,
        directory: Path,
        callback: Callback,
        started: Spent | None = None,
    ) -> None:
        self.session, self.directory, self.callback = session, directory, callback
        self.progress = Progress()
        self.remarks: list[str] = []
        self.earlier, self.started = Spent(), started or Spent.now()

    def spent(self) -> Spent:
        """The seed's time so far, with that of the interrupted runs before this one."""
        return self.earlier.plus(Spent.now().since(self.started))

    @property
    def history(self) -> Path:
        """A line a step."""
        return self.directory / "history.jsonl"

    @property
    def best(self) -> Path:
        """The parameters that dev chose."""
        return self.directory / "checkpoint" / BEST

    @property
    def _searched(self) -> Path:
        """The parameters that the final fine-tuning begins with, which may replace `best`."""
        return self.best.with_name(SEARCHED)

    def run(self, resume: bool) -> Progress:
        """All phases from the start, or from the newest checkpoint; ends with the best parameters loaded.

        :raises RunError: where dev was never finite and there is no best checkpoint.
        :raises Stopped: where the callback asks for it, after a step and its checkpoint.
        """
        if not (resume and self._restored()):
            self._begin()
        for index, (phase, total) in enumerate(phases(self.session)):
            if index >= self.progress.phase:
                self._phase(index, phase, total)
        if self.progress.best_score is None:
            raise RunError(self._never_finite())
        self._final_fine_tuning()
        if self.session.config.heads.finish == "probe":
            self._finish_with_probe()
        self.callback.on_trained(self.session, self.progress)
        return self.progress

    def discard(self) -> None:
        """Remove what only an unfinished run needs."""
        discard(self.directory)

    def remark(self, text: str) -> None:
        """Tell the user, and keep it for the report."""
        self.remarks.append(text)
        self.callback.on_remark(text)

    def _never_finite(self) -> str:
        session, count = self.session, len(self.progress.evaluations)
        return (
            f"seed {session.seed}: dev {session.task.metric} was not finite (NaN or infinite) in any of {count} "
            f"evaluations, so there is no best checkpoint in {self.directory}; expected a finite score in at least "
            f"one. The training diverged: lower training.lr (now {session.config.training.lr:g}), and begin again "
            "with another --out"
        )

    def _begin(self) -> None:
        session = self.session
        if session.processes.is_main:
            write_text(self.history, "")
        fit_heads(session, session.config.training.fit_heads_steps)
        if said := precision_remark(session.device, session.config.training.precision):
            self.remark(said)
        if session.config.heads.start == "probe":
            self.progress = self.progress.reading(fit_probe(session))
        if reason := self._engine_fault():
            self.remark(f"the fused engine is not used: {reason}")

    def _engine_fault(self) -> str:
        session = self.session
        if session.dev is None or session.engine.kind == "looped":
            return ""  # nothing to compare
        plan = session.planner.plan(0, session.weights)
        _, batch = session.planner.batch(plan, Processes())
        if batch is None:
            return ""
        lesson = session.taught(batch, plan)
        dev_gradient = session.dev.at(0, None)
        return session.engine.check(lesson.batch, plan.coefficients, dev_gradient)

    def _phase(self, index: int, phase: str, total: int) -> None:
        session = self.session
        if self.progress.phase != index:
            session.optimizer = session.new_optimizer()
            self.progress = attrs.evolve(self.progress, phase=index, step=0)
        preparation = Preparation(session, phase, total)
        patience = session.config.training.patience
        every = session.config.training.eval_every
        try:
            while self.progress.step < total and self.progress.waited < patience:
                self._note(train_step(session, preparation, self.progress.step, total))
                due = self.progress.step == total or self.progress.step % every == 0
                if due and phase != "auxiliary":
                    self._evaluate(session.slow)
                stops = self._asked_to_stop()
                if due or stops:
                    self._save()
                if stops:
                    raise Stopped(self.progress.done)
        finally:
            preparation.close()

    def _asked_to_stop(self) -> bool:
        """Whether the callback of the first process, for all of them, wants the run to end here."""
        session = self.session
        return session.processes.total(self.callback.stopping, session.device) > 0

    def _note(self, record: StepRecord) -> None:
        self.progress = self.progress.charged(
            labelled_rows=record.labelled_rows,
            rows=record.rows,
            tokens=record.tokens,
            skipped=bool(record.skipped),
        )
        if record.skipped:
            names = ", ".join(record.skipped)
            self.remark(f"step {self.progress.done} was skipped: not finite in {names}")
        if self.session.processes.is_main:
            line = {**attrs.asdict(record), "step": self.progress.done}
            with self.history.open("a", encoding="utf-8") as file:
                file.write(strict_line(line))
        self.callback.on_step(self.session, record, self.progress)

    def _evaluate(self, slow: SlowCopy | None = None) -> None:
        """Score dev; keep the parameters, or their running mean, where that is the best so far."""
        session, judged = self.session, []
        judge = session.config.training.mean_evaluation if slow is not None else "off"
        if judge != "only":
            judged.append((self._dev_scores(), False))
        if slow is not None and judge != "off":
            with slow.in_place():
                judged.append((self._dev_scores(), True))
        metric = session.task.metric
        metrics, mean = max(judged, key=lambda each: _finite(each[0][metric]))
        self.progress = self.progress.evaluated(metrics, metric, mean)
        if self.progress.waited == 0 and session.processes.is_main:
            with slow.in_place() if mean and slow is not None else nullcontext():
                save_tensors(self.best, trained_tensors(session))
        self.callback.on_evaluation(session, self.progress)

    def _dev_scores(self) -> dict[str, float]:
        session = self.session
        with session.engine.autocast():
            logits = session.predict(session.stopping)
        return scores(session.task, logits, session.stopping)

    def _save(self) -> None:
        session = self.session
        if not session.processes.is_main:
            return
        spent = attrs.asdict(self.spent())
        kept: dict[str, Any] = {"remarks": self.remarks, "spent": spent}
        kept |= {"engine": session.engine.kind, "engine_gap": session.engine.gap}
        saved = snapshot(session, self.progress, self.history, kept)
        checkpoint.write(self.directory / "checkpoint", self.progress.done, saved)

    def _restored(self) -> bool:
        """Go on from the newest whole checkpoint; False where there is none."""
        found = newest(self.directory)
        for text in found.remarks:
            self.remark(text)
        self.session.processes.barrier()  # until all have looked
        if self.session.processes.is_main:
            remove(found.spoilt)
        saved = found.saved
        if saved is None:
            return False
        self.progress = restore(self.session, saved)
        kept = saved.facts["kept"]
        self.remarks = [*kept["remarks"], *found.remarks]
        self.session.engine.kind = kept["engine"]
        self.session.engine.gap = kept["engine_gap"]
        self.earlier = Spent(**kept["spent"])
        if self.session.processes.is_main:
            with self.history.open("r+b") as file:
                file.truncate(saved.facts["history"]["bytes"])
        return True

    def _final_fine_tuning(self) -> None:
        """Epochs on the end-task alone from the best parameters, kept only where dev improves (paper's code)."""
        session, settings = self.session, self.session.config.training
        session.processes.barrier()  # for the one that writes
        begun = self._searched.exists()  # resumed: `best` may be from an unfinished fine-tuning
        load_into(trained_tensors(session), self._searched if begun else self.best)
        session.processes.barrier()
        if session.processes.is_main and not begun:
            same_file(self.best, self._searched)  # what replaces `best` is a new file
        epochs, epoch_steps = final_epochs(session)
        optimizer = session.new_optimizer(settings.final_lr)
        waited = 0
        for _ in range(epochs):
            for _ in range(epoch_steps):
                self._final_step(optimizer)
            self._evaluate()
            waited = 0 if self.progress.waited == 0 else waited + 1
            if waited >= settings.final_patience:
                break
        session.processes.barrier()
        load_into(trained_tensors(session), self.best)

    def _finish_with_probe(self) -> None:
        """Fit the head's last layer anew on the best encoder's features, and keep it where dev prefers it."""
        self.progress = self.progress.reading(fit_probe(self.session))
        self._evaluate()
        self.session.processes.barrier()
        load_into(trained_tensors(self.session), self.best)

    def _final_step(self, optimizer: torch.optim.Optimizer) -> None:
        session, step = self.session, self.progress.done
        plan = session.planner.end_task_plan(step, session.config.training.end_task_rows)
        _, batch = session.planner.batch(plan, session.processes)
        with training(session), dropout(session, step):
            if batch is not None:
                session.engine.plain(batch.to(session.device), plan.coefficients)
            session.processes.sum_gradients(session.parameters.values())
        given = [p.grad for p in session.parameters.values() if p.grad is not None]
        finite = all(bool(gradient.isfinite().all()) for gradient in given)
        if finite:
            optimizer.step()
        else:
            self.remark(
                f"final fine-tuning: step {step + 1} was skipped: its gradient is not finite"
            )
        optimizer.zero_grad(set_to_none=True)
        self.progress = self.progress.charged(
            labelled_rows=plan.end_task_rows,
            rows=plan.end_task_rows,
            tokens=session.processes.total(batch.tokens if batch else 0, session.device),
            skipped=not finite,
        )
        if self._asked_to_stop():  # what is behind the last checkpoint is only this fine-tuning
            raise Stopped(self.progress.done)


def _finite(score: float) -> float:
    """A score to compare by: one that is not finite is worse than any."""
    return score if math.isfinite(score) else -math.inf
