"""The front matter of an exported model's ``README.md``, as model hubs read it (huggingface_hub's `ModelCardData`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

HUB_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr"}
"""What the hub calls a metric, where it has another name for it."""

_HUB_ID = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*", re.ASCII)
_FENCE = "---\n"


def is_hub_id(name: str) -> bool:
    """Whether a model's name has the form of a hub id (``roberta-base``, ``owner/name``) and is no folder here."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def card_metadata(**entries: str | Sequence[str] | None) -> str:
    """Front matter with these entries, in their order; those that are None or empty are left out.

    Strings stand in double quotes, so that no name can break the YAML.
    """
    lines = [f"{key}: {_yaml(value)}" for key, value in entries.items() if value]
    return _FENCE + "\n".join(lines) + "\n" + _FENCE.rstrip()


def _yaml(value: object) -> str:
    """A value in the form that JSON and YAML share."""
    return json.dumps(value, ensure_ascii=False)


def add_results(card: Path, task: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Write a run's scores into the front matter of a card, as the hub's ``model-index``; a file without any stays.

    :param card: a ``README.md`` that may be missing. :param task: the name of the data.
    :param scores: of each split, metric → value.
    """
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    front, fence, rest = text.removeprefix(_FENCE).partition("\n" + _FENCE)
    kind = re.search(r'^pipeline_tag: "?([a-z-]+)"?$', front, re.MULTILINE)
    if not text.startswith(_FENCE) or not fence or kind is None:
        return
    results = [
        {
            "task": {"type": kind[1]},
            "dataset": {"name": task, "type": re.sub(r"[^\w.-]+", "-", task), "split": split},
            "metrics": [
                {"type": HUB_METRICS.get(name, name), "name": name, "value": round(value, 6)}
                for name, value in found.items()
            ],
        }
        for split, found in scores.items()
    ]
    index = f"model-index: {_yaml([{'name': task, 'results': results}])}"
    card.write_text(f"{_FENCE}{front}\n{index}\n{_FENCE}{rest}", encoding="utf-8")
