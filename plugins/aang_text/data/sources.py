"""Stage 1, sources of rows: the task's own texts, or an external corpus.

Texts become rows when they are first drawn, a batch at a time. So binding a large corpus costs only the time to read
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Generator, Tensor

from aang_core.batch.parts import Examples, ExampleSource
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import IGNORED, Layout, Origin, Row, lay_on_words
from aang_core.errors import TaskError
from aang_text.data.documents import Sentences, neighbour_examples, pair_examples
from aang_text.data.labelled_pairs import LabelledPairs

if TYPE_CHECKING:
    from datasets import Dataset


class TaskTexts(ExampleSource):
    """The training split, then the training texts whose labels the run may not see.

    Rows in a layout with the relation ``label`` come from the labelled ones, with ``tags`` from those
    whose words have tags, all others from both.
    """

    def __init__(self, binding: Binding) -> None:
        task = binding.task
        self.train: Dataset = task.splits["train"]
        self.unlabelled: Dataset | None = task.unlabelled
        if not len(self.train):
            raise TaskError(f"{task.name}: expected training texts, found an empty train split")
        self.token_task = task.kind == "token"
        self.tag_names = _tag_names(self.train)
        self._pairs: LabelledPairs | None = None
        if self.token_task and "label" in self.train.column_names:
            _check_words(self.train, "label")
        tagged = self.token_task or bool(self.tag_names)
        super().__init__("task", binding.backbone, frozenset({"data:tags"} if tagged else ()))

    def __len__(self) -> int:
        return len(self.train) + (0 if self.unlabelled is None else len(self.unlabelled))

    def _pool(self, layout: Layout) -> int:
        known = layout.relation in ("label", "tags")
        return len(self.train) if known else super()._pool(layout)

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Row]:
        """As `ExampleSource.draw`, and pairs of labelled rows by their classes (relation ``same-label``).

        :raises PluginError: for other layouts.
        :raises TaskError: where the labelled rows have no such pairs.
        """
        if layout.relation != "same-label":
            return super().draw(layout, count, generator)
        if self._pairs is None:
            self._pairs = LabelledPairs(self.train["label"][:], self.name)
        return drawn_pairs(self._pairs, self._rows, count, generator)

    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        labelled = [n for n in numbers if n < len(self.train)]
        others = [n - len(self.train) for n in numbers if n >= len(self.train)]
        found = dict(zip(labelled, records_of(self.train, labelled), strict=True))
        if self.unlabelled is not None:
            records = records_of(self.unlabelled, others)
            found |= {n + len(self.train): r for n, r in zip(others, records, strict=True)}
        examples = [found[n] for n in numbers]
        if self.token_task or self.tag_names:
            # Words as the data counts them, so that the encoder's tokenizer counts no others.
            examples = [{**example, "text": _words(example["text"])} for example in examples]
        return examples, [Origin(self.name, n, 0) for n in numbers]

    def _make(self, numbers: Sequence[int]) -> list[Row]:
        rows = super()._make(numbers)
        if self.token_task:
            laid = [_laid(row, row.label) for row in rows]
            tagged = zip(rows, laid, strict=True)
            return [attrs.evolve(r, label=tag, marks={**r.marks, "tag": tag}) for r, tag in tagged]
        if not self.tag_names:
            return rows
        codes = {tag: code for code, tag in enumerate(self.tag_names)}
        tags = [example.get("tags") for example in self._examples(numbers)[0]]
        coded = [None if given is None else [codes[tag] for tag in given] for given in tags]
        return [
            attrs.evolve(row, marks={**row.marks, "tag": _laid(row, given)})
            for row, given in zip(rows, coded, strict=True)
        ]


class CorpusTexts(ExampleSource):
    """An external corpus: one row a text, in the order of its documents; in pairs, one or two sentences a row."""

    def __init__(self, name: str, binding: Binding) -> None:
        from aang_text.data.corpora import load_corpus

        where = binding.task.external.get(name)
        if where is None:
            raise TaskError(
                f"{name}: expected a corpus, found none for the task {binding.task.name!r}; give "
                f'--external {name}=FILE, or a line {name} = "FILE" under [external] in task.toml'
            )
        corpus = load_corpus(where)
        for remark in corpus.remarks:
            binding.remark(f"{name}: {remark}")
        self.sentences = Sentences(name, corpus.documents)
        self.texts = [
            (document, place, text)
            for document, texts in enumerate(corpus.documents)
            for place, text in enumerate(texts)
        ]
        if not self.texts:
            raise TaskError(f"{name}: expected texts, found none in {where}; give another corpus")
        super().__init__(name, binding.backbone, self.sentences.provides())

    def __len__(self) -> int:
        return len(self.texts)

    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        chosen = [self.texts[n] for n in numbers]
        origins = [Origin(self.name, document, place) for document, place, _ in chosen]
        return [{"text": text} for _, _, text in chosen], origins

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Row]:
        """As `ExampleSource.draw`, and in the layouts that `aang_text.data.documents` lists.

        :raises TaskError: where the corpus has no such pairs.
        """
        if layout.kind == "pair":
            pairs = self.sentences.draw(layout, count, generator)
            examples, origins, answers = pair_examples(self.name, pairs)
            rows = self._encoder().rows(examples, origins)
            return [attrs.evolve(r, structure=a) for r, a in zip(rows, answers, strict=True)]
        if layout.kind == "neighbours":
            pairs = self.sentences.draw(layout, -(-count // 2), generator)
            return self._encoder().rows(*neighbour_examples(self.name, pairs))[:count]
        return super().draw(layout, count, generator)


def drawn_pairs(
    pairs: LabelledPairs,
    rows_of: Callable[[Sequence[int]], list[Row]],
    count: int,
    generator: Generator,
) -> list[Row]:
    """`count` rows, 2i and 2i + 1 a pair whose structure says whether their class is the same."""
    chosen = pairs.draw(-(-count // 2), generator)
    rows = rows_of([row for one, other, _ in chosen for row in (one, other)])
    answers = [same for *_, same in chosen for _ in range(2)]
    return [attrs.evolve(r, structure=a) for r, a in zip(rows, answers, strict=True)][:count]


class UnlabelledTexts(ExampleSource):
    """The training texts whose labels the run may not see, and no others: ``unlabelled``.

    :raises TaskError: where the task has none.
    """

    def __init__(self, binding: Binding) -> None:
        task = binding.task
        if task.unlabelled is None or not len(task.unlabelled):
            raise TaskError(
                f"unlabelled: expected training texts without labels, found none for the task {task.name!r}; keep "
                "fewer labels with --train-rows N"
            )
        self.texts = task.unlabelled
        super().__init__("unlabelled", binding.backbone, frozenset())

    def __len__(self) -> int:
        return len(self.texts)

    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        return records_of(self.texts, numbers), [Origin(self.name, n, 0) for n in numbers]


class AuxTexts(TaskTexts):
    """Another task's training texts with their labels.

    :ivar task: that task.
    """

    def __init__(self, binding: Binding) -> None:
        tasks = binding.task.auxiliary
        name = binding.options["task"]
        if name not in tasks:
            known = ", ".join(sorted(tasks)) or "none"
            raise TaskError(
                f"aux: expected a further task {name!r}, found {known}; give --aux-task with a folder, "
                "a file or a registered task"
                if name
                else "aux: expected a further task, found none; give --aux-task TASK"
            )
        self.task = tasks[name]
        super().__init__(attrs.evolve(binding, task=self.task))
        self.name = f"aux:{name}"


def in_domain(binding: Binding) -> CorpusTexts:
    """The corpus that the task names ``in-domain``.

    :raises TaskError: where there is none, or it is empty.
    """
    return CorpusTexts("in-domain", binding)


def out_of_domain(binding: Binding) -> CorpusTexts:
    """The corpus that the task names ``out-of-domain``.

    :raises TaskError: where there is none, or it is empty.
    """
    return CorpusTexts("out-of-domain", binding)


def records_of(split: Dataset, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Some examples of a split, read in one go."""
    if not numbers:
        return []
    columns = split[list(numbers)]
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _tag_names(split: Dataset) -> tuple[Any, ...]:
    """The tags of the column ``tags``, sorted; empty where there is no such column."""
    if "tags" not in split.column_names:
        return ()
    _check_words(split, "tags")
    return tuple(sorted({tag for given in split["tags"] for tag in given}))


def _check_words(split: Dataset, column: str) -> None:
    """:raises TaskError: where a text has more or fewer values than words; names the first five."""
    faults = [
        f"row {i + 1}: {len(given)} for {len(_words(text))} words"
        for i, (text, given) in enumerate(zip(split["text"], split[column], strict=True))
        if len(_words(text)) != len(given)
    ]
    if faults:
        raise TaskError(
            f"train: expected one value per word in the column {column!r}, found {len(faults)} rows "
            f"that differ ({'; '.join(faults[:5])}); words are separated by spaces, or given as a list"
        )


def _words(text: str | Sequence[str]) -> list[str]:
    return text.split() if isinstance(text, str) else list(text)


def _laid(row: Row, values: Sequence[int] | None) -> Tensor:
    """What the row's words say laid on its positions: [T], −100 where there is nothing."""
    if values is None:
        return torch.full((len(row),), IGNORED)
    return lay_on_words(row.marks["word"], values)
