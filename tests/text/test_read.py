import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.text import read

COLUMNS = {"input": "text", "output": "label"}


def rows(path: Path) -> list[tuple[Any, ...]]:
    return read.table(path, COLUMNS).frame.select("row", "input", "output", "reason").rows()


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read.table(path, COLUMNS)
    assert caught.value.mend
    return str(caught.value)


CELLS = st.text(max_size=12) | st.text(alphabet="a\"',;\t\n\r é", max_size=12)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    st.sampled_from([",", ";", "|", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_python_writes_as_csv_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, str]],
    mark: str,
    encoding: str,
    end: str,
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL  # else it leaves \r bare
        writer = csv.writer(file, delimiter=mark, lineterminator=end, quoting=quoting)
        writer.writerows([("text", "label"), *cells])
    wanted = [(a.replace("\0", ""), b.replace("\0", "")) for a, b in cells]
    assert rows(path) == [(at, a, b, None) for at, (a, b) in enumerate(wanted, 1)]


JSON_VALUES = st.one_of(
    st.text(max_size=8), st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)
)


@given(st.lists(st.tuples(JSON_VALUES, JSON_VALUES), min_size=1, max_size=8), st.booleans())
def test_json_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[Any, Any]], lines: bool
) -> None:
    objects = [{"text": a, "label": b} for a, b in cells]
    content = "\n".join(map(json.dumps, objects)) if lines else json.dumps(objects, indent=1)
    path = save(tmp_path_factory.mktemp("json"), "a.jsonl" if lines else "a.json", content)

    def text(value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value if value is None else value.replace("\0", "")
        return json.dumps(value)

    wanted = [(at, text(a), text(b), None) for at, (a, b) in enumerate(cells, 1)]
    assert rows(path) == wanted


def test_numbers_and_booleans_stay_as_they_are_written(tmp_path: Path) -> None:
    labels = ["1", "1.0", "1e3", "-0", "true", "100000000000000000000"]
    lines = "".join(f'{{"text": "a", "label": {label}}}\n' for label in labels)
    assert [row[2] for row in rows(save(tmp_path, "a.jsonl", lines))] == labels
    table = "text,label\n" + "".join(f"a,{label}\n" for label in [*labels, "True", "NA", "null"])
    assert [row[2] for row in rows(save(tmp_path, "a.csv", table))] == [
        *labels,
        "True",
        "NA",
        "null",
    ]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["a", None], ["a", None]),
        ([1, 20], ["1", "20"]),
        ([1.0, 2.5], ["1.0", "2.5"]),
        ([True, False], ["true", "false"]),
        (pl.Series(["x", "y"], dtype=pl.Categorical), ["x", "y"]),
        (["a\0b", ""], ["ab", ""]),
    ],
)
def test_parquet(tmp_path: Path, values: Any, wanted: list[str | None]) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"label": values, "other": [1, 2], "text": ["t", "u"]}).write_parquet(path)
    assert [row[2] for row in rows(path)] == wanted
    assert [row[0] for row in rows(path)] == [1, 2]


