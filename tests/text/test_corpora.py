"""External corpora: which texts belong together, what was empty, and errors with places."""

from pathlib import Path

import pytest
from aang_text.data.corpora import Corpus, load_corpus, split_sentences
from aang_text.data.documents import ORDER, Sentences

from aang_core.errors import TaskError

DATA = Path(__file__).parents[3] / "shared" / "data"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def ordered(corpus: Corpus) -> bool:
    return ORDER in Sentences("c", corpus.documents).provides()


def test_one_text_a_line(tmp_path):
    corpus = load_corpus(write(tmp_path / "c.txt", "one\ntwo\n\n"))
    assert corpus.documents == [["one"], ["two"]]
    assert not ordered(corpus)
    assert "1 empty lines" in corpus.remarks[0]


def test_blank_lines_part_documents(tmp_path):
    corpus = load_corpus(write(tmp_path / "c.txt", "\na one\na two\n\n\nb one\r\nb two\n"))
    assert corpus.documents == [["a one", "a two"], ["b one", "b two"]]
    assert ordered(corpus)
    assert "2 documents" in corpus.remarks[0]


def test_empty_lines_among_passages_do_not_join_them(tmp_path):
    passage = "Some words stand here. " * 20
    corpus = load_corpus(write(tmp_path / "c.txt", f"{passage}\n{passage}\n\n{passage}\n"))
    assert [len(document) for document in corpus.documents] == [1, 1, 1]
    assert "1 empty lines" in corpus.remarks[0]
    assert [len(split_sentences(text)) for (text,) in corpus.documents] == [20, 20, 20]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")
@pytest.mark.parametrize(("name", "passages"), [("acl-arc", 1659), ("chemprot", 3983)])
def test_published_corpora_are_passages(name, passages):
    corpus = load_corpus(DATA / name / "in-domain.txt")
    assert [len(document) for document in corpus.documents] == [1] * passages
    assert ordered(corpus)


def test_folders_hold_a_document_a_file(tmp_path):
    write(tmp_path / "f" / "a.txt", "First\nparagraph.\n\nSecond.\n")
    write(tmp_path / "f" / "sub" / "b.txt", "One.\nTwo.\n")
    write(tmp_path / "f" / "c.txt", "\n")
    corpus = load_corpus(tmp_path / "f")
    assert corpus.documents == [["First paragraph.", "Second."], ["One.", "Two."]]
    assert "1 empty documents" in corpus.remarks[0]


def test_jsonl_groups_by_document(tmp_path):
    rows = (
        '{"document": 1, "text": "a"}\n{"document": 2, "text": "b"}\n{"document": 1, "text": "c"}\n'
    )
    assert load_corpus(write(tmp_path / "c.jsonl", rows)).documents == [["a", "c"], ["b"]]
    ids = '{"id": 1, "text": "a"}\n{"id": 2, "text": " "}\n{"id": 3, "text": "c"}\n'
    corpus = load_corpus(write(tmp_path / "d.jsonl", ids))
    assert corpus.documents == [["a"], ["c"]]
    assert "1 empty texts" in corpus.remarks[0]


def test_saved_data_sets(tmp_path):
    from datasets import Dataset

    saved = Dataset.from_dict({"text": ["a", "b"]})
    saved.save_to_disk(str(tmp_path / "saved"))
    saved.to_parquet(str(tmp_path / "c.parquet"))
    for where in (tmp_path / "saved", f"hf:{tmp_path / 'saved'}", tmp_path / "c.parquet"):
        assert load_corpus(where).documents == [["a"], ["b"]]


def test_sentences_keep_the_order_of_the_text():
    assert split_sentences("Dr. Who left. Did he? Yes!") == ["Dr. Who left.", "Did he?", "Yes!"]
    assert split_sentences("no end at all") == ["no end at all"]
    assert split_sentences("...") == ["..."]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("c.txt", "\n \n", "holds no text"),
        ("c.jsonl", '{"body": "a"}\n', "no column 'text'; found the columns 'body'"),
        ("c.jsonl", '{"text": 3}\n', "c.jsonl:1"),
        ("c.jsonl", "{\n", "c.jsonl:1: not JSON"),
    ],
)
def test_bad_corpora(tmp_path, name, text, part):
    with pytest.raises(TaskError) as caught:
        load_corpus(write(tmp_path / name, text))
    assert part in str(caught.value)


def test_wrong_encoding_and_missing_files_are_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"good\nna\xefve\n")
    with pytest.raises(TaskError, match=r"latin\.txt:2: byte 0xef is not UTF-8"):
        load_corpus(tmp_path / "latin.txt")
    with pytest.raises(TaskError, match="neither a file"):
        load_corpus(tmp_path / "gone.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match="no file of a known kind"):
        load_corpus(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "id,message\n1,one\n2,two\n"),
        ("t.tsv", "id\tmessage\n1\tone\n2\ttwo\n"),
        ("t.jsonl", '{"message": "one"}\n{"message": "two"}\n'),
    ],
)
def test_a_corpus_is_a_column_of_a_table(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert load_corpus(f"{path}:message").documents == [["one"], ["two"]]
    with pytest.raises(TaskError, match=r"no column 'text'.*'message'.*name one, as in .*:COLUMN"):
        load_corpus(path)
    with pytest.raises(TaskError, match="no column 'body'"):
        load_corpus(f"{path}:body")


def test_a_file_whose_name_holds_a_colon_is_a_file(tmp_path):
    path = write(tmp_path / "t.csv:text", "one\n")
    assert load_corpus(path).documents == [["one"]]
