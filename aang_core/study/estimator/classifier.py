"""The main job as a scikit-learn estimator: rows and labels in, a fitted classifier out.

A thin layer over `run`. It makes a `Task` of its arguments, trains like ``aang run`` with the same defaults, and
predicts with the exported ``model/``, which needs only transformers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from aang_core.batch.protocols import BackboneSettings
from aang_core.config.file import from_keywords
from aang_core.config.settings import RunConfig
from aang_core.data.duplicates import repeats_together
from aang_core.data.labels import label_key
from aang_core.data.splits import SHARE, labels_together, split_rows
from aang_core.data.task import Task
from aang_core.errors import RunError
from aang_core.files import json_of
from aang_core.registry.records import BackboneKind, load_factory
from aang_core.registry.registry import registry_named
from aang_core.registry.spaces import suggestions
from aang_core.rundir.report import read_report, write_json
from aang_core.study.estimator.rows import (
    Columns,
    columns_of,
    dataset_of,
    kind_of,
    labelled_rows,
    selected,
    unlike,
    validation_rows,
)
from aang_core.study.run import run
from aang_core.train.callbacks import Callback
from aang_core.train.finish.export import Predictor
from aang_core.train.trainer import phases

if TYPE_CHECKING:
    from aang_core.train.callbacks import Progress
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord

SAVED = "estimator.json"
"""What `TextClassifier.save` writes beside ``model/`` and ``report.json``."""

_SCHEMA = 1
_ASKED = ("model", "reads", "max_length", "plugins")
"""What asking the exported model needs to know beside its files."""
_NAME = "estimator"


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fine-tunes an encoder on labelled texts together with auxiliary objectives, whose weights it learns.

    `X` is a list of texts, a NumPy array or a pandas Series; for pairs a list of pairs, an array of two columns or a
    DataFrame of two. `y` holds classes of any kind that NumPy sorts.

    :param model: an encoder as for ``aang run --model``; empty for the usual one.
    :param space: the auxiliary objectives; ``td`` draws them from the task's own texts, `unlabelled` ones included.
    :param method: a method as for ``aang run --method``; None for what the space suggests, or else ``aang``.
    :param metric: what dev chooses the model by: ``accuracy`` or ``f1`` (macro).
    :param max_steps: most optimiser steps; None for aang's default. :param lr: the encoder's learning rate, likewise.
    :param dev_size: share of the labelled rows that is held out by class, to take alignments and choose the model.
    :param random_state: an int for the same result each time; None or a ``RandomState`` draws a seed.
    :param external: corpora by data source name, as for ``aang run --external``.
    :param settings: further settings of the run by their keys: ``{"training": {"end_task_rows": 16}, "guard": True}``.
    :param out: a folder in which every fit leaves its run directory; None for one that goes with the estimator.
    :param device: ``cpu``, ``cuda`` or ``auto``.
    :param verbose: 0 is silent; 1 shows a progress bar in a terminal or notebook; 2 also what the run remarks.

    :ivar classes_: [C], sorted; the columns of `predict_proba` are in this order.
    :ivar report_: what ``report.json`` holds: scores on dev, weights of the objectives, cost, audit.
    :ivar directory_: where ``model/`` lies, and beside it whatever else the run has left.
    """

    def __init__(
        self,
        model: str = "",
        *,
        space: str = "td",
        method: str | None = None,
        metric: str = "accuracy",
        max_steps: int | None = None,
        lr: float | None = None,
        dev_size: float = SHARE,
        random_state: Any = 0,
        external: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        out: str | Path | None = None,
        device: str = "auto",
        verbose: int = 1,
    ) -> None:
        self.model = model
        self.space = space
        self.method = method
        self.metric = metric
        self.max_steps = max_steps
        self.lr = lr
        self.dev_size = dev_size
        self.random_state = random_state
        self.external = external
        self.settings = settings
        self.out = out
        self.device = device
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, unlabelled: Any = None, validation: tuple[Any, Any] | None = None
    ) -> Self:
        """Train, and choose the best checkpoint by dev.

        :param X: R rows. :param y: [R] classes.
        :param unlabelled: rows without labels; their texts are data for the auxiliary objectives.
        :param validation: dev as ``(X, y)``; None cuts `dev_size` of the rows off, by class, equal texts together.
        :raises ValueError: where rows and labels do not fit, or a class has too few rows.
        :raises AangError: as `run`, and for a row that is empty or no text.
        """
        config = self._config()
        kind = kind_of(config.plugins, config.model)
        rows, labels = labelled_rows(X, y, "X", kind)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y holds one class, {classes[0]!r}; expected at least two classes")
        if validation is None:
            rows, codes, held = self._without_dev(rows, codes, config.seeds[0])
        else:
            held = validation_rows(validation, classes, kind, tuple(rows))
        more = None if unlabelled is None else columns_of(unlabelled, "unlabelled", kind)
        if more is not None and tuple(more) != tuple(rows):
            raise ValueError(unlike("unlabelled", more, rows))
        task = Task(
            name=_NAME,
            kind="class",
            metric=self.metric,
            splits={"train": dataset_of(rows, codes), "dev": dataset_of(*held)},
            label_names=tuple(label_key(each) for each in classes.tolist()),
            unlabelled=None if more is None else dataset_of(more),
        )
        self._train(config, task)
        self.classes_ = classes
        self._asked = {
            "model": self.report_["model"],
            "reads": list(rows),
            "max_length": config.training.max_length,
            "plugins": list(config.plugins),
        }
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """[R], the likeliest class of each row."""
        likeliest = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[likeliest])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """[R, C], the probability of each class of `classes_`.

        :raises NotFittedError: before `fit`.
        """
        check_is_fitted(self, "classes_")
        kind = kind_of(self._asked["plugins"], self._asked["model"])
        rows = columns_of(X, "X", kind)
        if list(rows) != self._asked["reads"]:
            raise ValueError(unlike("X", rows, self._asked["reads"]))
        examples = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
        logits = torch.stack(self._predictor(kind).logits(examples))
        return np.asarray(torch.softmax(logits.double(), -1).numpy())

    def save(self, directory: str | Path) -> None:
        """Write ``model/``, a plain transformers model, and what `load` needs beside it.

        :raises RunError: where `directory` holds something already, or the classes have no form in JSON.
        """
        check_is_fitted(self, "classes_")
        place = Path(directory)
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise RunError(f"{place} exists and is not an empty folder; choose another place")
        known = {
            "schema": _SCHEMA,
            "parameters": self.get_params(deep=False),
            "classes": self.classes_.tolist(),
            "dtype": self.classes_.dtype.str,
            **self._asked,
        }
        try:
            facts = json.dumps(known, indent=2, default=str)
            if json_of(facts)["classes"] != known["classes"]:
                raise TypeError(f"values such as {self.classes_[0]!r} change on the way")
        except TypeError as cause:
            raise RunError(
                f"classes of the type {self.classes_.dtype} cannot be saved: {cause}"
            ) from cause
        shutil.copytree(self.directory_ / "model", place / "model", dirs_exist_ok=True)
        write_json(place / "report.json", self.report_)
        (place / SAVED).write_text(facts + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path, device: str = "auto") -> Self:
        """The estimator that `save` has written, which answers from ``model/`` and trains nothing.

        :raises RunError: where the folder is missing, damaged, or written by a later version.
        """
        place = Path(directory)
        try:
            facts = json_of((place / SAVED).read_text(encoding="utf-8"))
            schema = facts["schema"]
            found = cls(**{**facts["parameters"], "device": device})
            classes = np.array(facts["classes"], dtype=facts["dtype"])
            asked = {name: facts[name] for name in _ASKED}
        except (OSError, ValueError, KeyError, TypeError) as cause:
            what = f"{type(cause).__name__}: {cause}"
            raise RunError(f"{place} holds no saved estimator ({what})") from cause
        if schema != _SCHEMA:
            reads = f"this version of aang reads {_SCHEMA}"
            raise RunError(f"{place} has the schema {schema!r}; {reads}")
        found.directory_, found.report_ = place, read_report(place)
        found._loaded = []
        found.classes_, found._asked = classes, asked
        return found

    def _config(self) -> RunConfig:
        """The run's configuration; the estimator's own parameters lie over `settings`."""
        given = dict(self.settings or {})
        own = {"max_steps": self.max_steps, "lr": self.lr}
        chosen = {name: value for name, value in own.items() if value is not None}
        training = {**given.get("training", {}), **chosen}
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31 - 1)
        mine = {name: getattr(self, name) for name in ("model", "space", "device")}
        mine |= {"method": self.method} if self.method is not None else {}
        external = {"external": dict(self.external)} if self.external else {}
        registry = registry_named(given.get("plugins", ()))
        keys = {**given, **mine, **external, "training": training, "seeds": [int(seed)]}
        return RunConfig.from_mapping(from_keywords(keys), suggest=suggestions(registry))

    def _without_dev(
        self, rows: Columns, codes: NDArray[np.intp], seed: int
    ) -> tuple[Columns, NDArray[np.intp], tuple[Columns, NDArray[np.intp]]]:
        """Train's rows and codes, and dev's."""
        if not 0 < self.dev_size < 1:
            raise ValueError(f"dev_size must be between 0 and 1 (got {self.dev_size!r})")
        groups = repeats_together(list(rows.values()))
        keys = labels_together("class", codes.tolist(), groups)
        parts = split_rows("class", keys, [self.dev_size], np.random.default_rng(seed))
        train, dev = (sorted(row for group in part for row in groups[group]) for part in parts)
        if not dev:
            raise ValueError(
                f"dev cannot be cut from {len(codes)} rows with one text a class; give more rows, or "
                "validation=(X, y)"
            )
        return selected(rows, train), codes[train], (selected(rows, dev), codes[dev])

    def _train(self, config: RunConfig, task: Task) -> None:
        if self.out is not None:
            Path(self.out).mkdir(parents=True, exist_ok=True)
        directory = self._new_folder(self.out)
        bar = _Bar(self.verbose)
        try:
            run(config, task=task, out=directory, callbacks=bar)
        finally:
            bar.close()
        self.directory_, self.report_ = directory, read_report(directory)
        self._loaded: list[Predictor] = []

    def _new_folder(self, parent: str | Path | None = None) -> Path:
        """A new folder in `parent`, or one that is removed with this estimator."""
        folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}-", dir=parent))
        if parent is None:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _predictor(self, kind: BackboneKind) -> Predictor:
        """The exported model, loaded once."""
        if not self._loaded:
            settings = BackboneSettings(max_length=self._asked["max_length"], device=self.device)
            load = load_factory(kind.predictor)
            self._loaded.append(load(self.directory_ / "model", settings))
        return self._loaded[0]

    def __getstate__(self) -> dict[str, Any]:
        """The state, with the files of ``model/`` in it, so that copies and pickles are complete."""
        state = {**super().__getstate__()}
        if (directory := state.pop("directory_", None)) is not None:
            state["_loaded"] = []
            files = [path for path in (directory / "model").rglob("*") if path.is_file()]
            state["_files"] = {str(p.relative_to(directory)): p.read_bytes() for p in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            self.directory_ = self._new_folder()
            for name, data in files.items():
                place = self.directory_ / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may try: texts, which are no table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _more_tags(self) -> dict[str, Any]:
        """The same for scikit-learn before 1.6."""
        return {"X_types": ["string"]}


class _Bar(Callback):
    """A progress bar in a terminal or a notebook; `verbose` as in `TextClassifier`."""

    def __init__(self, verbose: int) -> None:
        self.verbose = verbose
        self.bar: Any = None

    def on_seed(self, session: Session) -> None:
        from tqdm.auto import tqdm

        self.close()
        if self.verbose:  # disable=None: none where nobody would see it
            total = sum(steps for _, steps in phases(session))
            self.bar = tqdm(total=total, desc=session.config.method, unit="step", disable=None)

    def on_step(self, session: Session, record: StepRecord, progress: Progress) -> None:  # noqa: ARG002
        if self.bar is not None:
            self.bar.update(progress.done - self.bar.n)

    def on_evaluation(self, session: Session, progress: Progress) -> None:
        if self.bar is not None and progress.best_score is not None:
            self.bar.set_postfix({f"best dev {session.task.metric}": f"{progress.best_score:.3f}"})

    def on_trained(self, session: Session, progress: Progress) -> None:  # noqa: ARG002
        self.close()

    def on_remark(self, remark: str) -> None:
        if self.verbose > 1:
            from tqdm.auto import tqdm

            tqdm.write(remark)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
