"""Configurations: every fault at once and with its origin, exact round trips, flags over files."""

from __future__ import annotations

import tomllib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aang_core.config.fields import described, rules_of
from aang_core.config.file import (
    build_config,
    dump_config,
    key_lines,
    load_config,
    overlaid,
    parse_settings,
)
from aang_core.config.schema import Choice, Flag, Integer, Number, Text
from aang_core.config.settings import METHODS, SECTIONS, HeadSettings, Meta, RunConfig, Training
from aang_core.errors import ConfigError


def _load(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text, "utf-8")
    return load_config(path)


def test_what_a_file_leaves_out_has_its_default(tmp_path):
    assert _load(tmp_path, "") == RunConfig()
    config = _load(tmp_path, 'space = "td"\nseeds = [1, 2]\n[meta]\nalignment = "dot"')
    expected = RunConfig(space="td", seeds=(1, 2), meta=Meta(alignment="dot"))
    assert config == expected


def test_every_fault_is_reported_with_its_line(tmp_path):
    text = (
        'spase = "td"\n'
        'method = "ang"\n'
        "seeds = []\n"
        "\n"
        "[training]\n"
        "max_steps = -5\n"
        'lr = "fast"  # a comment\n'
        "warmup = 1.5\n"
        "[meta]\n"
        "factored = 1\n"
        "enginee = 'fused'\n"
        "[external]\n"
        "in-domain = 3\n"
        "[primitives]\n"
        "mask = 0.3\n"
    )
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, text)
    message = str(error.value)
    path = tmp_path / "run.toml"
    assert message.startswith("the configuration: 10 faults\n")
    for line in (
        f"{path}:1: `spase` is no setting; did you mean 'space'?",
        f"{path}:2: `method` must be one of 'aang', 'tartan', 'static', 'finetune', "
        "'pretrain-finetune', 'probe' (got 'ang'); did you mean 'aang'?",
        f"{path}:3: `seeds` must be a list of at least one seed (got [])",
        f"{path}:6: `training.max_steps` must be a whole number of at least 1 (got -5)",
        f"{path}:7: `training.lr` must be a number above 0 (got 'fast')",
        f"{path}:8: `training.warmup` must be a number of at least 0 and at most 1 (got 1.5)",
        f"{path}:10: `meta.factored` must be true or false (got 1)",
        f"{path}:11: `meta.enginee` is no setting; did you mean 'engine'?",
        f"{path}:13: `external.in-domain` must be a text that is not empty (got 3)",
        f"{path}:15: `primitives.mask` must be a table (got 0.3)",
    ):
        assert line in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space = ", "is not valid TOML"),
        ("training = 3", "run.toml:1: `training` must be a table (got 3)"),
        ("train_rows = true", "must be a whole number of at least 0 (got True)"),
        ("seeds = [1, 1]", "must not list anything twice"),
        ("seeds = [1, -1]", "`seeds[1]` must be a whole number of at least 0 (got -1)"),
        ("seeds = 1", "must be a list of at least one seed (got 1)"),
        ("meta.dev_gradient_decay = 1.0", "must be a number of at least 0 and below 1 (got 1.0)"),
        ("training.lr = nan", "must be a number above 0 (got nan)"),
        ("training.clip = inf", "must be a number of at least 0 (got inf)"),
        ('meta.objectives_per_step = "al"', "a whole number of at least 0, or 'all' (got 'al')"),
        ('task = ""', "must be a text that is not empty"),
    ],
)
def test_one_fault_is_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*gone\.toml"):
        load_config(tmp_path / "gone.toml")


def test_the_constructor_checks_too():
    with pytest.raises(ConfigError, match="Training: `max_steps` must be a whole number"):
        Training(max_steps=0)
    with pytest.raises(ConfigError, match="RunConfig: `with` must be a list"):
        RunConfig(with_="mask")
    assert RunConfig(seeds=[3]).seeds == (3,)
    assert Training(lr=1).lr == 1.0


def test_all_objectives_have_a_word():
    raw = {"meta": {"objectives_per_step": "all"}}
    config = RunConfig.from_mapping(raw)
    assert config.meta.objectives_per_step == 0
    assert 'objectives_per_step = "all"' in dump_config(config)


def _values(rule):
    """Any value that a rule allows."""
    if isinstance(rule, Integer):
        return st.integers(rule.least, 10**6)
    if isinstance(rule, Number):
        return st.floats(
            rule.least,
            min(rule.most, 1e9),
            exclude_min=rule.without_least,
            exclude_max=rule.without_most,
        )
    if isinstance(rule, Choice):
        return st.sampled_from(rule.options)
    if isinstance(rule, Flag):
        return st.booleans()
    assert isinstance(rule, Text)
    return st.text() if rule.empty else st.text().filter(str.strip)


def _sections(record):
    return st.builds(record, **{key: _values(rule) for key, rule in rules_of(record).items()})


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
_NAMES = _TEXTS.filter(str.strip)
_CONFIGS = st.builds(
    RunConfig,
    task=_NAMES,
    model=_TEXTS,
    with_=st.lists(_NAMES, unique=True),
    method=st.sampled_from(METHODS),
    seeds=st.lists(st.integers(0, 10**9), min_size=1, unique=True),
    external=st.dictionaries(_NAMES, _NAMES),
    training=_sections(Training),
    meta=_sections(Meta),
    heads=_sections(HeadSettings),
    primitives=st.dictionaries(
        _NAMES, st.dictionaries(_NAMES, st.booleans() | st.integers(0, 9) | st.text())
    ),
)


