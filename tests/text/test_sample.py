"""The sample task: large enough, clean, and the same every time."""

from pathlib import Path

import pytest
from aang_text.data import sample
from aang_text.data.corpora import load_corpus

from aang_core.data.duplicates import normalised
from aang_core.errors import TaskError


@pytest.fixture
def cache_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_sample_is_low_resource_with_a_large_test_split(cache_home):
    task = sample.load()
    sizes = {name: len(part) for name, part in task.splits.items()}
    assert (sizes["train"], sizes["dev"]) == (300, 600)
    assert sizes["test"] > 1000
    assert len(task.unlabelled) > 1000
    assert len(task.label_names) == 7
    for part in task.splits.values():
        assert set(part["label"]) == set(range(7))
    texts = [text for part in task.splits.values() for text in part["text"]] + task.unlabelled[
        "text"
    ][:]
    assert len({normalised(text) for text in texts}) == len(
        texts
    )  # no split repeats another's text
    again = sample.load()
    assert again.splits["train"][:] == task.splits["train"][:]
    whole = sample.load_all()
    assert len(whole.splits["train"]) == 300 + len(task.unlabelled)
    assert whole.splits["test"][:] == task.splits["test"][:]


def test_the_corpus_is_prose_in_documents_and_written_once(cache_home):
    path = sample.load().external["in-domain"]
    assert path.is_relative_to(cache_home)
    assert list(path.parent.iterdir()) == [path]  # nothing half-written stays behind
    before = path.stat().st_mtime_ns
    assert sample.load().external["in-domain"].stat().st_mtime_ns == before
    corpus = load_corpus(path)
    assert len(corpus.documents) > 30
    texts = [text for document in corpus.documents for text in document]
    assert len(texts) > len(corpus.documents)
    assert sum(len(text.split()) for text in texts) > 20_000
    assert not any("::=" in text for text in texts)


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(TaskError, match="XDG_CACHE_HOME"):
        sample.load()


def test_code_and_headings_are_no_prose():
    assert sample._is_prose("The statement does one thing\nand then another.")
    assert sample._is_prose("   Called when the object is made, before anything else.")
    assert not sample._is_prose("   for x in range(10): print(x) # and so on and on")
    assert not sample._is_prose('   assert_stmt ::= "assert" expression and more words here.')
    assert not sample._is_prose('The "assert" statement of this language\n***********')
