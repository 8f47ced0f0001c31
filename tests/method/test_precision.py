"""bf16 where the device has units for it, and a word where it has none."""

import pytest
import torch
from aang_cli import doctor

from aang_core.config.settings import RunConfig
from aang_core.method import precision

CPU = torch.device("cpu")


def cpuinfo(monkeypatch, tmp_path, text):
    place = tmp_path / "cpuinfo"
    if text is not None:
        place.write_text(text)
    monkeypatch.setattr(precision, "_CPU_FACTS", place)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n", True),
        ("flags\t\t: fpu avx512f amx_bf16\n", True),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: bf16\n", False),
        ("nothing of use", False),
    ],
)
def test_the_processor_says_what_it_has(text, units, monkeypatch, tmp_path):
    cpuinfo(monkeypatch, tmp_path, text)
    assert precision.bf16_units(CPU) is units
    assert precision.precision_on(CPU, "auto") == ("bf16" if units else "fp32")
    assert precision.precision_on(CPU, "bf16") == "bf16"
    said = precision.precision_remark(CPU, "bf16")
    assert bool(said) is not units
    assert units or "50 times slower" in said
    assert ("no bf16 units" in precision.precision_remark(CPU, "auto")) is not units
    assert precision.precision_remark(CPU, "fp32") == ""


def test_elsewhere_torch_is_asked(monkeypatch, tmp_path):
    cpuinfo(monkeypatch, tmp_path, None)
    for has in (True, False):
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)
        assert precision.bf16_units(CPU) is has


def test_the_doctor_says_it(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, state in (("avx512_bf16", doctor.OK), ("avx2", doctor.NOTE)):
        cpuinfo(monkeypatch, tmp_path, f"flags : {flags}\n")
        found = {each.check: each for each in doctor.findings(tmp_path)}["bf16"]
        assert found.state == state
        assert bool(found.do) is (state == doctor.NOTE)


def test_a_run_in_bf16_without_units_says_so(monkeypatch, tmp_path):
    from _tasks import settings, write_task

    import aang_core

    cpuinfo(monkeypatch, tmp_path, "flags : avx2\n")
    task = str(write_task(tmp_path / "task"))
    given = settings(training={"precision": "bf16"}, method="finetune")
    report = aang_core.run(task=task, out=tmp_path / "run", **given)
    assert any("no bf16 units" in remark for remark in report.seeds[0].remarks)
    assert RunConfig.from_mapping({"training": {"precision": "auto"}}).training.precision == "auto"
