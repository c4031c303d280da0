import csv
import json
import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam import recipe
from bantam.errors import BadInput
from bantam.text.first_recipe import describe, write_recipe
from bantam.text.look import Look, look
from bantam.text.prepare import prepare

WORDS = ["the", "a", "pipe", "is", "good", "bad", "well", "made", "in", "of", "phone", "never"]


def save(folder: Path, name: str, table: dict[str, list[str]]) -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def texts(count: int) -> list[str]:
    dice = random.Random(count)
    return [" ".join(dice.choices(WORDS, k=12)) + f" {n}" for n in range(count)]


def remark(seen: Look, name: str) -> str:
    return next(column.remark for column in seen.columns if column.name == name)


def test_the_usual_columns_are_found(tmp_path: Path) -> None:
    count = 600
    rating = [n % 7 for n in range(count)]
    table = {
        "id": [f"{n // 5}_{n % 5}" for n in range(count)],
        "customer": [f"c{n // 5}" for n in range(count)],
        "stars": [f"{stars + n / 10_000}" for n, stars in enumerate(rating)],
        "language": ["en"] * count,
        "review": texts(count),
        "sentiment": ["good" if stars > 3 else "bad" for stars in rating],
        "nothing": [""] * count,
    }
    seen = look(save(tmp_path, "a.csv", table))
    assert (seen.input.column, seen.output.column) == ("review", "sentiment")
    assert seen.group.column == "customer" and "follow each other" in seen.group.reason
    assert seen.labels == {"bad": 344, "good": 256}
    assert "tells the label for " in remark(seen, "stars")
    assert "put it in a column of its own" in remark(seen, "id")
    assert remark(seen, "language") == "always the same value"
    assert remark(seen, "nothing") == "empty"
    assert {column.name: column.kind for column in seen.columns} == {
        "id": "id",
        "customer": "words",
        "stars": "number",
        "language": "constant",
        "review": "text",
        "sentiment": "words",
        "nothing": "empty",
    }
    told = describe(seen)
    for words in ('input  = "review"', 'group  = "customer"', "256   43%  good", "empty"):
        assert words in told


def test_a_group_is_not_seen_where_there_is_none(tmp_path: Path) -> None:
    dice = random.Random(0)
    table = {
        "text": texts(500),
        "price": [str(dice.randrange(100)) for _ in range(500)],
        "label": [dice.choice("ab") for _ in range(500)],
    }
    seen = look(save(tmp_path, "a.csv", table))
    assert seen.group.column is None and remark(seen, "price") == ""


def test_what_will_be_dropped_is_told(tmp_path: Path) -> None:
    body = texts(100)
    table = {"body": [*body, body[0], body[1]], "class": ["x", "y"] * 51}
    table["class"][99] = "Y "
    table["body"][5] = ""
    seen = look(save(tmp_path, "a.csv", table))
    assert seen.dropped == {"duplicate": 2, "no text": 1}
    assert seen.merged_labels == {"Y": "y"}
    text = write_recipe(seen, tmp_path / "recipe.toml")
    assert "# dropped: 2 rows: duplicate" in text and '# "Y" counts as "y"' in text


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(texts(60))]
    lines = [*map(json.dumps, rows), '{"text": "broken']
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    seen = look(tmp_path / "a.jsonl")
    (told,) = seen.warnings
    assert told.startswith("1 rows cannot be read and are left out; row 61: ")
    assert told in describe(seen)


def test_a_first_row_that_is_no_header_is_told(tmp_path: Path) -> None:
    first, *rest = texts(60)
    seen = look(save(tmp_path, "a.csv", {first: rest, "b": ["a", "b", "b"] * 19 + ["a", "b"]}))
    assert seen.warnings == ['is the first row a header? "b" is also a value of its column']
    assert not look(
        save(tmp_path, "b.csv", {"text": rest, "label": ["a", "b"] * 29 + ["a"]})
    ).warnings


def test_columns_of_one_name(tmp_path: Path) -> None:
    def written(header: list[str]) -> Path:
        with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows([text, text, "x", "ab"[n % 2]] for n, text in enumerate(texts(60)))
        return tmp_path / "a.csv"

    with pytest.raises(BadInput, match='several columns are called "text"'):
        look(written(["text", "text", "x", "label"]))
    seen = look(written(["text", "x", "x", "label"]))
    assert seen.warnings == ['columns that are called alike are passed over: "x"']


def test_a_group_of_few_values_is_told(tmp_path: Path) -> None:
    table = {
        "text": texts(60),
        "customer": [f"c{n % 9}" for n in range(60)],
        "label": ["a", "b"] * 30,
    }
    seen = look(save(tmp_path, "a.csv", table))
    assert seen.group.column is None
    assert seen.group.reason.startswith('"customer"? 9 values are too few')