@given(_CONFIGS)
def test_a_dumped_configuration_comes_back_equal(config):
    assert RunConfig.from_mapping(tomllib.loads(dump_config(config))) == config


def test_a_dump_is_complete():
    raw = tomllib.loads(dump_config(RunConfig()))
    assert set(raw) == {field.name.rstrip("_") for field in attrs.fields(RunConfig)}
    for name, record in SECTIONS.items():
        assert set(raw[name]) == {field.name for field in attrs.fields(record)}


def test_settings_from_flags_are_read_by_their_kind():
    flags = parse_settings(
        [
            "meta.alignment=dot",
            "training.lr=1e-3",
            "meta.factored=false",
            "meta.objectives_per_step=all",
            "seeds=3, 4",
            "task=123",
            "with=mask,no-op",
            "external.in-domain=2024",
            "primitives.mask.rate=0.3",
            "model=a=b",
        ]
    )
    config = RunConfig.from_mapping(*overlaid({}, {}, flags))
    assert config == RunConfig(
        task="123",
        model="a=b",
        seeds=(3, 4),
        with_=("mask", "no-op"),
        external={"in-domain": "2024"},
        training=Training(lr=1e-3),
        meta=Meta(alignment="dot", factored=False, objectives_per_step=0),
        primitives={"mask": {"rate": 0.3}},
    )


@pytest.mark.parametrize("text", ["meta.alignment", "=dot", "a b=c", ""])
def test_a_setting_without_key_and_value_is_an_error(text):
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_settings([text])


def test_flags_go_before_the_file_and_are_named_in_faults():
    raw = {"training": {"max_steps": 5, "lr": 0.1}, "external": {"a": "1"}}
    origins = {"training": "f:1", "training.max_steps": "f:2"}
    flags = {"training.max_steps": (-1, "--max-steps"), "external": ({"b": "2"}, "--external")}
    merged, where = overlaid(raw, origins, flags)
    assert merged == {"training": {"max_steps": -1, "lr": 0.1}, "external": {"a": "1", "b": "2"}}
    assert raw["training"]["max_steps"] == 5, "the original stays as it was"
    with pytest.raises(ConfigError, match=r"^--max-steps: `training.max_steps` must be"):
        RunConfig.from_mapping(merged, where)


def test_a_file_then_flags_then_settings(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[training]\nmax_steps = 1\neval_every = 1\npatience = 1\n", "utf-8")
    flags = {"training.max_steps": (2, "--max-steps"), "training.eval_every": (2, "--eval-every")}
    config = build_config(path, flags, ["training.max_steps=3"])
    assert config == RunConfig(training=Training(max_steps=3, eval_every=2, patience=1))
    with pytest.raises(ConfigError) as error:
        build_config(path, {"training.lr": (-1, "--lr")}, ["training.max_steps=0", "spac=td"])
    for origin in ("--lr: ", "--set training.max_steps=0: ", "--set spac=td: "):
        assert origin in str(error.value)
    assert build_config(None, {}) == RunConfig()


def test_a_flag_inside_what_is_no_table_is_an_error():
    with pytest.raises(ConfigError, match=r"--set task\.x=1: `task` is no table"):
        overlaid({"task": "a"}, {}, parse_settings(["task.x=1"]))


def test_lines_of_keys_in_every_toml_form():
    text = 'a = 1\nb.c = 2\n[t]\n"d" = [\n  3,\n]\n[t.u]  # note\ne = 1\n[[v]]\nf = 1\n[[v]]\nf = 2'
    lines = key_lines(text)
    expected = {"a": 1, "b": 2, "b.c": 2, "t": 3, "t.d": 4, "t.u": 7, "t.u.e": 8, "v": 9}
    expected |= {"v[0]": 9, "v[0].f": 10, "v[1]": 11, "v[1].f": 12}
    assert lines == expected


def test_tables_of_lists_have_their_own_lines():
    text = "[[v]]\n[v.u]\na = 1\n[[v.w]]\n[[v]]\n[v.u]\na = 2\n[[v.w]]\n[[v.w]]\nb = 1"
    lines = key_lines(text)
    assert (lines["v[0].u.a"], lines["v[1].u.a"]) == (3, 7)
    assert (lines["v[0].w[0]"], lines["v[1].w[1].b"]) == (4, 10)


def test_settings_describe_themselves_for_help_and_options():
    found = {setting.key: setting for setting in described(RunConfig)}
    assert set(found) >= {"task", "with", "training.lr", "meta.engine", "heads.policy"}
    lr = found["training.lr"]
    assert (lr.default, lr.rule.wanted, lr.rule.read("1e-3")) == (1e-4, "a number above 0", 1e-3)
    assert found["meta.engine"].help == "`fused` or `looped`."
    assert found["seeds"].default == (0,)
    assert found["with"].rule.read("mask,no-op") == ["mask", "no-op"]
    assert all(setting.help for setting in found.values())


def test_a_section_may_be_a_table():
    assert RunConfig(training={"lr": 1}).training == Training(lr=1.0)
    with pytest.raises(ConfigError, match=r"RunConfig: `training\.lr` must be a number above 0"):
        RunConfig(training={"lr": 0})


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    """Editors on Windows write one."""
    from aang_core.config.file import load_config

    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbfseeds = [3]\n")
    assert load_config(path).seeds == (3,)
