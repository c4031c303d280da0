"""Files of rows through a model: what is read, what is written, and nothing half."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import job
from bantam import use
from bantam.errors import BadInput
from bantam.model import Model
from bantam.model_files import load

AWKWARD = ['a "quoted" one, bright', "two\nlines, dull", "größe\tand tab 🙂 plain", "", " spaces "]


@pytest.fixture(scope="module")
def model(made: Path) -> Iterator[Model]:
    with load(made / "runs/tiny", threads=1) as loaded:
        yield loaded


def read(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def write(path: Path, texts: list[str]) -> None:
    rows = [{"id": str(number), "what": text} for number, text in enumerate(texts)]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".jsonl":
            file.write("\n\n".join(json.dumps(row) for row in rows))
        else:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            table = csv.DictWriter(file, ["id", "what"], delimiter=delimiter)
            table.writeheader()
            table.writerows(rows)


@pytest.mark.parametrize("out", [".csv", ".tsv", ".jsonl", ".CSV"])
@pytest.mark.parametrize("source", [".csv", ".tsv", ".jsonl"])
def test_rows_keep_their_columns_and_get_answers(
    source: str, out: str, model: Model, tmp_path: Path
) -> None:
    write(tmp_path / f"in{source}", AWKWARD)
    count = use.rows(model, tmp_path / f"in{source}", "what", tmp_path / f"out{out}", False)
    assert count == len(AWKWARD)
    rows = read(tmp_path / f"out{out}")
    assert [(row["id"], row["what"]) for row in rows] == list(zip("01234", AWKWARD, strict=True))
    answers = model.batch(AWKWARD)
    assert [row["answer"] for row in rows] == [answer.label for answer in answers]
    for row, answer in zip(rows, answers, strict=True):
        assert float(row["probability"]) == pytest.approx(answer.probability, abs=0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in{source}", f"out{out}"]


def test_a_text_file_has_a_text_a_line(model: Model, tmp_path: Path) -> None:
    texts = [text for text, _ in job.texts_and_labels(5)]
    (tmp_path / "in.txt").write_bytes("\r\n".join(["\ufeff" + texts[0], "", *texts[1:]]).encode())
    use.rows(model, tmp_path / "in.txt", None, tmp_path / "out.jsonl", False)
    rows = read(tmp_path / "out.jsonl")
    assert [row["text"] for row in rows] == texts
    assert all(set(row["probabilities"]) == set(job.LABELS) for row in rows)


@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-8", ";"), ("utf-8", "|"), ("utf-16", "\t"), ("utf-16-le", ",")]
)
def test_tables_as_spreadsheets_write_them(
    encoding: str, mark: str, model: Model, tmp_path: Path
) -> None:
    with (tmp_path / "in.csv").open("w", encoding=encoding, newline="") as file:
        file.write("\ufeff" * (encoding == "utf-16-le"))  # the others write their own, or none
        table = csv.writer(file, delimiter=mark)
        table.writerows([("the what", "id"), *((text, n) for n, text in enumerate(AWKWARD))])
    use.rows(model, tmp_path / "in.csv", "the what", tmp_path / "out.csv", False)
    rows = read(tmp_path / "out.csv")
    assert [(row["id"], row["the what"]) for row in rows] == list(
        zip("01234", AWKWARD, strict=True)
    )


def test_a_line_that_names_the_separator_is_no_header(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("sep=;\nid;text\n1;fine, as it is\n")
    use.rows(model, tmp_path / "in.csv", None, tmp_path / "out.csv", False)
    assert [(row["id"], row["text"]) for row in read(tmp_path / "out.csv")] == [
        ("1", "fine, as it is")
    ]


def test_answers_do_not_replace_the_labels_of_the_data(model: Model, tmp_path: Path) -> None:
    row = {"text": "the phone is awful", "label": "its own", "n": 3}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    use.rows(model, tmp_path / "in.jsonl", None, tmp_path / "out.jsonl", False)
    answered = read(tmp_path / "out.jsonl")[0]
    assert {key: answered[key] for key in row} == row


BROKEN = [
    ("in.jsonl", '{"text": "a"}\n' * 99 + '{"text": \n', "in.jsonl, line 100: not JSON"),
    ("in.jsonl", '["text"]\n', "in.jsonl, line 1: not a JSON object"),
    ("in.jsonl", '{"text": 5}\n', 'in.jsonl, row 1: no text in "text"'),
    ("in.jsonl", '{"txt": "a", "n": 1}\n', 'no column "text"; there are: txt, n'),
    ("in.csv", "text,n\na,1\nb,2,3\n", "in.csv, row 2: "),
    ("in.csv", "n,text\n1,a\n2\n", 'in.csv, row 2: no text in "text"'),
    ("in.csv", "txt\na\n", 'in.csv, row 1: there is no column "text"; there are: txt'),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_broken_row_is_named_and_nothing_is_left(
    name: str, content: str, message: str, model: Model, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    (tmp_path / "out.csv").write_text("from before", "utf-8")
    with pytest.raises(BadInput) as error:
        use.rows(model, tmp_path / name, None, tmp_path / "out.csv", False)
    assert message in error.value.message
    assert error.value.mend
    assert (tmp_path / "out.csv").read_text("utf-8") == "from before"
    assert len(list(tmp_path.iterdir())) == 2


def test_many_rows_show_their_progress(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("bantam.progress.PLAIN_INTERVAL", 0.0)
    # Line breaks within a cell are no rows.
    write(tmp_path / "in.csv", [f"{text}\n\n" for text, _ in job.texts_and_labels(130)])
    use.rows(model, tmp_path / "in.csv", "what", None, False)
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 130
    assert [line.split()[1] for line in told.err.splitlines()] == [
        f"{done}/130" for done in range(1, 131)
    ]


def test_a_broken_row_is_told_before_anything_is_answered(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines(tmp_path / "in.csv", "text,n", *["dull,1"] * 99, "dull,1,2")
    with pytest.raises(BadInput, match="row 100: "):
        use.rows(model, file, None, None, False)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("count", [use.FEW, use.FEW + 1, 70])
def test_many_rows_are_shared_among_processes_and_keep_their_order(
    count: int, made: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text for text, _ in job.texts_and_labels(count)]
    write(tmp_path / "in.csv", texts)
    started: list[int | None] = []
    crowd = use.crowd
    monkeypatch.setattr(
        use, "crowd", lambda path, **how: (started.append(how["threads"]), crowd(path, **how))[1]
    )
    with load(made / "runs/tiny", threads=2) as two:
        use.rows(two, tmp_path / "in.csv", "what", tmp_path / "out.jsonl", False)
    assert started == [2] * (count > use.FEW)
    rows = read(tmp_path / "out.jsonl")
    assert [row["what"] for row in rows] == texts
    for row, answer in zip(rows, model.batch(texts), strict=True):
        assert row["probability"] == pytest.approx(answer.probability, abs=0.02)


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["id,text", '1,"my lamp is dull', "2,bright", "3,dull"], "never ends"),
        (["text", '"dull'], "never ends"),
        (["text,text", "dull,bright"], 'two columns are called "text"'),
        (["answer,text", "mine,dull"], 'a column "answer" already'),
        (["text,probability", "dull,1"], 'a column "probability" already'),
    ],
)
def test_nothing_is_lost_without_a_word(
    lines: list[str], why: str, model: Model, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "in.csv", *lines)
    with pytest.raises(BadInput, match=why):
        use.rows(model, file, None, tmp_path / "out.csv", False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_table_has_the_fields_of_all_objects(model: Model, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "in.jsonl", '{"text": "dull"}', '{"text": "bright", "more": "1"}')
    use.rows(model, file, None, tmp_path / "out.csv", False)
    assert [row["more"] for row in read(tmp_path / "out.csv")] == ["", "1"]


def test_blank_lines_are_told(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use.rows(model, write_lines(tmp_path / "in.txt", "dull", "", "bright"), None, None, False)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and err.count("blank lines have no answers: 1") == 1


def test_what_training_reads_is_answered(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"der Käse Nummer {number} ist gräulich und öde" for number in range(20)]
    (tmp_path / "in.csv").write_bytes("\n".join(["text", *texts]).encode("cp1252"))
    use.rows(model, tmp_path / "in.csv", None, tmp_path / "out.csv", False)
    assert [row["text"] for row in read(tmp_path / "out.csv")] == texts
    assert "cp1252" in capsys.readouterr().err
