"""Parts of dev that would be empty are refused in words before any training."""

import pytest
from _tasks import write_task

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.registry.registry import load_registry
from aang_core.train.resolve import resolve
from aang_core.train.session import check_dev_rows


def config_of(method="aang", **meta):
    return RunConfig.from_mapping({"method": method, "model": "scratch:tiny", "meta": meta})


@pytest.mark.parametrize(
    ("rows", "meta", "words"),
    [
        (10, {"hold_back": 0.95}, r"leaves dev rows .* found 0\.95 of 10 rows; lower it to 0\.9 "),
        (5, {"hold_back": 0.05}, r"at least one of the 5 dev rows, found 0\.05; raise it to 0\.2 "),
        (8, {"dev_head_split": "dev", "dev_head_steps": 2, "dev_rows": 8}, r"more than .* 8 dev"),
        (
            12,
            {"dev_head_split": "dev", "dev_head_steps": 2, "dev_rows": 8, "hold_back": 0.5},
            r"found 6; lower meta\.dev_rows",
        ),
    ],
)
def test_too_few_dev_rows_are_refused(rows, meta, words):
    with pytest.raises(ConfigError, match=words):
        check_dev_rows(config_of(**meta), rows)


@pytest.mark.parametrize(
    ("rows", "method", "meta"),
    [
        (1, "aang", {}),
        (10, "aang", {"hold_back": 0.9}),
        (5, "aang", {"hold_back": 0.2}),
        (9, "aang", {"dev_head_split": "dev", "dev_head_steps": 2, "dev_rows": 8}),
        (8, "aang", {"dev_head_split": "dev", "dev_head_steps": 0, "dev_rows": 8}),
        (10, "finetune", {"hold_back": 0.95}),
    ],
)
def test_enough_dev_rows_pass(rows, method, meta):
    check_dev_rows(config_of(method, **meta), rows)


def test_a_run_looks_before_it_loads_an_encoder(tmp_path):
    task = write_task(tmp_path / "task")
    meta = {"dev_head_split": "dev", "dev_head_steps": 1, "dev_rows": 1000}
    config = RunConfig.from_mapping({"task": str(task), "model": "scratch:tiny", "meta": meta})
    with pytest.raises(ConfigError, match="left to fit the dev head"):
        resolve(config, load_registry())
