"""Histories read back, and their means against plain loops."""

import json
import math

import numpy as np
import pytest
from _runs import IDS, history_lines

from aang_core.analysis.history import (
    END_TASK,
    ENOUGH,
    alignment_bands,
    alignment_estimates,
    early_and_late,
    history_of,
    mean_of,
    pooled,
    read_history,
    smoothed,
)
from aang_core.errors import RunError
from aang_core.rundir.report import strict_line

LINES = history_lines(0)
HISTORY = history_of(LINES)


def test_what_was_not_observed_is_nan_and_the_rest_is_as_written(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES), "utf-8")
    history = read_history(path)
    assert history.ids == tuple(sorted(IDS))
    for s, line in enumerate(LINES):
        for k, id_ in enumerate(history.ids):
            for name in ("losses", "weights", "alignments", "norms"):
                found, expected = getattr(history, name)[s, k], line[name].get(id_)
                assert math.isnan(found) if expected is None else found == expected
    assert history.end_task["weights"].tolist() == [line["end_task_weight"] for line in LINES]


def test_relative_weights_are_one_where_all_weigh_the_same():
    even = [{**line, "weights": dict.fromkeys(line["weights"], 1 / 3)} for line in LINES]
    relative = history_of(even).relative_weights
    assert np.allclose(relative[np.isfinite(relative)], 1.0)
    names, shares = history_of(even).stage_shares("transform")
    assert names == ("bert-op", "mask", "no-op", "replace")
    assert np.allclose(shares, 1 / 4)


def test_stage_shares_follow_the_weights_and_sum_to_one():
    names, shares = HISTORY.stage_shares("transform")
    assert np.allclose(shares.sum(axis=1), 1.0)
    assert names[int(shares[-1].argmax())] == "bert-op"
    assert names[int(shares[-1].argmin())] == "mask"


def test_running_means_are_those_of_a_loop():
    values = HISTORY.weights
    expected = np.full_like(values, np.nan)
    for s in range(len(values)):
        for k in range(values.shape[1]):
            window = values[max(0, s - 3) : s + 4, k]
            if np.isfinite(window).any():
                expected[s, k] = np.nanmean(window)
    assert np.allclose(smoothed(values, 7), expected, equal_nan=True)
    assert math.isnan(mean_of(np.array([np.nan, np.nan])))


def test_alignments_have_standard_errors_and_harm_is_an_alarm():
    found = {e.id: e for e in alignment_estimates(HISTORY)}
    assert next(iter(found)) == END_TASK
    values = [line["alignments"][IDS[1]] for line in LINES if IDS[1] in line["alignments"]]
    assert found[IDS[1]].mean == pytest.approx(np.mean(values))
    assert found[IDS[1]].count == len(values)
    assert found[IDS[1]].error >= np.std(values, ddof=1) / math.sqrt(len(values)) * 0.999
    assert [id_ for id_, e in found.items() if e.harmful] == [IDS[1]]


def test_a_correlated_series_is_less_certain_than_an_independent_one():
    random = np.random.default_rng(0)
    drift = np.cumsum(random.normal(size=200)).tolist()
    calm = random.permutation(drift).tolist()
    errors = []
    for series in (drift, calm):
        lines = [{**LINES[0], "alignments": {IDS[0]: v}, "weights": {IDS[0]: 1.0}} for v in series]
        (estimate,) = [e for e in alignment_estimates(history_of(lines)) if e.id == IDS[0]]
        errors.append(estimate.error)
    assert errors[0] > 3 * errors[1]


def test_early_and_late_windows_are_the_first_tenth_and_the_last_half():
    relative = HISTORY.relative_weights
    rows = early_and_late(HISTORY)
    assert rows[0][0] == IDS[0]
    for id_, early, late in rows:
        column = relative[:, HISTORY.ids.index(id_)]
        assert early == pytest.approx(np.nanmean(column[:6]), nan_ok=True)
        assert late == pytest.approx(np.nanmean(column[30:]))


def test_pooling_keeps_every_step_of_every_seed():
    both = pooled([HISTORY, history_of(history_lines(1, steps=10))])
    assert len(both) == 70
    assert np.allclose(both.weights[:60], HISTORY.weights, equal_nan=True)


def test_a_history_without_auxiliaries_has_no_columns():
    plain = history_of([{**line, "weights": {}, "losses": {END_TASK: 1.0}} for line in LINES])
    assert plain.ids == ()
    assert plain.losses.shape == (60, 0)


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path):
    worse = {**LINES[0], "losses": {**LINES[0]["losses"], END_TASK: math.inf}, "lr": math.nan}
    line = strict_line({**worse, "skipped": ("end-task",)})
    assert "NaN" not in line
    assert "Infinity" not in line
    path = tmp_path / "history.jsonl"
    path.write_text(line + strict_line(LINES[1]), "utf-8")
    found = read_history(path)
    assert np.isnan(found.end_task["losses"]).tolist() == [True, False]
    assert np.isnan(found.lr).tolist() == [True, False]
    assert json.loads(strict_line(LINES[1])) == LINES[1]


def test_damage_is_named_with_its_line(tmp_path):
    path = tmp_path / "history.jsonl"
    with pytest.raises(RunError, match="cannot read"):
        read_history(path)
    path.write_text(json.dumps(LINES[0]) + "\n{half", "utf-8")
    with pytest.raises(RunError, match=r"history\.jsonl:2 is damaged"):
        read_history(path)
    path.write_text('{"step": 1}\n', "utf-8")
    with pytest.raises(RunError, match="damaged"):
        read_history(path)


def test_bands_are_the_estimates_of_all_steps_until_then():
    histories = [history_of(LINES), history_of(LINES[: len(LINES) // 2])]
    found = alignment_bands(histories)
    assert found.steps[-1] == len(LINES)
    for place in (0, len(found.steps) // 2, -1):
        step = int(found.steps[place])
        until = pooled([history_of(LINES[:step]), history_of(LINES[: min(step, len(LINES) // 2)])])
        for estimate in alignment_estimates(until):
            if estimate.id == END_TASK:
                continue
            at = found.ids.index(estimate.id)
            if estimate.count < ENOUGH:
                assert np.isnan(found.mean[place, at])
                continue
            assert found.mean[place, at] == pytest.approx(estimate.mean)
            assert found.error[place, at] == pytest.approx(estimate.error)
            assert found.certain[place, at] == (estimate.helpful or estimate.harmful)
