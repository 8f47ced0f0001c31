"""The page of hand-made runs: complete, self-contained, escaped; its figures and tables against the data."""

import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import attrs
import numpy as np
import pytest
from _runs import GOLD, IDS, NAMES, answers, write_run
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.analysis.examples import changed, mistakes
from aang_core.analysis.page import page as page_module
from aang_core.analysis.page import plots
from aang_core.analysis.page.figures import figures
from aang_core.analysis.page.page import PAGE, build_story, page, write_run_page
from aang_core.analysis.page.plots import write_plots
from aang_core.analysis.page.story import read_story
from aang_core.data.metrics import confusion_of
from aang_core.errors import RunError
from aang_core.rundir.finished import read_run
from aang_core.rundir.report import engine_said, seed_report

pytest.importorskip("matplotlib", reason="plots are an extra")

PLAIN, BETTER = {0: 20, 1: 24, 2: 22}, {0: 30, 1: 32, 2: 31}


class Reader(HTMLParser):
    """Collects tags, addresses and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.addresses, self.ids, self.text = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "data", "srcset"}:
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text.append(data)


def text_of(row):
    """The number of the text in a row of the tables of predictions."""
    return int(row["inputs"]["text"].split()[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    plain = write_run(folder / "plain <b>", PLAIN, method="finetune")
    return read_run(plain), read_run(write_run(folder / "aang", BETTER))


@pytest.fixture(scope="module")
def made(runs):
    plain, aang = runs
    return page(build_story(aang, [plain]), [read_story(plain)], [("Δ", "1 < 2")])


def test_the_page_asks_for_nothing_and_holds_every_figure(made):
    html, plots = made
    found = Reader(html)
    assert [a for a in found.addresses if not a.startswith(("#", "data:image/png"))] == []
    assert not re.search(r"url\((?!#)|@import", html)
    assert not {"script", "link", "iframe", "img", "object"} & set(found.tags)
    assert found.tags.count("figure") == found.tags.count("svg") == len(plots)
    assert [p.name for p in plots] == [
        "gains",
        "stage-weights",
        "objective-weights",
        "ranking",
        "end-task-share",
        "alignments",
        "alignment-bands",
        "gradient-norms",
        "losses",
        "dev-curve",
        "confusion",
    ]
    assert len(found.ids) == len(set(found.ids)), "ids of different figures clash"
    targets = {a[1:] for a in found.addresses if a.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)\)", html)
    )
    assert targets <= set(found.ids)


def test_every_datum_is_escaped(made):
    html, _ = made
    assert "<script" not in html
    assert "alert(" in html, "the texts of the task are shown"
    for text in (
        "&lt;b&gt;maybe&lt;/b&gt;",
        "plain &lt;b&gt;",
        "a remark &amp; &lt;i&gt;more",
        "1 &lt; 2",
    ):
        assert text in html
    assert "<i>more" not in html


def test_the_page_says_what_matters(made):
    text = " ".join(Reader(made[0]).text)
    for part in (
        "two standard errors below 0: 1 of the losses",
        IDS[1],
        "3 of 40 test examples stand in train",
        "points of accuracy on test (95 % interval",
        "test accuracy, over plain",
        "test accuracy, unseen examples only",
        "config.toml",
        'method = "aang"',
        "Theorem E.5",
    ):
        assert part in text, part


def test_titles_follow_from_the_data(runs):
    titles = {plot.name: plot.title for plot in figures(build_story(runs[1], [runs[0]]))}
    assert titles["stage-weights"].startswith("Of the transforms, bert-op ends heaviest")
    assert IDS[0] in titles["objective-weights"]
    assert titles["end-task-share"].endswith("rises from 0.50 to 0.70")
    assert titles["alignments"] == "1 of 4 objectives pull the way dev wants, 1 against it"
    assert titles["gradient-norms"].startswith("An auxiliary gradient has 2.0 times")
    gain = 100 * (np.mean(list(BETTER.values())) - np.mean(list(PLAIN.values()))) / 40
    assert titles["gains"].startswith(f"{gain:+.1f} points over plain <b>; the interval ")
    wrong = sum(40 - n for n in BETTER.values())
    counts = confusion_of(
        [
            {"gold": NAMES[g], "label": NAMES[a]}
            for n in BETTER.values()
            for g, a in zip(GOLD, answers(n), strict=True)
        ],
        NAMES,
    )
    off = counts - np.diag(np.diag(counts))
    assert off.sum() == wrong
    assert f"most often: {off.max()} of" in titles["confusion"]


def test_plain_fine_tuning_has_a_page_without_a_search(runs):
    html, plots = page(build_story(runs[0]))
    assert [p.name for p in plots] == ["losses", "dev-curve", "confusion"]
    assert "Most certain mistakes" in html


def test_changed_predictions_are_those_whose_chance_moved_most(runs):
    plain, aang = map(read_story, runs)
    rows = changed(aang.predictions, plain.predictions)
    assert rows[0]["change"] == pytest.approx(0.7)  # 0.1 to 0.8 for all seeds
    assert {text_of(row) for row in rows} <= set(range(20, 30))
    assert all(row["after"] == row["gold"] != row["before"] for row in rows if row["change"] > 0.6)
    wrong = mistakes(aang.predictions)
    assert wrong[0]["change"] == pytest.approx(0.1)
    assert all(text_of(row) >= 27 for row in wrong)


def test_changed_predictions_are_joined_by_their_texts_where_each_seed_draws_its_own(tmp_path):
    """Row i of another seed is another text: the tables are those of the same answers in one order."""
    tables = []
    for shift in (0, 7):
        own = {"shift": shift, "config": {"split_anew": (0.2, 0.4)}}
        plain, aang = (
            read_story(read_run(write_run(tmp_path / f"{name}-{shift}", right, **own)))
            for name, right in (("plain", PLAIN), ("aang", BETTER))
        )
        tables.append((changed(aang.predictions, plain.predictions), mistakes(aang.predictions)))
    assert tables[0] == tables[1]


def test_examples_of_which_only_one_run_has_judged_the_text_are_left_out(runs):
    plain, aang = map(read_story, runs)
    fewer = attrs.evolve(plain, predictions=tuple(rows[:25] for rows in plain.predictions))
    assert {text_of(row) for row in changed(aang.predictions, fewer.predictions)} <= set(
        range(20, 25)
    )


@pytest.mark.parametrize("compared", [True, False])
@pytest.mark.parametrize("title", [True, False])
def test_all_text_of_every_figure_lies_inside_the_drawing(runs, compared, title):
    """The figure of losses cut the first digits of its tick labels: 15.0 read 5.0."""
    from matplotlib.text import Text

    for plot in figures(build_story(runs[1], [runs[0]] if compared else [])):
        with plots.drawn(plot, title) as figure:
            figure.savefig(io.StringIO(), format="svg")
            box, texts = figure.bbox.padded(0.5), figure.findobj(Text)
            shown = [t.get_window_extent() for t in texts if t.get_visible() and t.get_text()]
            assert shown
            outside = [
                t.extents.round().tolist()
                for t in shown
                if not (box.x0 <= t.x0 and t.x1 <= box.x1 and box.y0 <= t.y0 and t.y1 <= box.y1)
            ]
            assert not outside, (plot.name, outside)


def test_the_first_screen_answers_in_a_sentence(made, runs):
    text = " ".join(" ".join(Reader(made[0]).text).split())
    gain = 100 * (sum(BETTER.values()) - sum(PLAIN.values())) / 3 / 40
    assert f"The objectives helped: {gain:+.1f} points of accuracy on test (95 % interval" in text
    alone = " ".join(" ".join(Reader(page(build_story(runs[1]))[0]).text).split())
    values = np.array(list(BETTER.values())) / 40
    over_texts = np.mean(np.sqrt(values * (1 - values) / 40))
    error = np.hypot(values.std(ddof=1) / np.sqrt(3), over_texts)
    assert f"standard error of {error:.3f} by chance over seeds and test examples." in alone
    assert "--against finetune" in alone


def test_plots_are_files_too(runs, tmp_path):
    made = figures(read_story(runs[0]))
    files = write_plots(made, tmp_path / "plots")
    assert len(files) == 2 * len(made)
    for file in files:
        if file.suffix == ".svg":
            assert ET.parse(file).getroot().tag.endswith("svg")
        else:
            assert file.read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_the_page_the_plots_and_the_weights(runs, tmp_path):
    plain, aang = (str(run.path) for run in runs)
    wanted = [
        "--out",
        str(tmp_path / "page.html"),
        "--weights",
        str(tmp_path / "w.json"),
        "--theory",
    ]
    result = CliRunner().invoke(main, ["report", aang, "--compare", plain, *wanted])
    assert result.exit_code == 0, result.output
    assert "Theorem E.5" in (tmp_path / "page.html").read_text("utf-8")
    assert (tmp_path / "w.json").exists()
    assert "bound: " in result.stderr
    refused = CliRunner().invoke(main, ["report", plain, "--theory"])
    assert refused.exit_code == 1
    assert "no gradient norms" in refused.stderr


def test_a_damaged_run_is_one_message(runs, tmp_path, pages):
    broken = write_run(tmp_path / "broken", {0: 20})
    (broken / "predictions.jsonl").write_text("{\n", "utf-8")
    with pytest.raises(RunError, match=r"predictions\.jsonl:1 is damaged"):
        write_run_page(broken)


def test_a_run_may_leave_its_page_out(runs, monkeypatch):
    monkeypatch.setenv("AANG_PAGE", "none")
    assert write_run_page(runs[1].path) is None
    assert not (runs[1].path / PAGE).exists()


def test_the_engine_is_said_once_for_all_seeds(runs):
    seeds = [seed_report(seed) for seed in runs[1].report["seeds"]]
    assert engine_said(seeds) == "fused"
    some = attrs.evolve(seeds[0], alignment_layers={"used": 2, "of": 7})
    assert engine_said([some]) == "fused, alignments from 2 of 7 layers"
    gaps = [
        attrs.evolve(s, engine_check={"disagreement": g, "allowed": 1e-5})
        for s, g in zip(seeds, (1e-7, 3e-6, 2e-7), strict=True)
    ]
    assert (
        engine_said(gaps)
        == "fused; first batch: one backward pass agrees with the loop to 3e-06 (1e-05 allowed)"
    )
    gaps[1] = attrs.evolve(
        gaps[1], engine="looped", engine_check={"disagreement": 0.2, "allowed": 1e-5}
    )
    assert engine_said(gaps).startswith(
        "fused and looped; first batch: one backward pass disagreed"
    )


def test_remarks_are_folded_and_words_between_backticks_are_code(runs):
    html, _ = page(build_story(runs[1]))
    assert "<code>aang run --resume --out " in html
    assert "1 remark of the run</summary>" in html
    assert html.index("a remark &amp; &lt;i&gt;more") > html.index("1 remark of the run")
    assert page_module._with_code("`<b>` and ` alone") == "`&lt;b&gt;` and ` alone"
    assert page_module._with_code("say `<b>`") == "say <code>&lt;b&gt;</code>"


def test_fixed_weights_have_no_figures_of_level_lines(runs):
    histories = tuple(
        attrs.evolve(
            h,
            weights=np.where(
                np.isfinite(h.weights), 1 / np.isfinite(h.weights).sum(1, keepdims=True), np.nan
            ),
            end_task={**h.end_task, "weights": np.full_like(h.end_task["weights"], 0.5)},
        )
        for h in read_story(runs[1]).histories
    )
    story = attrs.evolve(read_story(runs[1]), histories=histories)
    assert not story.moved
    assert read_story(runs[1]).moved
    names = {plot.name for plot in figures(story)}
    assert not names & {"stage-weights", "objective-weights", "ranking", "end-task-share"}
    assert "losses" in names
