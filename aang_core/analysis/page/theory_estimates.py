"""The stability bound of a finished run: what Theorem E.5 needs, estimated from what ``history.jsonl`` holds.

The theorem assumes SGD and losses in [0, 1]. A run has neither, so use the numbers only to compare runs with each
other. Each number comes with a line that says how it was estimated (`lines`).
"""

from __future__ import annotations

import numpy as np

from aang_core.analysis.history import History, Series, mean_of, pooled, smoothed
from aang_core.analysis.page.story import Story
from aang_core.analysis.theory import StabilityBound, StabilitySetting, stability_bound
from aang_core.errors import RunError


def dissimilarities(history: History, cosines: bool) -> Series:
    """[S] ‖∇f_a − ∇f_e‖, from norms and from the cosines of both with the dev gradient V.

    ``f_a = Σ w_k f_k``. Its norm is taken as ``√Σ (w_k ‖g_k‖)²`` (gradients of different objectives taken as
    orthogonal), its cosine with V as ``Σ w_k ‖g_k‖ cos_k / ‖g_a‖``, and the cosine between f_a and f_e as the product
    of both with V: what they share, they share with V. Without cosines f_a and f_e are taken as orthogonal.
    """
    auxiliary, own = auxiliary_norms(history), history.end_task["norms"]
    shared: Series = np.zeros(len(history))
    if cosines:
        parts = np.nan_to_num(history.weights * history.norms * history.alignments)
        along = np.clip(parts.sum(axis=1) / np.where(auxiliary > 0, auxiliary, np.inf), -1, 1)
        shared = along * np.nan_to_num(history.end_task["alignments"])
    return np.sqrt(auxiliary**2 + own**2 - 2 * auxiliary * own * shared)


def auxiliary_norms(history: History) -> Series:
    """[S] ``√Σ (w_k ‖g_k‖)²`` over the objectives of each step."""
    parts = np.nan_to_num(history.weights * history.norms)
    norms: Series = np.sqrt((parts**2).sum(axis=1))
    return norms


def smoothness(norms: Series, lr: Series) -> float:
    """β from below: the median of ``|‖g_{t+1}‖ − ‖g_t‖| / (η_t ‖g_t‖)`` over smoothed norms.

    The secant bound ``‖g_{t+1} − g_t‖ ≤ β ‖θ_{t+1} − θ_t‖`` with the difference of norms for the norm of the
    difference, and the length of a plain gradient step for that of the step; NaN where the record has no two such
    steps.
    """
    level = smoothed(norms)
    length = lr[:-1] * level[:-1]
    usable = np.isfinite(level[1:]) & np.isfinite(length) & (length > 0)
    if not usable.any():
        return float("nan")
    return float(np.median(np.abs(np.diff(level))[usable] / length[usable]))


def setting_of(story: Story) -> StabilitySetting:
    """What the bound depends on, for this run.

    :raises RunError: where the run computed no gradient norms, as every method but `aang` and `tartan`, or does not say
        how many labelled rows it trained on.
    """
    history = pooled(story.histories)
    own, auxiliary = history.end_task["norms"], auxiliary_norms(history)
    if not story.searched or not np.isfinite(own).any():
        raise RunError(
            f"{story.run.path} ({story.run.report['method']}) recorded no gradient norms, which the stability bound "
            "is estimated from; the methods that compare gradients with dev's (aang, tartan) do"
        )
    cosines = story.run.config.meta.alignment == "cosine"
    seeds = len(story.histories)
    read = story.run.cost("rows") - story.run.cost("labelled_rows")
    per_seed = [_smoothnesses(own_history) for own_history in story.histories]
    return StabilitySetting(
        end_task_share=float(mean_of(history.end_task["weights"])),
        end_task_rows=max(1, round(_train_rows(story))),
        auxiliary_rows=round(read),
        steps=max(1, round(len(history) / seeds)),
        step_size=float(np.nanmax(history.lr * history.steps)),
        lipschitz=float(max(np.nanmax(own), auxiliary.max())),
        end_task_smoothness=float(np.mean([first for first, _ in per_seed])),
        auxiliary_smoothness=float(np.mean([second for _, second in per_seed])),
        dissimilarity=float(np.nanmax(dissimilarities(history, cosines))),
    )


def _train_rows(story: Story) -> float:
    """Labelled rows that a seed trained on, the mean over seeds.

    Reports of earlier versions do not hold them. There the audit says it, which read the task's own splits.
    """
    run = story.run
    known = [seed.get("train_rows") for seed in run.report["seeds"]]
    if all(known):
        return float(np.mean(known))
    if run.config.split_anew:
        raise RunError(
            f"{run.path} was split anew for each seed, and its report does not say how many labelled rows a seed "
            "trained on (`train_rows`), which the stability bound needs; reports of this version do: run it again"
        )
    return float(
        run.config.train_rows or run.report.get("audit", {}).get("splits", {}).get("train", 0)
    )


def _smoothnesses(history: History) -> tuple[float, float]:
    own = smoothness(history.end_task["norms"], history.lr)
    return own, smoothness(auxiliary_norms(history), history.lr)


def lines(story: Story) -> list[tuple[str, str]]:
    """(quantity, value and how it was estimated), the bound last.

    :raises RunError: as in `setting_of`.
    """
    s = setting_of(story)
    bound: StabilityBound = stability_bound(s)
    sense = "above 1, so it says nothing by itself" if bound.vacuous else "below 1"
    return [
        ("λ_e", f"{s.end_task_share:.3f}, its mean over all steps"),
        ("N_e", f"{s.end_task_rows}, labelled rows that a seed trained on"),
        ("N_a", f"{s.auxiliary_rows}, auxiliary rows read by a seed, repeats counted"),
        ("γ", f"{s.gamma:.1f} = λ_e N′ / N_e"),
        ("T", f"{s.steps}, steps of a seed"),
        ("c", f"{s.step_size:.3g}, the largest learning rate times its step"),
        ("L", f"{s.lipschitz:.3g}, the largest gradient norm seen"),
        (
            "β_e, β_a",
            f"{s.end_task_smoothness:.3g}, {s.auxiliary_smoothness:.3g}, from changes of the gradient norms "
            "along plain gradient steps: lower estimates",
        ),
        (
            "Δ",
            f"{s.dissimilarity:.3g}, the largest ‖∇f_a − ∇f_e‖, from norms and alignments with the dev gradient",
        ),
        (
            "bound",
            f"{bound.value:.3g} with β̄ = {bound.smoothness:.3g}, ρ = {bound.drift:.3g}; {sense}",
        ),
    ]
