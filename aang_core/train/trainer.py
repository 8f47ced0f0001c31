"""The loop: a seed from its first step to its best checkpoint, over phases, evaluations and interruptions.

Read `Trainer.run` first. A step is `step.train_step`, an evaluation `evaluation.DevJudge`, what comes after the last
phase `final`. Training writes ``history.jsonl`` (a line for each step), ``checkpoint/step-*`` (for a resume)
and ``checkpoint/best.safetensors`` (what dev chose).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from aang_core.errors import RunError
from aang_core.files import write_text
from aang_core.method.precision import precision_remark
from aang_core.method.slow_copy import SlowCopy
from aang_core.rundir.report import strict_line
from aang_core.train import checkpoint
from aang_core.train.callbacks import Callback, Callbacks, Progress, Spent, Stopped
from aang_core.train.checkpoint import BEST, callback_states, newest, remove, restore, snapshot
from aang_core.train.evaluation import DevJudge
from aang_core.train.finish.final import fine_tune_at_last, finish_with_probe
from aang_core.train.head_fitting import begins_tempered, begins_with_probe, fit_heads, fit_probe
from aang_core.train.session import Session
from aang_core.train.step import Preparation, StepRecord, engine_fault, train_step


def phases(session: Session) -> list[tuple[str, int]]:
    """The method's phases and the most steps of each."""
    settings = session.config.training
    if session.config.method == "probe":
        return [("end-task", 0)]
    if session.config.method == "finetune":
        return [("end-task", settings.max_steps)]
    if session.config.method == "pretrain-finetune":
        return [("auxiliary", settings.pretrain_steps), ("end-task", settings.max_steps)]
    return [("joint", settings.max_steps * (2 if session.fork else 1))]


