"""The slow copy against the running mean written out, in float64."""

import pytest
import torch
from torch import nn

from aang_core.method.slow_copy import SlowCopy


def all_rows(parameter):
    """What an optimiser without rows has changed."""


def parameters():
    draw = torch.Generator().manual_seed(0)
    shapes = {"matrix": (3, 4), "vector": (5,)}
    return {
        name: nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64))
        for name, shape in shapes.items()
    }


def test_the_copy_is_the_mean_written_out():
    own = parameters()
    copy = SlowCopy(own, 0.9)
    slow = {name: p.detach().clone() for name, p in own.items()}
    draw = torch.Generator().manual_seed(1)
    for step in range(200):
        for parameter in own.values():
            parameter.data += torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        copy.update(all_rows)
        decay = min(0.9, (1 + step) / (10 + step))
        slow = {n: decay * slow[n] + (1 - decay) * own[n].detach() for n in own}
    for name in own:
        torch.testing.assert_close(copy.mean[name], slow[name], rtol=1e-12, atol=1e-12)


def test_a_table_by_rows_is_the_same_copy_to_the_bit():
    """Also where the rows of an earlier optimiser are still apart, and where a later step changed all."""
    draw = torch.Generator().manual_seed(3)
    table = nn.Parameter(torch.randn(9, 3, generator=draw))
    other = nn.Parameter(table.detach().clone())
    ours, plain = SlowCopy({"table": table}, 0.9), SlowCopy({"table": other}, 0.9)
    for rows in ([1, 4], [4], [1, 4, 7], [0], None, [2], [], [8, 2]):
        moved = slice(None) if rows is None else torch.tensor(rows, dtype=torch.long)
        for parameter in (table, other):
            parameter.data[moved] += 0.25
        ours.update(lambda _, rows=rows, moved=moved: None if rows is None else moved)
        plain.update(all_rows)
        assert torch.equal(ours.mean["table"], plain.mean["table"])
    ours.load({"table": plain.mean["table"] + 1}, ours.steps)
    plain.load({"table": plain.mean["table"] + 1}, plain.steps)
    ours.update(lambda _: torch.tensor([3]))
    plain.update(all_rows)
    assert torch.equal(ours.mean["table"], plain.mean["table"])


def test_the_decay_begins_low_so_that_the_start_is_forgotten():
    own = {"p": nn.Parameter(torch.zeros(1, dtype=torch.float64))}
    copy = SlowCopy(own, 0.999)
    own["p"].data.fill_(1.0)
    copy.update(all_rows)
    assert float(copy.mean["p"]) == pytest.approx(0.9)  # a decay of 1 / 10


def test_the_model_is_the_copy_inside_the_block_and_itself_after_it_also_when_it_fails():
    layer = nn.Linear(2, 2)
    copy = SlowCopy(dict(layer.named_parameters()), 0.5)
    before = layer.weight.detach().clone()
    layer.weight.data += 1
    changed, place = layer.weight.detach().clone(), layer.weight.data_ptr()
    with copy.in_place():
        assert torch.equal(layer.weight, before)
        assert isinstance(layer.weight, nn.Parameter)
    assert torch.equal(layer.weight, changed)
    assert layer.weight.data_ptr() == place, "nothing was copied"
    with pytest.raises(RuntimeError, match="broken"), copy.in_place():
        raise RuntimeError("broken")
    assert torch.equal(layer.weight, changed)
    assert torch.equal(copy.mean["weight"], before)


def test_a_loaded_copy_goes_on_bit_for_bit():
    own = parameters()
    one = SlowCopy(own, 0.9)
    for _ in range(3):
        own["vector"].data += 0.3
        one.update(all_rows)
    other = SlowCopy(own, 0.9)
    other.load({name: mean.clone() for name, mean in one.mean.items()}, one.steps)
    own["vector"].data -= 1
    one.update(all_rows)
    other.update(all_rows)
    assert all(torch.equal(one.mean[name], other.mean[name]) for name in own)
