"""The stability bound of training with auxiliary objectives, as a diagnostic (paper, Theorem E.5).

The theorem bounds how far the end-task's population risk may lie above its training risk after T steps of SGD that
draws, at each step, the end-task with probability λ_e and else the auxiliary one. The losses lie in [0, 1], so a
bound above 1 says nothing by itself. Compare its *ratios* between settings.
"""

from __future__ import annotations

import attrs

from aang_core.errors import ConfigError


@attrs.frozen(kw_only=True)
class StabilitySetting:
    """What the bound depends on. Letters are the paper's.

    :param end_task_share: λ_e in [0, 1]; the auxiliary share is λ_a = 1 − λ_e.
    :param end_task_rows: N_e, at least 1.
    :param auxiliary_rows: N_a, at least 0.
    :param steps: T, at least 1.
    :param step_size: c > 0, where the learning rate at step t is at most c / t.
    :param lipschitz: L > 0, bounds the gradient norms of both losses.
    :param end_task_smoothness: β_e > 0.
    :param auxiliary_smoothness: β_a > 0.
    :param dissimilarity: Δ ≥ 0, bounds ‖∇f_a − ∇f_e‖.
    """

    end_task_share: float
    end_task_rows: int
    auxiliary_rows: int
    steps: int
    step_size: float
    lipschitz: float
    end_task_smoothness: float
    auxiliary_smoothness: float
    dissimilarity: float

    @property
    def rows(self) -> int:
        """N′ = N_e + N_a."""
        return self.end_task_rows + self.auxiliary_rows

    @property
    def gamma(self) -> float:
        """γ = λ_e N′ / N_e: how much more often the end-task is drawn than its share of the data."""
        return self.end_task_share * self.rows / self.end_task_rows

    def __attrs_post_init__(self) -> None:
        positive = ("step_size", "lipschitz", "end_task_smoothness", "auxiliary_smoothness")
        faults = [
            f"{name} > 0 (found {getattr(self, name)})"
            for name in positive
            if not getattr(self, name) > 0
        ]
        least = {"end_task_rows": 1, "auxiliary_rows": 0, "steps": 1, "dissimilarity": 0}
        faults += [
            f"{name} >= {low} (found {getattr(self, name)})"
            for name, low in least.items()
            if not getattr(self, name) >= low
        ]
        if not 0.0 <= self.end_task_share <= 1.0:
            faults.append(f"end_task_share in [0, 1] (found {self.end_task_share})")
        if not faults and self.gamma >= self.rows:
            faults.append(
                "end_task_share < end_task_rows (one row that is always drawn has no bound)"
            )
        if faults:
            raise ConfigError("the stability bound needs " + "; ".join(faults))


@attrs.frozen
class StabilityBound:
    """The bound, and the pair (β̄, ρ) that gives it.

    :param value: of ε_stab.
    :param smoothness: β̄.
    :param drift: ρ; 0 where the bound does not depend on Δ.
    """

    value: float
    smoothness: float
    drift: float

    @property
    def vacuous(self) -> bool:
        """Whether it exceeds 1, which the losses cannot."""
        return self.value >= 1.0


def stability_bound(setting: StabilitySetting) -> StabilityBound:
    """Theorem E.5, the tighter of its two pairs (β̄, ρ).

    ``ε_stab ≤ (1 + 1/q) · (2γL²c/(N′−γ) + ρLc)^{1/(q+1)} · (γT/N′)^{q/(q+1)}`` with ``q = cβ̄``, where (β̄, ρ) is
    ``(λ*β*, (1 − λ*)(Δ + 2L))`` or ``(λ_e β_e + λ_a β_a, 0)``, β* = min(β_e, β_a) and λ* its weight. Where both
    losses are equally smooth, λ* may be either weight, and the tighter one is taken. A pair with β̄ = 0 bounds
    nothing and is left out; the second pair never is.
    """
    bounds = [_bound(setting, smoothness, drift) for smoothness, drift in _pairs(setting)]
    return min(bounds, key=lambda bound: bound.value)


def _pairs(s: StabilitySetting) -> list[tuple[float, float]]:
    parts = (
        (s.end_task_smoothness, s.end_task_share),
        (s.auxiliary_smoothness, 1.0 - s.end_task_share),
    )
    smallest = min(smoothness for smoothness, _ in parts)
    pairs = [(sum(smoothness * share for smoothness, share in parts), 0.0)]
    for smoothness, share in parts:
        if smoothness == smallest and share > 0:
            pairs.append((share * smoothness, (1.0 - share) * (s.dissimilarity + 2 * s.lipschitz)))
    return pairs


def _bound(s: StabilitySetting, smoothness: float, drift: float) -> StabilityBound:
    q = s.step_size * smoothness
    growth = 2 * s.gamma * s.lipschitz / (s.rows - s.gamma) + drift
    value = (
        (1 + 1 / q)
        * (growth * s.lipschitz * s.step_size) ** (1 / (q + 1))
        * (s.gamma * s.steps / s.rows) ** (q / (q + 1))
    )
    return StabilityBound(value, smoothness, drift)
