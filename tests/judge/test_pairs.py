"""Minimal pairs: what is read, what counts as right, and a model against transformers."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.judge import pairs
from bantam.judge.pairs import ALL, Pair
from bantam.train import held_out
from tiny_nets import decoder, texts, twin


def written(folder: Path, *lines: object) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), "utf-8")
    return file


def test_pairs_are_read(tmp_path: Path) -> None:
    first = {"good": "It is.", "bad": "It are.", "phenomenon": "agreement", "more": [1]}
    file = written(tmp_path, first, "", {"good": "é", "bad": "e"})
    assert pairs.read(file) == [Pair("It is.", "It are.", "agreement"), Pair("é", "e", "other")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 is no JSON"),
        ("[" * 100_000, "line 2 is no JSON"),
        ("[1]", "line 2 is no object"),
        ({"good": "It is."}, 'line 2: "bad" is no sentence'),
        ({"good": " ", "bad": "It are."}, 'line 2: "good" is no sentence'),
        ({"good": 3, "bad": "It are."}, 'line 2: "good" is no sentence'),
        ({"good": "x" * 2001, "bad": "y"}, '"good" has 2001 characters'),
        ({"good": "It is.", "bad": "It is."}, "line 2: both sentences are alike"),
        ({"good": "a", "bad": "b", "phenomenon": 3}, 'line 2: "phenomenon" is no name'),
        ({"good": "a", "bad": "b", "phenomenon": ALL}, 'line 2: "phenomenon" is no name'),
    ],
)
def test_what_is_no_pair_is_told_with_its_line(tmp_path: Path, line: object, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        pairs.read(written(tmp_path, {"good": "a", "bad": "b"}, line))
    assert told in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        pairs.read(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="holds no pairs"):
        pairs.read(written(tmp_path, "", " "))
    (tmp_path / "latin").write_bytes(b'{"good": "\xe9"}')
    with pytest.raises(BadInput, match="no UTF-8"):
        pairs.read(tmp_path / "latin")
    monkeypatch.setattr(pairs, "LARGEST", 10)
    with pytest.raises(BadInput, match="at most"):
        pairs.read(written(tmp_path, {"good": "a", "bad": "b"}))


@given(st.binary(max_size=60) | st.from_regex(r'\{"good": .*, "bad": .*\}', fullmatch=True))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, it: object) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(it if isinstance(it, bytes) else str(it).encode())
    try:
        assert all(pair.good != pair.bad for pair in pairs.read(file))
    except BadInput as error:
        assert error.mend


def test_a_tie_and_what_is_no_number_count_as_wrong() -> None:
    given = [Pair("g1", "b1", "x"), Pair("g2", "b2", "x"), Pair("g3", "b3", "y"), Pair("g4", "b4")]
    known = {"g1": -1.0, "b1": -2.0, "g2": -3.0, "b2": -3.0, "g3": math.nan, "b3": -9.0}
    found = pairs.judge(given, lambda ss: [known.get(s, -5.0 - (s == "b4")) for s in ss])
    assert [(one.phenomenon, one.pairs, one.accuracy) for one in found] == [
        (ALL, 4, 0.5),
        ("other", 1, 1.0),
        ("x", 2, 0.5),
        ("y", 1, 0.0),
    ]
    assert all(0 <= one.low <= one.accuracy <= one.high <= 1 for one in found)
    flat = pairs.judge(given, lambda ss: [0.0 for _ in ss])
    assert [one.accuracy for one in flat] == [0.0] * 4


def test_the_interval_narrows_with_pairs() -> None:
    def width(count: int) -> float:
        some = [Pair(f"g{n}", f"b{n}") for n in range(count)]
        found = pairs.judge(some, lambda ss: [float(n % 3) for n, _ in enumerate(ss)])
        return found[0].high - found[0].low

    assert width(400) < width(40) / 2


@torch.no_grad()
def test_a_model_is_right_where_transformers_says_so() -> None:
    ours = decoder()
    theirs = twin(ours)
    rows = {f"sentence {n}": ids for n, ids in enumerate(texts(97, *(range(3, 43))))}
    names = list(rows)
    given = [Pair(*two) for two in zip(names[::2], names[1::2], strict=True)]
    start = [1]

    def score(sentences: Sequence[str]) -> list[float]:
        bits = held_out.bits_of(ours, [start + rows[s] for s in sentences], context=64)
        return [-each for each in bits.tolist()]

    found = pairs.judge(given, score)

    def likely(name: str) -> float:
        ids = torch.tensor([start + rows[name]])
        length = ids.shape[1] - 1
        return -float(theirs(ids, labels=ids).loss) * length

    right = [likely(pair.good) > likely(pair.bad) for pair in given]
    assert 0 < sum(right) < len(right)
    assert found[0].accuracy == sum(right) / len(right)


def test_the_table_has_a_row_for_each() -> None:
    found = pairs.judge([Pair("a", "b", "x")], lambda ss: [0.0, -1.0])
    assert pairs.table(found).splitlines()[2].startswith("| all | 1 | 1.000 |")
    assert len(pairs.table(found).splitlines()) == 4