def test_a_lone_quotation_mark_inside_a_cell_is_only_text(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", 'text,label\n5" pipe,pos\nbad,neg\n6" pipe,pos\n')
    assert [row[1] for row in rows(path)] == ['5" pipe', "bad", '6" pipe']


def test_tab_separated_files_with_and_without_quoting(tmp_path: Path) -> None:
    path = save(tmp_path, "a.tsv", 'text\tlabel\n"so called\tneg\nquality"\tpos\n')
    assert [row[1] for row in rows(path)] == ['"so called', 'quality"']
    path = save(tmp_path, "b.tsv", 'text\tlabel\n"two\nlines"\tneg\n"a ""b"""\tpos\n')
    assert [row[1] for row in rows(path)] == ["two\nlines", 'a "b"']


def test_a_line_that_names_the_separator_is_no_header(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", "sep=;\r\ntext;label\r\none, two, three;pos\r\n")
    assert rows(path) == [(1, "one, two, three", "pos", None)]
    path = save(tmp_path, "b.csv", 'sep=|\ntext|label\na|b\n"never|closed\n')
    assert "b.csv, line 4: a quotation mark" in refusal(path)


def test_ragged_rows_are_kept_aside_with_their_number(tmp_path: Path) -> None:
    good = "".join(f"text {number},pos\n" for number in range(30))
    path = save(tmp_path, "a.csv", f"text,label\n{good}\nonly one\na,b,c\nlast,neg,,\n")
    read_rows = rows(path)
    assert read_rows[29:] == [
        (30, "text 29", "pos", None),
        (32, "", "", "unreadable: 1 cells where the header has 2"),
        (33, "", "", "unreadable: 3 cells where the header has 2"),
        (34, "last", "neg", None),
    ]


def test_broken_json_lines_are_kept_aside_with_their_number(tmp_path: Path) -> None:
    good = '{"text": "a", "label": "b"}\n' * 50
    bad = '{"text": \n\n[1]\n{"text": ["a"], "label": 1}\n' + "[" * 50_000 + "\n"
    found = rows(save(tmp_path, "a.jsonl", good + bad))[50:]
    assert [(number, text) for number, text, _, _ in found] == [(n, None) for n in (51, 53, 54, 55)]
    for row, words in zip(
        found, ["not JSON", "not an object", "a list, not text", "too deep"], strict=True
    ):
        assert words in row[3]


def test_awkward_cells(tmp_path: Path) -> None:
    long = "long " * 20_000
    path = save(tmp_path, "a.csv", f'text,label\r\n"{long}",a\r\nnul\0byte,b\r\n"x\r\ny",c')
    assert [row[1] for row in rows(path)] == [long, "nulbyte", "x\r\ny"]
    path = save(tmp_path, "a.jsonl", '{"text": "half \\ud83d pair", "label": "a\\u0000"}\n')
    assert rows(path) == [(1, "half ? pair", "a", None)]


def test_latin_1_is_read_and_told(tmp_path: Path) -> None:
    text = "Größe und Qualität überzeugen, der Preis ist für das Gerät zu hoch"
    path = save(tmp_path, "a.csv", f'text,label\n"{text}",neg\n'.encode("latin-1"))
    table = read.table(path, COLUMNS)
    assert table.frame["input"].to_list() == [text]
    assert "not UTF-8" in table.notes[0]


def test_more_rows_than_one_chunk(tmp_path: Path) -> None:
    count = read.CHUNK + 10
    path = save(tmp_path, "a.csv", "text,label\n" + "".join(f"t{n},a\n" for n in range(count)))
    frame = read.table(path, COLUMNS).frame
    assert frame["row"].to_list() == list(range(1, count + 1))
    assert frame["input"][count - 1] == f"t{count - 1}"
    assert read.table(path, COLUMNS, limit=5).frame.height == read.CHUNK


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n\n", "is empty"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.csv", "text,label\n\n\n", "has no rows"),
        ("a.csv", "txt,label\na,b\n", 'has no column "text"; it has txt, label'),
        ("a.csv", "Text ,label\na,b\n", 'did you mean "Text"?'),
        ("a.csv", "text,label,text\na,b,c\n", 'several columns "text"'),
        ("a.csv", 'text,label\na,b\nx,"never\nclosed\n', "line 3: a quotation mark opens"),
        ("a.csv", 'text,label\n"' + "x" * 10_000_001, "line 2: a quotation mark opens"),
        ("a.csv", "text,label\na\nb\n", "2 of 2 rows cannot be read; row 1: unreadable: 1 cells"),
        ("a.tsv", "text label\na b\n", "has no column"),
        ("a.jsonl", "[1]\n[2]\n", "holds no objects"),
        ("a.jsonl", '{"text": "a"}\n', 'no column "label"'),
        ("a.jsonl", '{"text": "a", "label": "b"}\n' + "{\n" * 5, "row 2: unreadable: not JSON"),
        ("a.json", '{"text": "a"}', "does not hold a list"),
        ("a.json", '[{"text": "a",\n}]', "line 2, column 1: not JSON"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "[]", "holds no objects"),
        ("a.parquet", "PAR1 not really PAR1", "not a readable parquet file"),
        ("a.xlsx", "text,label\n", "unknown kind"),
        ("a", "text,label\n", "unknown kind"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, words: str) -> None:
    assert words in refusal(save(tmp_path, name, content))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "none.csv")
    (tmp_path / "dir.csv").mkdir()
    assert "is a folder" in refusal(tmp_path / "dir.csv")


def test_fields_where_a_text_should_be(tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", '{"text": "a", "label": {"b": 1}}\n' * 3)
    with pytest.raises(BadInput, match="holds an object") as caught:
        read.table(path, COLUMNS)
    assert "extract" in caught.value.mend


def test_parquet_columns_that_hold_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": [["a"], ["b"]], "label": ["x", "y"]}).write_parquet(path)
    assert "not text" in refusal(path)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": ["a"] * 500, "label": ["x"] * 500}).write_parquet(path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        refusal(path)


@settings(max_examples=150)
@given(
    st.binary(max_size=200) | st.text(alphabet='text,label\n"{}[]:\t;\r\\0', max_size=80),
    st.sampled_from(sorted(read.SUFFIXES)),
    st.booleans(),
)
def test_any_bytes_are_a_table_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str, suffix: str, header: bool
) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    start = b"text\tlabel\n" if suffix == ".tsv" else b"text,label\n"
    path = save(tmp_path_factory.mktemp("any"), f"a{suffix}", start + raw if header else raw)
    try:
        frame = read.table(path, COLUMNS).frame
    except BadInput as error:
        assert error.mend
    else:
        assert frame["row"].is_sorted() and frame["row"][0] >= 1
