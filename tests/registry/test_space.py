"""Spaces: by name, from a file, with more primitives; every fault of a file at once."""

from __future__ import annotations

import attrs
import pytest
from _plugins import data, output, registry_of, representation, transform

from aang_core.errors import ConfigError
from aang_core.registry.discovery import FailedPlugin, Provenance
from aang_core.registry.records import Block, Space
from aang_core.registry.spaces import resolve_space

BLOCK = Block(data=["task"], transform=["mask"], representation=["both-ways"], output=["denoise"])
REGISTRY = registry_of(
    data("task"),
    data("other"),
    transform("mask"),
    transform("no-op"),
    representation("both-ways"),
    output("denoise"),
    Space(name="small", summary="One objective", blocks=[BLOCK]),
    Space(name="twice", summary="Two blocks", blocks=[BLOCK, attrs.evolve(BLOCK, data=["other"])]),
    Space(name="broken", summary="", blocks=[attrs.evolve(BLOCK, transform=["gone"])]),
)
GOOD = """
summary = "mine"
optional = ["other"]
[[block]]
data = ["task", "other"]
transform = ["mask", "mask"]
representation = ["both-ways"]
output = ["denoise"]
"""


def _write(tmp_path, text, name="My Space.toml"):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return str(path)


def test_a_registered_name_is_found():
    assert resolve_space("small", REGISTRY).blocks == (BLOCK,)


def test_a_file_is_read_and_named_after_itself(tmp_path):
    space = resolve_space(_write(tmp_path, GOOD), REGISTRY)
    assert (space.name, space.summary, space.optional) == ("my-space", "mine", {"other"})
    assert space.blocks[0].data == ("task", "other")
    assert space.blocks[0].transform == ("mask",), "a name counts once"


def test_more_primitives_go_to_their_stage_in_every_block():
    space = resolve_space("twice", REGISTRY, ["no-op", "mask"])
    assert [block.transform for block in space.blocks] == [("mask", "no-op")] * 2
    assert [block.data for block in space.blocks] == [("task",), ("other",)]


def test_an_unknown_space_says_which_is_close():
    with pytest.raises(ConfigError) as error:
        resolve_space("smal", REGISTRY)
    assert str(error.value) == (
        "unknown space 'smal'; did you mean 'small'? (see `aang list-spaces`); "
        "or give a TOML file of blocks"
    )


def test_an_unknown_primitive_says_where_and_which_plugin_failed():
    origin = Provenance(plugin="lost", distribution="lost-dist", version="3")
    failed = FailedPlugin(provenance=origin, cause="ImportError: x")
    registry = attrs.evolve(REGISTRY, failed=(failed,))
    with pytest.raises(ConfigError) as error:
        resolve_space("broken", registry)
    assert "space 'broken', block 1, transform: unknown primitive 'gone'" in str(error.value)
    assert "plugin 'lost' (lost-dist 3) failed to import: ImportError: x" in str(error.value)


def test_an_unknown_addition_is_an_error():
    with pytest.raises(ConfigError, match="--with: unknown primitive 'masc'; did you mean 'mask'"):
        resolve_space("small", REGISTRY, ["masc"])


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["at least one [[block]] table"]),
        ("block = 3", ["at least one [[block]] table"]),
        ("[[block]]\ndata=['task'", ["is not valid TOML"]),
        (GOOD.replace('"mine"', "3"), [":2: `summary` must be a text (got 3)"]),
        (GOOD + "weight = 1", [":9: `block[0].weight` is no setting"]),
        ("optinal = []" + GOOD, ["`optinal` is no setting; did you mean 'optional'?"]),
        (
            GOOD.replace('["denoise"]', '"denoise"'),
            [":8: `block[0].output` must be a list of at least"],
        ),
        (GOOD.replace('output = ["denoise"]', ""), [":4: `block[0].output` is missing"]),
        (GOOD.replace('optional = ["other"]', 'optional = ["x"]'), ["`optional` lists 'x'"]),
        ('name = "Not Kebab"' + GOOD, ["names are kebab-case"]),
        (
            GOOD.replace("both-ways", "denoise").replace('["mask", "mask"]', '["masq"]'),
            [
                "block 1, transform: unknown primitive 'masq'; did you mean 'mask'?",
                "block 1, representation: 'denoise' belongs to the stage output",
            ],
        ),
    ],
)
def test_a_malformed_file_is_refused_with_every_fault(tmp_path, text, faults):
    path = _write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        resolve_space(path, REGISTRY)
    assert path in str(error.value)
    for fault in faults:
        assert fault in str(error.value)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the space file .*gone\.toml"):
        resolve_space(str(tmp_path / "gone.toml"), REGISTRY)


def test_a_space_suggests_settings_that_a_run_may_overrule():
    """What a space brings is a default: the run's own settings go before it, and fine-tuning takes none of it."""
    from aang_core.config.settings import RunConfig
    from aang_core.registry.registry import load_registry
    from aang_core.registry.spaces import suggestions

    suggest = suggestions(load_registry())
    plain = RunConfig.from_mapping({"space": "uda"}, suggest=suggest)
    assert plain.method == "static"
    assert plain.training.mean_evaluation == "best"
    assert plain.primitives["agree"]["gate"] == "fixed"
    own = {
        "space": "uda",
        "method": "aang",
        "training": {"final_epochs": 3},
        "primitives": {"agree": {"threshold": 0.9}},
    }
    ruled = RunConfig.from_mapping(own, suggest=suggest)
    assert ruled.method == "aang"
    assert ruled.training.final_epochs == 3
    assert ruled.training.mean_evaluation == "best"
    assert ruled.primitives["agree"] == {**plain.primitives["agree"], "threshold": 0.9}
    tuned = RunConfig.from_mapping({"space": "uda", "method": "finetune"}, suggest=suggest)
    assert tuned == RunConfig.from_mapping({"space": "uda", "method": "finetune"})
