"""Registries made of records alone, and plugin distributions written into a folder."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

from aang_core.registry.discovery import Provenance
from aang_core.registry.records import (
    DataSource,
    NamedObjective,
    Output,
    Primitive,
    Record,
    Representation,
    Space,
    Transform,
)
from aang_core.registry.registry import Registered, Registry

ORIGIN = Provenance(plugin="synthetic", distribution="synthetic-dist", version="1.0")
FACTORY = "nowhere:nothing"


def data(name: str, **declared: object) -> DataSource:
    return DataSource(name=name, summary="", factory=FACTORY, **declared)


def transform(name: str, **declared: object) -> Transform:
    return Transform(name=name, summary="", factory=FACTORY, **declared)


def representation(name: str, **declared: object) -> Representation:
    return Representation(name=name, summary="", factory=FACTORY, **declared)


def output(name: str, **declared: object) -> Output:
    return Output(name=name, summary="", factory=FACTORY, **declared)


def registry_of(*records: Record | Space | NamedObjective) -> Registry:
    """A registry that holds exactly these records."""
    entries = [Registered(record=record, provenance=ORIGIN) for record in records]

    def table(kind: type) -> dict[str, Registered]:
        return {e.record.name: e for e in entries if isinstance(e.record, kind)}

    return Registry(
        primitives=table(Primitive),
        spaces=table(Space),
        backbones={},
        tasks={},
        selectors={},
        loggers={},
        weightings={},
        named={e.record.objective: (e.record.name,) for e in entries if _is_named(e.record)},
        plugins=(),
        failed=(),
    )


def _is_named(record: object) -> bool:
    return isinstance(record, NamedObjective)


def write_distribution(
    folder: Path, distribution: str, version: str, points: dict[str, str], **modules: str
) -> None:
    """Lay down what an installer would: modules and the metadata of one distribution."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, "utf-8")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", "utf-8"
    )
    lines = [f"{name} = {module}" for name, module in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[aang]", *lines, ""]), "utf-8")


def points_in(*folders: Path) -> list[EntryPoint]:
    """The entry points of the distributions in these folders, as they come."""
    found = distributions(path=[str(folder) for folder in folders])
    return [p for dist in found for p in dist.entry_points if p.group == "aang"]


def importable(folder: Path, monkeypatch: object) -> None:
    """Put a folder on the path for one test, and forget afterwards what was imported from it."""
    monkeypatch.syspath_prepend(str(folder))
    for module in folder.glob("*.py"):
        # setitem, then delitem: monkeypatch restores the absence when the test ends
        monkeypatch.setitem(sys.modules, module.stem, None)
        monkeypatch.delitem(sys.modules, module.stem)


PLUGIN = '''
"""Turns things around."""
from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import Transform

@hookimpl
def aang_transforms():
    return [Transform(name="{name}", summary="Reverses", factory="{module}:Reverse")]
'''
