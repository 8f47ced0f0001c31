"""Reading files: what must come out unchanged, and faults with their places."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aang_core.data.readers import Faults, Table, read_table
from aang_core.errors import TaskError


def read(path: Path, data: bytes, header: tuple[str, ...] = ()) -> Table:
    path.write_bytes(data)
    faults = Faults()
    table = read_table(path, header, faults)
    faults.raise_any("the file")
    return table


def test_tsv_means_quotation_marks_literally_and_drops_what_editors_add(tmp_path):
    table = read(tmp_path / "a.tsv", '\ufefftext\tlabel\r\n"a\tx\r\n\r\nb\u2028c\ty'.encode())
    assert table.columns == {"text": ['"a', "b\u2028c"], "label": ["x", "y"]}
    assert [table.at(row).rsplit(":", 1)[1] for row in (0, 1)] == ["2", "4"]
    assert "1 blank lines" in table.remarks[0]


def test_csv_cells_may_hold_line_ends_and_rows_keep_their_first_line(tmp_path):
    long = "w " * 100_000  # over the csv module's own limit
    table = read(tmp_path / "a.csv", f'text,label\n"one\ntwo, ""x""",a\n{long},b\n'.encode())
    assert table.columns["text"] == ['one\ntwo, "x"', long]
    assert list(table.numbers) == [2, 4]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\0\ufeff"), max_size=12)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(CELL, CELL.filter(str.strip)), min_size=1, max_size=6))
def test_csv_and_jsonl_give_back_what_was_written(tmp_path, rows):
    import csv
    import json

    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("text", "label"), *rows])
    lines = [json.dumps({"text": t, "label": n}, ensure_ascii=False) for t, n in rows]
    for name, data in (("a.csv", None), ("a.jsonl", "\n".join(lines).encode())):
        table = read(tmp_path / name, data or (tmp_path / name).read_bytes())
        assert list(zip(*table.columns.values(), strict=True)) == rows


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": \n[1]\n',
            ["2 faults", "a.jsonl:2: not JSON", "a.jsonl:3"],
        ),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', ["a.jsonl:2", "0xe9 is not UTF-8"]),
        ("a.jsonl", b'{"text": "\\ud83d"}\n', ["a.jsonl:1", "surrogate"]),
        ("a.tsv", b"text\tlabel\na\tb\tc\nd\n", ["a.tsv:2: expected 2 cells, found 3", "a.tsv:3"]),
        ("a.csv", b'text,label\n"open,x\nmore,y\n', ["a.csv:2: not csv"]),
        ("a.csv", b"text,text\na,b\n", ["'text' twice"]),
        ("a.jsonl", "x".encode("utf-16"), ["UTF-16"]),
        ("a.parquet", b"no parquet", ["cannot read", "parquet"]),
    ],
)
def test_faults_name_file_and_line(tmp_path, name, data, parts):
    with pytest.raises(TaskError) as caught:
        read(tmp_path / name, data)
    for part in parts:
        assert part in str(caught.value)


HEADER = ("label", "id", "text")


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        ("Quality\t#1 ID\tString", True),  # no number where every other line has numbers
        ("Label\tID\tText", True),  # the declared names
        ("x\t4\ta text", False),  # an odd label, but the id is a number
        ("\t\ta text", False),  # missing values
        ("1\t4\ta text", False),
    ],
)
def test_a_first_line_is_a_header_only_where_nothing_else_fits(tmp_path, first, is_header):
    table = read(
        tmp_path / "a.tsv", f"{first}\n0\t1\tone\n1\t2\ttwo\n0\t3\tthree\n".encode(), HEADER
    )
    assert len(table) == 4 - is_header
    assert bool(table.remarks) is is_header


def test_words_alone_never_make_a_header(tmp_path):
    table = read(tmp_path / "a.tsv", b"good\tone\nbad\ttwo\ngood\tthree\n", ("label", "text"))
    assert len(table) == 3
