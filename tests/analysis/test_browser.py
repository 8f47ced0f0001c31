"""The page in a real browser, where there is one: it fits the window, shows every figure, and asks nobody."""

import html
import json
import re
import shutil
import socketserver
import subprocess
import threading

import pytest
from _runs import write_run

from aang_core.analysis.page.page import build_story, page
from aang_core.analysis.page.story import read_story
from aang_core.rundir.finished import read_run

pytest.importorskip("matplotlib", reason="plots are an extra")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MEASURE = """
<script>
addEventListener('load', () => {
  const page = document.querySelector('iframe').contentDocument;
  const boxes = [...page.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect());
  document.title = JSON.stringify({
    wide: page.documentElement.scrollWidth,
    figures: boxes.map(box => [Math.round(box.left), Math.round(box.right), Math.round(box.height)]),
    ink: page.defaultView.getComputedStyle(page.querySelector('svg text')).fill,
  });
});
</script>
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    plain = read_run(write_run(folder / "plain", {0: 20, 1: 24}, method="finetune"))
    run = read_run(write_run(folder / "aang", {0: 28, 1: 27}))
    return page(build_story(run, [plain]), [read_story(plain)])


def browse(folder, name, text, *flags):
    path = folder / f"{name}.html"
    path.write_text(text, "utf-8")
    done = subprocess.run(
        [
            BROWSER,
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            *flags,
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_window(made, width, tmp_path):
    text, plots = made
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(text)}"></iframe>'
    dom = browse(
        tmp_path, "frame", f"<!doctype html><body>{frame}{MEASURE}", "--window-size=1400,1000"
    )
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom)[1]))
    assert found["wide"] <= width
    assert len(found["figures"]) == len(plots)
    for left, right, height in found["figures"]:
        assert 0 <= left < right <= width
        assert right - left >= min(width - 40, 480) * 0.9
        assert height > 80
    assert found["ink"].startswith("rgb")


def test_the_page_asks_nobody(made, tmp_path):
    """Every request would go through a proxy, which counts them; the browser's own calls home aside."""
    asked = []

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self):
            asked.append(self.request.recv(200))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = f"--proxy-server=http://127.0.0.1:{server.server_address[1]}"
        dom = browse(tmp_path, "page", made[0], proxy)
        server.shutdown()
    assert "Negative transfer" in dom
    assert not [request for request in asked if b"google" not in request], asked
