"""The public contract kit: checks the rules for primitives on a tiny real encoder.

In a plugin's own tests::

    from aang_core import load_registry
    from aang_core.testing import check_primitive, tiny_binding

    def test_reverse(tmp_path):
        record = load_registry().primitive("reverse")
        check_primitive(record, tiny_binding(record, tmp_path))

A broken contract is an `AssertionError` that names the primitive, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aang_core.batch.protocols import Binding
from aang_core.check.contracts.output import check_output
from aang_core.check.contracts.representation import check_representation
from aang_core.check.contracts.source import check_source
from aang_core.check.contracts.tiny_data import tiny_binding, tiny_packed, tiny_source, tiny_task
from aang_core.check.contracts.tiny_encoder import tiny_backbone
from aang_core.check.contracts.transform import check_transform
from aang_core.registry.records import Primitive

__all__ = [
    "check_output",
    "check_primitive",
    "check_representation",
    "check_source",
    "check_transform",
    "tiny_backbone",
    "tiny_binding",
    "tiny_packed",
    "tiny_source",
    "tiny_task",
]

_CHECKS: Mapping[str, Callable[[Primitive, Binding], None]] = {
    "data": check_source,
    "transform": check_transform,
    "representation": check_representation,
    "output": check_output,
}


def check_primitive(record: Primitive, binding: Binding) -> None:
    """Check one primitive against the contract of its stage.

    :raises AssertionError: where it breaks it.
    """
    _CHECKS[record.stage](record, binding)
