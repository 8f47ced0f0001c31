"""The exported model of a run on images: weights as safetensors, shape as JSON, a model card. Write it and load it.

transformers has no such architecture, so the files are our own; they hold no code. C logits of an image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from cattrs import structure
from cattrs.errors import BaseValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aang_core.batch.packing import plain_batch
from aang_core.batch.parts import device_named
from aang_core.batch.rows import Origin
from aang_core.errors import ModelError
from aang_core.rundir.card import HUB_METRICS, card_metadata
from aang_vision.encoder import ImageHead, PatchEncoder, Shape, encode
from aang_vision.images import image_rows

if TYPE_CHECKING:
    from aang_core.batch.protocols import BackboneSettings
    from aang_core.data.task import Task

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_EVAL_ROWS = 256


@attrs.frozen(kw_only=True)
class Config:
    """``config.json``.

    :param outputs: C.
    :param kind: of the task, a key of `metrics.METRICS`.
    """

    shape: Shape
    task: str
    kind: str
    outputs: int
    label_names: tuple[str, ...] = ()


def export_model(
    directory: Path, shape: Shape, body: nn.Module, head: nn.Module, task: Task
) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``README.md``.

    :raises ModelError: where the file does not give every weight back bit for bit.
    """
    directory.mkdir(parents=True, exist_ok=True)
    parts = {"body": body, "head": head}
    tensors = {
        f"{part}.{name}": tensor.detach().contiguous()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    save_file(tensors, directory / WEIGHTS)
    again = load_file(directory / WEIGHTS)
    if not all(torch.equal(again[name], tensor.cpu()) for name, tensor in tensors.items()):
        raise ModelError(f"{directory / WEIGHTS} was written, but does not give the weights back")
    config = Config(
        shape=shape,
        task=task.name,
        kind=task.kind,
        outputs=task.num_outputs,
        label_names=task.label_names,
    )
    text = json.dumps(attrs.asdict(config), indent=2, ensure_ascii=False)
    (directory / CONFIG).write_text(text + "\n", encoding="utf-8")
    (directory / "README.md").write_text(model_card(config, task.metric), encoding="utf-8")


def model_card(config: Config, metric: str) -> str:
    """The exported model's README, with the front matter that model hubs read."""
    form = config.shape.form
    labels = "\n".join(f"- `{name}`" for name in config.label_names) or "- a number"
    front = card_metadata(
        library_name="aang-vision",
        license="unknown",
        pipeline_tag="image-classification",
        metrics=[HUB_METRICS.get(metric, metric)],
        tags=["aang"],
    )
    return f"""{front}

# {config.task}

A transformer of {config.shape.layers} layers and {config.shape.hidden} hidden units over patches of \
{form.patch}×{form.patch} pixels, trained from random weights on the task `{config.task}` ({config.kind}) by aang.

It is none of the architectures of transformers: `{WEIGHTS}` holds the encoder under `body.` and the classifier under
`head.`, `{CONFIG}` their shape and the labels, and the package `aang-vision` loads them:

```python
from pathlib import Path

from aang_core.batch.protocols import BackboneSettings
from aang_vision.exported import load_predictor

model = load_predictor(Path("path/to/this/folder"), BackboneSettings())
logits = model.logits([{{"image": numbers}}])  # {form.side**2} numbers from 0 to {form.white:g}, row by row
```

In a run directory, `aang predict` does the same for a file of images. It answers with

{labels}

The run's `report.json` holds the method, development and test results, and the auxiliary objectives, where the
method has any, with their weights (Dery et al., AANG, ICLR 2023).
"""


class ExportedImages:
    """A folder that `export_model` wrote, loaded from its files alone; a `export.Predictor`.

    :raises ModelError: where the files are missing, damaged, or do not belong together.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        try:
            raw = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
            self.config = structure(raw, Config)
            tensors = load_file(directory / WEIGHTS)
            self.body = PatchEncoder(self.config.shape)
            self.head = ImageHead(self.config.shape, self.config.outputs)
            for part, module in (("body.", self.body), ("head.", self.head)):
                state = {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
                # assigned, so that the weights keep the type that they were trained in
                module.load_state_dict(state, assign=True)
        except (OSError, ValueError, SafetensorError, BaseValidationError, RuntimeError) as cause:
            raise ModelError(f"{directory} holds no model that can be loaded: {cause}") from cause
        self.kind, self.label_names = self.config.kind, self.config.label_names
        self.body.to(device).eval()
        self.head.to(device).eval()

    @torch.no_grad()
    def logits(self, examples: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """Each image's logits [C] on the CPU, in fp32.

        :raises TaskError: for images of another format.
        """
        form = self.config.shape.form
        rows = image_rows(form, examples, [Origin("", i, 0) for i in range(len(examples))])
        found: list[Tensor] = []
        for start in range(0, len(rows), _EVAL_ROWS):
            hidden = encode(self.body, plain_batch(rows[start : start + _EVAL_ROWS]))
            chosen = torch.arange(len(hidden.offsets) - 1, device=hidden.states.device)
            found += self.head(hidden, chosen).float().cpu()
        return found


def load_predictor(directory: Path, settings: BackboneSettings) -> ExportedImages:
    """An exported model that answers; only the device of the settings matters.

    :raises ModelError: where the files cannot be loaded, or there is no such device.
    """
    return ExportedImages(directory, device_named(settings.device))