def test_a_recipe_elsewhere_points_back_at_the_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes" / "one").mkdir(parents=True)
    path = save(tmp_path / "data", "pypi:odd name.csv", {"t": texts(90), "l": ["a", "b", "c"] * 30})
    target = tmp_path / "recipes" / "one" / "recipe.toml"
    target.write_text(write_recipe(look(path), target), encoding="utf-8")
    [source] = recipe.load(target).data.examples
    assert (target.parent / source).resolve() == path.resolve()


@pytest.mark.parametrize("label", ["b", "c"])
def test_columns_of_votes_are_seen_where_each_label_has_one(tmp_path: Path, label: str) -> None:
    votes = [str(n % 4) for n in range(100)]
    table = {
        "text": texts(100),
        "label": ["a", "b"] * 50,
        "votes_a": votes,
        f"votes_{label}": votes[::-1],
    }
    path = save(tmp_path, "a.csv", table)
    target = tmp_path / "recipe.toml"
    target.write_text(write_recipe(look(path), target), encoding="utf-8")
    assert recipe.load(target).data.shares == ("votes_" if label == "b" else None)


def test_a_large_file_is_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bantam.text.look.MOST_ROWS", 1000)
    monkeypatch.setattr("bantam.text.read.CHUNK", 1000)
    seen = look(save(tmp_path, "a.csv", {"t": texts(30_000), "l": ["a", "b"] * 15_000}))
    assert seen.partly and seen.rows == 1000
    assert seen.rows_in_all == pytest.approx(30_000, rel=0.1)
    written = tomllib.loads(write_recipe(seen, tmp_path / "recipe.toml"))
    assert written["data"]["test"] == pytest.approx(800 / 30_000, rel=0.1)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"a": ["x"] * 50, "b": ["y"] * 50}, "no column holds texts"),
        ({"text": texts(9), "label": ["a", "b", "a"] * 3}, "has only 9 rows"),
        ({"text": texts(50)}, "no column looks like a label"),
        ({"text": texts(50), "label": ["a"] * 50}, "no column looks like a label"),
        ({"text": texts(50), "id": [str(n) for n in range(50)]}, "no column looks like a label"),
        ({"text": texts(50), "label": ["a", "A"] * 25}, "fewer than two labels"),
    ],
)
def test_files_without_a_text_or_a_label(
    tmp_path: Path, table: dict[str, list[str]], words: str
) -> None:
    with pytest.raises(BadInput) as caught:
        look(save(tmp_path, "a.csv", table))
    assert words in str(caught.value) and caught.value.mend


NAMES = st.text(alphabet="abtext \"'#=[].\\\n\té\x7f\u2028", min_size=1, max_size=8).map(str.strip)
LABELS = st.text(alphabet="abc \"'#\\\n\x1b\x7fé", min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(NAMES.filter(bool), min_size=4, max_size=4, unique=True),
    st.lists(LABELS, min_size=2, max_size=5, unique_by=lambda text: text.strip().lower()),
    st.integers(60, 250),
    st.integers(1, 9),
    st.sampled_from(["a.csv", "a.jsonl", "pypi:x.csv", 'quo"te\\.csv']),
    st.randoms(use_true_random=False),
)
def test_what_is_written_can_be_loaded_and_prepared(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    labels: list[str],
    count: int,
    block: int,
    file: str,
    dice: random.Random,
) -> None:
    columns = [
        texts(count),
        [dice.choice(labels) for _ in range(count)],
        [f"g{n // block}" for n in range(count)],
        [str(dice.random()) for _ in range(count)],
    ]
    table = dict(zip(names, columns, strict=True))
    folder = tmp_path_factory.mktemp("any")
    path = save(folder, file, table)
    if file.endswith(".jsonl"):
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    try:
        seen = look(path)
    except BadInput:
        assert len({label.strip() for label in labels} - {""}) < 2 or len(set(columns[1])) < 2
        return
    assert seen.input.column == names[0]
    target = folder / "recipe.toml"
    target.write_text(write_recipe(seen, target), encoding="utf-8")
    read = recipe.load(target)
    assert (read.data.input, read.data.output) == (seen.input.column, seen.output.column)
    assert read.data.group == seen.group.column
    made = prepare(read.data, [folder / source for source in read.data.examples])
    assert made.report["labels"] == seen.labels
    assert "\x1b" not in describe(seen)


def test_what_is_offered_in_a_comment_is_a_sound_line(tmp_path: Path) -> None:
    table = {"text": texts(60), "label": ["good", "bad"] * 30}
    written = write_recipe(look(save(tmp_path, "a.csv", table)), tmp_path / "recipe.toml")
    assert written.count("\n# sure = ") == 1
    (tmp_path / "recipe.toml").write_text(written.replace("\n# sure", "\nsure"), "utf-8")
    assert recipe.load(tmp_path / "recipe.toml").task.sure == 0.9
