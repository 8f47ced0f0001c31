"""An exported model as ONNX: ``model.onnx`` with tokenizer and configuration, for runtimes without torch.

B texts, T positions of the longest, C logits.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from aang_core.errors import ModelError
from aang_text.encoder.checkpoint import first_line, quiet
from aang_text.encoder.exported import ExportedModel, load_predictor

if TYPE_CHECKING:
    from aang_core.batch.protocols import BackboneSettings

MODEL = "model.onnx"
TOLERANCE = 1e-4
_NEEDS = ("onnx", "onnxscript", "onnxruntime")
_ROWS = 32
_ONE_FILE = 1_800_000_000
"""Bytes of parameters above which the format wants a second file for them."""


class _Logits(nn.Module):
    """The model as a function of its inputs in their order, [B, T] each; returns its logits alone."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def export_onnx(
    model: Path, out: Path, examples: Sequence[Mapping[str, Any]], settings: BackboneSettings
) -> float:
    """Write the folder `out` and prove it: run from its file, the model gives the same logits for `examples`.

    :return: the largest gap between two logits, relative to the largest logit (at least 1).
    :raises ModelError: where a library is missing, the family cannot be exported, or the gap is more than 1e-4; nothing
        is left then.
    """
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise ModelError(
            f"an export to ONNX needs {', '.join(_NEEDS)}; not installed: {', '.join(missing)}. "
            "Install them: pip install 'aang[onnx]'"
        )
    found = load_predictor(model, attrs.evolve(settings, device="cpu"))
    out.mkdir(parents=True)
    try:
        names = _write(found, out / MODEL, examples)
        gap = _gap(found, out / MODEL, names, examples)
        if not gap <= TOLERANCE:
            raise ModelError(
                f"the logits of {MODEL} differ from the model's by {gap:.1e} (at most {TOLERANCE:.0e}); "
                "nothing was exported"
            )
        found.tokens.tokenizer.save_pretrained(out)
        found.model.config.save_pretrained(out)
    except BaseException:
        shutil.rmtree(out)
        raise
    return gap


def _write(
    found: ExportedModel, path: Path, examples: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Trace the model on two texts and write it; returns the names of its inputs."""
    padded = next(iter(found.tokens.padded([*examples, *examples][:2], 2)))
    names = tuple(padded)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    size = sum(p.numel() * p.element_size() for p in found.model.parameters())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it names each library it lacks
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(found.model, names).eval(),
                tuple(padded[name] for name in names),
                str(path),
                input_names=list(names),
                output_names=["logits"],
                dynamic_shapes=(tuple(free for _ in names),),
                dynamo=True,
                external_data=size > _ONE_FILE,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as cause:
        kind = type(found.model).__name__
        raise ModelError(f"{kind} cannot be exported to ONNX: {first_line(cause)}") from cause
    return names


@torch.no_grad()
def _gap(
    found: ExportedModel, path: Path, names: Sequence[str], examples: Sequence[Mapping[str, Any]]
) -> float:
    """The largest difference of two logits at positions that hold something, relative to the largest logit."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    gap, largest = 0.0, 1.0
    for padded in found.tokens.padded(examples, _ROWS):
        ours = found.model(**padded).logits
        [other] = session.run(None, {name: padded[name].numpy() for name in names})
        theirs = torch.from_numpy(other)
        if found.kind == "token":
            held = padded["attention_mask"].bool()
            ours, theirs = ours[held], theirs[held]
        gap = max(gap, float((ours - theirs).abs().max()))
        largest = max(largest, float(ours.abs().max()))
    return gap / largest
