"""The schedule against its shape; and AdamW by rows against AdamW."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.method.gradient.row_gradients import of_rows, tables_of
from aang_core.train.optimizer import (
    RowAdamW,
    linear_warmup_decay,
    optimizer_for,
    optimizer_tensors,
    restore_optimizer,
)

totals = st.integers(1, 500)
shares = st.floats(0.0, 1.0)


@given(total=totals, warmup=shares)
def test_it_stays_within_its_bounds_and_every_step_moves(total, warmup):
    factors = [linear_warmup_decay(step, total, warmup) for step in range(total)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    assert max(factors) == 1.0


@given(total=totals, warmup=shares)
def test_it_is_zero_once_the_run_is_over(total, warmup):
    assert linear_warmup_decay(total, total, warmup) == 0.0
    assert linear_warmup_decay(total + 7, total, warmup) == 0.0


@given(total=totals, warmup=shares)
def test_it_is_linear_on_both_sides_of_the_peak(total, warmup):
    factors = np.array([linear_warmup_decay(step, total, warmup) for step in range(total + 1)])
    rising = round(warmup * total)
    assert np.allclose(factors[:rising], np.arange(1, rising + 1) / max(rising, 1), atol=1e-12)
    if rising < total:
        assert np.allclose(factors[rising:], np.linspace(1.0, 0.0, total - rising + 1), atol=1e-12)


def test_without_warmup_it_starts_at_the_full_rate():
    assert linear_warmup_decay(0, 10, 0.0) == 1.0


@pytest.mark.parametrize(
    ("step", "total", "warmup"), [(-1, 10, 0.1), (0, 0, 0.1), (0, 10, -0.1), (0, 10, 1.5)]
)
def test_what_makes_no_schedule_is_refused(step, total, warmup):
    with pytest.raises(ConfigError, match=f"step={step}, total={total}, warmup={warmup}"):
        linear_warmup_decay(step, total, warmup)


def table_and_optimizer(size=12, kind=RowAdamW, decay=0.0):
    """A table [size, 3] with gradients at every row of `step_gradients`, and its optimiser."""
    generator = torch.Generator().manual_seed(3)
    table = nn.Parameter(torch.randn(size, 3, generator=generator, dtype=torch.float64))
    groups = [{"params": [table], "lr": 0.01, "weight_decay": decay}]
    more = {"tables": [table]} if kind is RowAdamW else {}
    return table, kind(groups, **more, betas=(0.9, 0.99))


def gradient(step, rows, size=12):
    generator = torch.Generator().manual_seed(step)
    found = torch.zeros(size, 3, dtype=torch.float64)
    found[rows] = torch.randn(len(rows), 3, generator=generator, dtype=torch.float64)
    return found


FEW = [[1, 4], [], [4, 7], [0], [1], []]
MORE = [*FEW, list(range(8)), [2, 11]]  # the table is a whole from the seventh step on


@pytest.mark.parametrize("sparse", [False, True], ids=["dense gradient", "gradient by rows"])
@pytest.mark.parametrize("seen", [FEW, MORE], ids=["few rows", "half of the rows and more"])
def test_a_table_by_rows_is_adamw_to_the_bit(seen, sparse):
    table, ours = table_and_optimizer()
    other, plain = table_and_optimizer(kind=torch.optim.AdamW)
    for step, rows in enumerate(seen):
        table.grad, other.grad = gradient(step, rows), gradient(step, rows)
        if sparse:  # a row twice, and one of zeros
            ids = torch.tensor([*rows, *rows, 3])
            halves = torch.cat([table.grad[ids[:-1]] / 2, table.grad.new_zeros(1, 3)])
            table.grad = of_rows(ids, halves, 12)
        ours.step()
        plain.step()
        ours.zero_grad(set_to_none=True)
        assert table.grad is None
        assert torch.equal(table, other)
    assert ours.param_groups[0]["params"] == [table]
    state, met = ours.state[table], plain.state[other]
    rows = state.get("rows", torch.arange(12))
    assert rows.tolist() == ([1, 4, 7, 0] if seen is FEW else list(range(12)))
    for moment in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(state[moment], met[moment][rows])
    assert len(ours.state) == 1


def test_rows_without_a_gradient_so_far_do_not_decay():
    table, ours = table_and_optimizer(decay=0.5)
    other, plain = table_and_optimizer(kind=torch.optim.AdamW, decay=0.5)
    before = table.detach().clone()
    for step, rows in enumerate(FEW):
        table.grad, other.grad = gradient(step, rows), gradient(step, rows)
        ours.step()
        plain.step()
    unseen = [2, 3, 5, 6, 8, 9, 10, 11]
    assert torch.equal(table[unseen], before[unseen])
    assert torch.equal(table[[1, 4]], other[[1, 4]])  # from the first step on
    torch.testing.assert_close(other[unseen], before[unseen] * (1 - 0.01 * 0.5) ** len(FEW))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["by rows", "as on a GPU"])
@pytest.mark.parametrize("cut", range(1, len(MORE)))
def test_a_table_by_rows_goes_on_from_its_saved_state(cut, elsewhere):
    table, ours = table_and_optimizer()
    whole, other = table_and_optimizer()
    for step, rows in enumerate(MORE):
        whole.grad = gradient(step, rows)
        other.step()
    for step, rows in enumerate(MORE):
        if step == cut:
            saved = optimizer_tensors(ours, {"body.t": table})
            saved = {name: tensor.clone() for name, tensor in saved.items()}
            begun, ours = table_and_optimizer()
            if elsewhere:
                ours.tables = ()  # no rows there
            with torch.no_grad():
                begun.copy_(table)
            table = begun
            restore_optimizer(ours, {"body.t": table}, saved)
        table.grad = gradient(step, rows)
        ours.step()
    assert torch.equal(table, whole)


def test_only_embeddings_that_train_on_the_cpu_go_by_rows():
    body = nn.ModuleDict({"table": nn.Embedding(8, 2), "linear": nn.Linear(2, 2)})
    table = body["table"].weight
    tables = [module.weight for module in tables_of(body)]
    assert [id(t) for t in tables] == [id(table)]
    parameters = {f"body.{name}": p for name, p in body.named_parameters()}
    training = RunConfig().training
    ours = optimizer_for(parameters, set(), training, tables=tables)
    assert [id(t) for t in ours.tables] == [id(table)]
    frozen = {name: p for name, p in parameters.items() if p is not table}
    assert optimizer_for(frozen, set(), training, tables=tables).tables == ()
    elsewhere = {name: nn.Parameter(p.to("meta")) for name, p in parameters.items()}
    there = optimizer_for(elsewhere, set(), training, tables=[elsewhere["body.table.weight"]])
    assert there.tables == ()