class Trainer:
    """Trains one session in one directory.

    :param started: the clocks when the seed began, before its session was built; by default now.
    :ivar ended: the index of the last phase that a callback has ended; −1 for none.
    """

    def __init__(
        self, session: Session, directory: Path, callback: Callback, started: Spent | None = None
    ) -> None:
        self.session, self.directory, self.callback = session, directory, Callbacks([callback])
        self.ended = -1
        self.judge = DevJudge(session, directory / "checkpoint" / BEST)
        self.progress = Progress()
        self.remarks: list[str] = []
        self.earlier, self.started = Spent(), started or Spent.now()

    def spent(self) -> Spent:
        """The seed's time so far, earlier interrupted runs included."""
        return self.earlier.plus(Spent.now().since(self.started))

    @property
    def history(self) -> Path:
        """A line a step."""
        return self.directory / "history.jsonl"

    def run(self, resume: bool) -> Progress:
        """All phases from the start, or from the newest checkpoint; ends with the best parameters loaded.

        :raises RunError: if dev was never finite, so that there is no best checkpoint.
        :raises Stopped: after a step and its checkpoint, if the callback asks for it.
        """
        if not (resume and self._restored()):
            self._begin()
        for index, (phase, total) in enumerate(phases(self.session)):
            if index >= self.progress.phase and total:
                self._phase(index, phase, total)
        if self.progress.best_score is None:
            raise RunError(self.judge.never_finite(len(self.progress.evaluations)))
        if self.ended < len(phases(self.session)) - 1:
            fine_tune_at_last(self)
        else:
            self.judge.load_best()
        if self.session.config.heads.finish != "none":
            finish_with_probe(self)
        self.callback.on_train_end(self.session, self.progress)
        return self.progress

    def remark(self, text: str) -> None:
        """Tell the user, and keep it for the report."""
        self.remarks.append(text)
        self.callback.on_remark(text)

    def evaluate(self, slow: SlowCopy | None = None, *, probe: bool = False) -> None:
        """Score dev; keep the parameters, or their running mean `slow`, if they are the best so far.

        :param probe: whether nothing but the head's last layer differs from the best ones.
        """
        judge = self.judge
        self.progress = judge.probed(self.progress) if probe else judge.judged(self.progress, slow)
        self.callback.on_evaluate(self.session, self.progress)

    def asked_to_end(self) -> bool:
        """Whether a callback of any process wants to end the training."""
        session = self.session
        return session.processes.total(self.callback.should_training_stop, session.device) > 0

    def _asked_to_end(self, index: int, phase: str) -> bool:
        """The same after a step of a phase; remembers and reports it."""
        if not self.asked_to_end():
            return False
        self.ended = index
        names = ", ".join(self.callback.ending) or "a callback of another process"
        self.remark(f"the {phase} training was ended after step {self.progress.done} by {names}")
        return True

    def asked_to_stop(self) -> bool:
        """Whether the first process's callback wants to interrupt the run; it decides for all."""
        session = self.session
        return session.processes.total(self.callback.stopping, session.device) > 0

    def _begin(self) -> None:
        session = self.session
        if session.processes.is_main:
            write_text(self.history, "")
        settings = session.config.training
        fit_heads(session, settings.fit_heads_steps)
        if said := precision_remark(session.device, settings.precision):
            self.remark(said)
        if session.teacher or session.refresher:
            wanted = settings.teacher_precision
            if said := precision_remark(session.device, wanted, "teacher_precision"):
                self.remark(said)
        if begins_with_probe(session.config):
            tempered = begins_tempered(session.config)
            self.progress = self.progress.reading(fit_probe(session, tempered=tempered))
            if settings.eval_every < settings.max_steps or session.config.method == "probe":
                self.evaluate()  # the encoder as it comes stays within reach, if dev chooses at all
        if reason := engine_fault(session):
            self.remark(f"the fused engine is not used: {reason}")

    def _phase(self, index: int, phase: str, total: int) -> None:
        session = self.session
        if self.progress.phase != index:
            session.optimizer = session.new_optimizer()
            self.progress = attrs.evolve(self.progress, phase=index, step=0)
        preparation = Preparation(session, phase, total)
        patience = session.config.training.patience
        every = session.config.training.eval_every * (2 if session.fork else 1)
        try:
            while (
                self.ended < index
                and self.progress.step < total
                and self.progress.waited < patience
            ):
                if phase != "end-task":
                    self._refresh(preparation)
                self._note(self._step(preparation, total))
                due = self.progress.step == total or self.progress.step % every == 0
                if due and phase != "auxiliary":
                    self.evaluate(session.slow)
                # within a round there is no model that could be kept
                ends = (due or not session.fork) and self._asked_to_end(index, phase)
                if ends and not due and phase != "auxiliary":
                    self.evaluate(session.slow)
                stops = self.asked_to_stop()
                if due or ends or stops:
                    self._save()
                if stops:
                    raise Stopped(self.progress.done)
        finally:
            preparation.close()

    def _refresh(self, preparation: Preparation) -> None:
        """Let data sources look at the model where that is due, after the rows of this step are drawn: a resumed run
        draws them by the old memory, which its checkpoint holds, as the first run did.
        """
        session, step = self.session, self.progress.step
        if session.refresher is None or not session.refresher.due(step):
            return
        preparation.drawn(step)
        tokens, said = session.refresher.refresh(step, session.processes)
        self.progress = self.progress.reading(tokens)
        for text in said:
            self.remark(f"after step {self.progress.done}: {text}")

    def _step(self, preparation: Preparation, total: int) -> StepRecord:
        """The next step of a phase; in a forked run with what comes before and after it."""
        session, step = self.session, self.progress.step
        if session.fork is None:
            return train_step(session, preparation, step, total)
        session.fork.begin(session, step)
        record = train_step(session, preparation, step, total)
        record = attrs.evolve(record, branch=session.fork.place(step)[0])
        merge = session.fork.end(session, step)
        if merge is None:
            return record
        tokens = record.tokens + merge.tokens
        return attrs.evolve(record, merge=merge.as_mapping(), tokens=tokens)

    def _note(self, record: StepRecord) -> None:
        self.progress = self.progress.charged(
            labelled_rows=record.labelled_rows,
            rows=record.rows,
            tokens=record.tokens,
            skipped=bool(record.skipped),
        )
        if record.merge is not None:
            self.progress = self.progress.merged(record.merge)
        if record.skipped:
            names = ", ".join(record.skipped)
            self.remark(f"step {self.progress.done} was skipped: not finite in {names}")
        if self.session.processes.is_main:
            with self.history.open("a", encoding="utf-8") as file:
                file.write(strict_line(record.line(self.progress.done)))
        self.callback.on_step_end(self.session, record, self.progress)

    def _save(self) -> None:
        session = self.session
        if not session.processes.is_main:
            return
        spent = attrs.asdict(self.spent())
        kept: dict[str, Any] = {"remarks": self.remarks, "spent": spent}
        kept |= {"engine": session.engine.kind, "engine_gap": session.engine.gap}
        kept |= {"ended": self.ended}
        states = self.callback.state_dict()
        saved = snapshot(session, self.progress, self.history, kept, states)
        checkpoint.write(self.directory / "checkpoint", self.progress.done, saved)

    def _restored(self) -> bool:
        """Resume from the newest complete checkpoint; False if there is none."""
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
        self.ended = kept.get("ended", -1)  # absent in checkpoints of earlier versions
        states = callback_states(saved)
        self.callback.load_state_dict(states)
        for name in sorted(states.keys() - self.callback.named.keys()):
            self.remark(f"the checkpoint holds a state of the callback {name}, which is not here")
        if self.session.processes.is_main:
            with self.history.open("r+b") as file:
                file.truncate(saved.facts["history"]["bytes"])
        return True
