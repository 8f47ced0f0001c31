"""The second distribution builds by itself, and holds what its plugin needs."""

import subprocess
import sys
import zipfile


def test_the_vision_plugin_is_a_wheel_of_its_own(root, tmp_path):
    source = root / "plugins" / "aang-vision"
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path]
    done = subprocess.run([*map(str, command), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("aang_vision-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entries,) = [name for name in names if name.endswith("entry_points.txt")]
        points = archive.read(entries).decode().split()
        (facts,) = [name for name in names if name.endswith("/METADATA")]
        metadata = archive.read(facts).decode()
    info = entries.split("/")[0]
    assert {name.split("/")[0] for name in names} == {"aang_vision", info}
    modules = {f"aang_vision/{path.name}" for path in (source / "aang_vision").glob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    assert "aang_vision/py.typed" in names
    assert points == ["[aang]", "vision", "=", "aang_vision.hooks"]
    assert "Requires-Dist: aang>=" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)
