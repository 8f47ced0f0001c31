"""The page that follows one batch through the nine modules: every number on it is real output of this program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aang_core.batch.stream import FusedBatch
from aang_core.config.settings import RunConfig
from aang_core.method.gradient.metagrad import Alignment, fused
from aang_core.method.step_plan import StepPlan
from aang_core.method.weights.weighting import observe, updated
from aang_core.processes import Processes
from aang_core.registry.legality import Illegal, enumerate_objectives
from aang_core.registry.registry import Registry
from aang_core.registry.spaces import resolve_space
from aang_core.train.resolve import bind_objectives, load_backbone, resolve
from aang_core.train.session import Session, build_session

SETTINGS = {
    "task": "docs/examples/cats",
    "model": "scratch:tiny",
    "space": "td",
    "training": {"end_task_rows": 2, "auxiliary_rows": 4},
    "meta": {
        "rule": "aang",
        "objectives_per_step": 2,
        "dev_rows": 4,
        "dev_head_rows": 4,
        "row_shares": "weight",
    },
}
SEED = 23  # draws two objectives that have little in common
COLUMN = 44  # characters for an objective's name


def page(registry: Registry) -> str:
    """The document, as Markdown."""
    return "\n".join(_lines(registry)) + "\n"


def _lines(registry: Registry) -> Iterator[str]:
    config = RunConfig.from_mapping(SETTINGS)
    resolved = resolve(config, registry)
    backbone = load_backbone(resolved, SEED)
    objectives = bind_objectives(resolved, resolved.task, backbone, SEED)
    session = build_session(config, SEED, resolved.task, backbone, objectives, Processes())
    yield from _before(session, registry, config)
    plan = session.planner.plan(0, session.weights)
    _, batch = session.planner.batch(plan, Processes())
    assert batch is not None
    assert session.dev is not None
    yield from _batch(session, plan, batch)
    for part in (backbone.body, session.model.heads):
        part.eval()  # without dropout, so that the numbers are those of the weights alone
    yield from _hidden(session, batch)
    towards = session.dev.at(0, None)
    result = fused(session.model, batch, plan.coefficients, towards)
    yield from _losses(session, plan, result.losses)
    yield from _alignment(session, plan, result.alignment)
    seen = observe(session.weights, result.alignment, plan.sampled, plan.weights, config.meta)
    after = updated(seen, session.factors, config.meta)
    yield from _weights(session, after.weights(session.factors), after.end_task_weight)


def _before(session: Session, registry: Registry, config: RunConfig) -> Iterator[str]:
    task, space = session.task, resolve_space(config.space, registry)
    verdicts = enumerate_objectives(space, registry)
    illegal = next(v for v in verdicts if isinstance(v, Illegal))
    rows = {split: len(data) for split, data in task.splits.items()}
    yield from _INTRODUCTION
    yield from _step(
        1, "The configuration", "config/settings.py", "`RunConfig`, every default filled in."
    )
    yield from _text(
        f"method {config.method}, rule {config.meta.rule}, space {config.space}, encoder {config.model}",
        f"rows of a step: {config.training.end_task_rows} of the end-task, "
        f"{config.training.auxiliary_rows} shared by {config.meta.objectives_per_step} objectives",
    )
    yield from _step(2, "The task", "data/task.py", "`Task`: splits, labels, the measure.")
    yield from _text(
        ", ".join(f"{count} {split} rows" for split, count in rows.items()),
        f"classes {', '.join(task.label_names)}; chosen by {task.metric}",
        f"first text: {task.splits['train'][0]['text']}",
    )
    yield from _step(
        3, "The registry", "registry/registry.py", "named primitives and who brings them."
    )
    yield from _text(
        *(
            f"{stage:15}" + ", ".join(getattr(space.blocks[0], stage))
            for stage in ("data", "transform", "representation", "output")
        )
    )
    yield from _step(
        4, "The objectives", "registry/legality.py", "what is legal, and for the rest the reason."
    )
    yield from _text(
        f"{len(session.factors.ids)} of {len(verdicts)} combinations are legal; one that is not:",
        illegal.objective.id,
        illegal.reason,
    )


def _batch(session: Session, plan: StepPlan, batch: FusedBatch) -> Iterator[str]:
    yield from _step(
        5,
        "The batch",
        "batch/packing.py",
        "`FusedBatch`: two objectives are drawn; their rows and the end-task's become one packed stream.",
    )
    lines = [f"{'segment':{COLUMN}}rows  positions  targets  multiplier"]
    for name, segment, rows, part in zip(
        _names(session, plan), batch.segments, plan.all_rows, plan.coefficients, strict=True
    ):
        positions = batch.offsets[segment.row_stop] - batch.offsets[segment.row_start]
        lines.append(
            f"{name:{COLUMN}}{rows:4}  {int(positions):9}  {segment.count:7}  {part:10.3f}"
        )
    lines += [
        "",
        f"offsets of its {len(batch.lengths)} rows: {batch.offsets.tolist()}",
        f"attention rules: {', '.join(rule.tag for rule in batch.rules)}",
        f"the first row: {batch.inputs['input_ids'][: batch.lengths[0]].tolist()}",
    ]
    yield from _text(*lines)


def _hidden(session: Session, batch: FusedBatch) -> Iterator[str]:
    with torch.no_grad():
        hidden = session.model.backbone.encode(batch)
    yield from _step(
        6,
        "The encoder",
        None,
        "`Hidden`: one state a position, from one forward pass without padding.",
    )
    parameters = sum(p.numel() for p in session.model.body().values())
    yield from _text(
        f"{parameters:,} parameters that train",
        f"states {list(hidden.states.shape)}; the first begins "
        + ", ".join(f"{value:.2f}" for value in hidden.states[0, :4].tolist()),
    )


def _losses(session: Session, plan: StepPlan, losses: Tensor) -> Iterator[str]:
    yield from _step(7, "The heads", "method/heads.py", "one mean loss for each objective.")
    total = float((losses.double() * plan.coefficients).sum())
    closing = f"with the multipliers from above the loss of the step is {total:.2f}"
    yield from _table("loss", session, plan, losses, closing)


def _alignment(session: Session, plan: StepPlan, alignment: Alignment) -> Iterator[str]:
    yield from _step(
        8,
        "The meta-gradient",
        "method/gradient/metagrad.py",
        "`Alignment`: how well each objective's gradient agrees with the dev gradient, from the same backward pass "
        "that leaves the summed gradient for the optimiser.",
    )
    closing = f"the length of the dev gradient is {float(alignment.dev_norm):.3f}"
    yield from _table("cosine", session, plan, alignment.cosines(), closing)


def _weights(session: Session, weights: Tensor, share: float) -> Iterator[str]:
    yield from _step(
        9,
        "The weights",
        "method/weights/weighting.py",
        "the next `WeightState`. All were 1/24 = 0.0417, and λ was 0.5.",
    )
    order = weights.argsort(descending=True).tolist()
    ids = session.factors.ids
    yield from _text(
        *(f"{ids[k]:{COLUMN}}{float(weights[k]):.4f}" for k in (*order[:3], *order[-2:])),
        f"λ = {share:.4f}",
    )
    yield "The optimiser takes its step. The next batch was prepared meanwhile. The loop is"
    yield "`aang_core/train/step.py`; what was recorded goes to `aang_core/rundir/report.py`."


def _names(session: Session, plan: StepPlan) -> list[str]:
    return ["end-task", *(session.factors.ids[k] for k in plan.sampled.tolist())]


def _table(
    what: str, session: Session, plan: StepPlan, values: Tensor, closing: str
) -> Iterator[str]:
    rows: Sequence[float] = values.tolist()
    names = _names(session, plan)
    yield from _text(
        f"{'':{COLUMN}}{what}",
        *(f"{name:{COLUMN}}{value:.2f}" for name, value in zip(names, rows, strict=True)),
        closing,
    )


def _step(number: int, title: str, module: str | None, out: str) -> Iterator[str]:
    where = f"`aang_core/{module}`" if module else "a backbone, from a plugin"
    yield f"## {number}. {title}"
    yield ""
    yield f"In {where}. Out: {out}"
    yield ""


def _text(*lines: str) -> Iterator[str]:
    yield "```text"
    yield from lines
    yield "```"
    yield ""


_INTRODUCTION = """# Follow one batch

Generated by `docs/generate.py`: the first step of a run on the small task of these documents
([examples/cats](examples/cats/task.toml)), with an encoder of two layers, two objectives at a time, and
dropout off. Data flows in one direction through nine modules; `docs/examples/api.py` has the same as a program.
[The method by hand](concepts.md) says why the numbers of steps 8 and 9 are what they are.

""".splitlines()
