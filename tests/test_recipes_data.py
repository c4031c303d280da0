"""The recipes that fetch data of calls, of tags and of synopses: what their fetch.py make of it."""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bantam.errors import BadInput
from bantam.judge import calls
from bantam.kinds import declarations

RECIPES = Path(__file__).parents[1] / "recipes"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"fetch_{name.replace('-', '_')}", RECIPES / name / "fetch.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fetch_calls() -> ModuleType:
    return load("function-calls")


@pytest.fixture
def tags(tmp_path: Path) -> ModuleType:
    module = load("package-tags")
    module.TARGET = tmp_path / "data/tags.jsonl"  # type: ignore[attr-defined]
    return module


@pytest.fixture
def synopsis(tmp_path: Path) -> ModuleType:
    module = load("package-synopsis")
    module.TARGET = tmp_path / "data/synopsis.jsonl"  # type: ignore[attr-defined]
    return module


def function(name: str, **types: str) -> dict[str, Any]:
    properties = {parameter: {"type": kind} for parameter, kind in types.items()}
    return {
        "name": name,
        "description": f"What {name} does.",
        "parameters": {"type": "dict", "properties": properties, "required": list(types)[:1]},
    }


def question(
    text: str, *functions: dict[str, Any], accepted: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "id": text,
        "question": [[{"role": "user", "content": text}]],
        "function": list(functions),
        "ground_truth": [accepted] if accepted else [],
    }


def test_a_row_has_the_first_accepted_values(fetch_calls: ModuleType) -> None:
    move = function("move", to="string", speed="float", by="tuple", note="any", where="dict")
    move["parameters"]["properties"]["by"]["items"] = {"type": "integer"}
    move["parameters"]["properties"]["where"]["properties"] = {"x": {"type": "float"}}
    accepted = {
        "move": {
            "to": ["Rome", "Roma"],
            "speed": ["", 1.5],
            "by": [[1, 2], [2, 1]],
            "note": [True],
            "where": [{"x": [2.5, 3], "y": ["", 1]}],
        }
    }
    row = fetch_calls.as_row(question("Go to Rome. ", move, accepted=accepted))
    assert row.text == "Go to Rome."
    assert row.accepted == [accepted]
    arguments = {"to": "Rome", "by": [1, 2], "note": True, "where": {"x": 2.5}}
    assert row.output == [{"name": "move", "arguments": arguments}]
    assert calls.mistake(row.output, row.accepted, row.tools) is None
    (tool,) = row.tools
    assert (tool["type"], tool["function"]["name"]) == ("function", "move")
    parameters = tool["function"]["parameters"]
    kinds = {name: part.get("type") for name, part in parameters["properties"].items()}
    assert parameters["type"] == "object"
    assert kinds == {
        "to": "string",
        "speed": "number",
        "by": "array",
        "note": None,
        "where": "object",
    }
    assert declarations.tools(row.tools, "the row") == row.tools


def test_what_must_be_given_is_not_left_out(fetch_calls: ModuleType) -> None:
    drive = function("drive", efficiency="float", gears="integer")
    accepted = {"drive": {"efficiency": ["", 25.0], "gears": [4]}}
    row = fetch_calls.as_row(question("Drive", drive, accepted=accepted))
    assert row.output == [{"name": "drive", "arguments": {"efficiency": 25.0, "gears": 4}}]


def test_lists_of_objects_and_plain_lists(fetch_calls: ModuleType) -> None:
    assert fetch_calls.first([{"a": [1, 2]}, {"b": ["", 3]}]) == [{"a": 1}, {}]
    assert fetch_calls.first([1, "a"]) == [1, "a"]
    assert fetch_calls.first([]) == []


def two_turns() -> dict[str, Any]:
    entry = question("Go", function("go", to="string"))
    entry["question"][0].insert(0, {"role": "system", "content": "Be kind."})
    return entry


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (two_turns(), "more than one message"),
        (question("No functions"), "no declarations"),
        (question("Odd", function("go", to="place")), "no declarations, or parameters"),
        (question("Odd", function("go there", to="string")), "no declarations, or parameters"),
        (question("Long" * 1500, function("go", to="string")), "too long"),
        (
            question("Go", function("go", to="string"), accepted={"go": {"to": [5]}}),
            "breaks its declaration",
        ),
        (
            question("Go", function("go", to="string"), accepted={"go": {"to": [""]}}),
            "breaks its declaration",
        ),
    ],
)
def test_rows_that_are_left_out(
    fetch_calls: ModuleType, entry: dict[str, Any], reason: str
) -> None:
    lost: Counter[str] = Counter()
    assert list(fetch_calls.usable([entry], lost)) == []
    ((told, count),) = lost.items()
    assert (reason in told, count) == (True, 1)


def test_the_same_question_counts_once(fetch_calls: ModuleType) -> None:
    lost: Counter[str] = Counter()
    entry = question("Go", function("go", to="string"))
    other = question("Go", function("run", to="string"))
    assert len(list(fetch_calls.usable([entry, entry, other], lost))) == 2
    assert lost == {"asked twice": 1}


def rows(fetch_calls: ModuleType, *names: str, calls: bool = True) -> list[Any]:
    """A row for each list of functions such as "a b", of which the first is wanted."""
    made = []
    for number, listed in enumerate(names):
        functions = [function(name, **{f"of_{name}": "string"}) for name in listed.split()]
        wanted = functions[0]["name"]
        accepted = {wanted: {f"of_{wanted}": ["x"]}} if calls else None
        made.append(
            fetch_calls.as_row(question(f"{listed} {number}", *functions, accepted=accepted))
        )
    return made


def named(row: Any) -> list[str]:
    return [tool["function"]["name"] for tool in row.tools]


def test_no_function_is_declared_in_two_groups(
    fetch_calls: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_calls, "LARGEST_GROUP", 4)
    listed = ["a b", "b a", "b a c", "c d", "d c", "d a", "e", "f e b"]
    grouped = fetch_calls.with_groups(
        rows(fetch_calls, *listed) + rows(fetch_calls, "c b a", "e f", calls=False)
    )
    group_of: dict[str, set[str]] = {}
    for row in grouped:
        assert row.output == [] or row.output[0]["name"] in named(row)
        for name in named(row):
            group_of.setdefault(name, set()).add(row.functions)
    assert set(map(len, group_of.values())) == {1}
    assert [named(row) for row in grouped] == [
        ["a", "b"],
        ["b", "a"],
        ["b", "a"],
        ["c", "d"],
        ["d", "c"],
        ["d"],
        ["e"],
        ["f", "e"],
        ["b", "a"],
        ["e", "f"],
    ]


def test_whole_groups_are_judged_until_there_are_enough(
    fetch_calls: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_calls, "JUDGED", {"test": (9, 4), "val": (5, 2)})
    monkeypatch.setattr(fetch_calls, "LARGEST_JUDGED", 3)
    listed = [f"f{number} g{number}" for number in range(20)]
    found = rows(fetch_calls, *listed, *listed[:6], *["f0 g0"] * 4)
    found += rows(fetch_calls, *listed[5:15], calls=False)
    grouped = fetch_calls.with_groups(found)
    parts = fetch_calls.split(grouped)
    assert parts == fetch_calls.split(grouped)
    everything = [row for some in parts.values() for row in some]
    assert sorted(map(str, everything)) == sorted(map(str, grouped))
    for name, (with_a_call, without) in {"test": (9, 4), "val": (5, 2)}.items():
        called = sum(bool(row.output) for row in parts[name])
        assert with_a_call - 1 <= called <= with_a_call
        assert without - 1 <= len(parts[name]) - called <= without
    declared = [{name for row in some for name in named(row)} for some in parts.values()]
    assert len(set.union(*declared)) == sum(map(len, declared)) == 40
    assert "f0" in declared[0]


def test_spellings_of_one_function_are_together(fetch_calls: ModuleType) -> None:
    found = rows(fetch_calls, "get.weather", "Get_Weather", "other")
    same = function("called_otherwise", of_other="string") | {"description": "What other does."}
    found.append(fetch_calls.as_row(question("again", same)))
    one, two, three, four = (row.functions for row in fetch_calls.with_groups(found))
    assert one == two
    assert three == four != one


def test_few_rows_are_the_same_in_any_order(fetch_calls: ModuleType) -> None:
    found = rows(fetch_calls, *(f"f{number}" for number in range(20)), calls=False)
    chosen = fetch_calls.few(found, 5)
    assert len(chosen) == 5
    assert fetch_calls.few(found[::-1], 5) == chosen[::-1]
    assert fetch_calls.few(found, 99) == found


def test_categories_are_read_with_their_answers(fetch_calls: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "possible_answer").mkdir()
    (tmp_path / "BFCL_v4_one.json").write_text('{"id": "1"}\n{"id": "2"}\n')
    (tmp_path / "possible_answer/BFCL_v4_one.json").write_text('{"id": "2", "ground_truth": [5]}')
    (tmp_path / "BFCL_v4_none.json").write_text('{"id": "3"}\n')
    assert list(fetch_calls.entries(tmp_path, ("one", "none"))) == [
        {"id": "1", "ground_truth": []},
        {"id": "2", "ground_truth": [5]},
        {"id": "3", "ground_truth": []},
    ]


FULL = "role::program, scope::utility, use::searching,\n use::viewing, works-with::text"


def paragraph(name: str, short: str, long: str, tag: str = "") -> str:
    tagged = f"Tag: {tag}\n" if tag else ""
    return f"Package: {name}\nSection: utils\n{tagged}Description: {short}\n {long}\n"


def written(module: ModuleType, index: Path, *paragraphs: str) -> list[dict[str, Any]]:
    index.write_text("\n".join(paragraphs))
    module.main([str(index)])
    return [json.loads(line) for line in module.TARGET.read_text().splitlines()]


def test_tags_become_fields(
    tags: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "RARE", 2)
    graphical = ", interface::x11, interface::graphical, uitoolkit::qt"
    assert written(
        tags,
        tmp_path / "Packages",
        paragraph("seek", "finds words", "With seek you find.", f"{FULL}{graphical}"),
        paragraph("look", "finds files", "In files.", f"{FULL}, uitoolkit::TODO{graphical}"),
        paragraph("odd", "finds none", "Or some.", f"{FULL}, works-with::mud, uitoolkit::gtk"),
        paragraph("two", "of two kits", "Both.", f"{FULL}, uitoolkit::gtk, uitoolkit::qt"),
        paragraph("bare", "says little", "It does.", "role::program, use::searching"),
        paragraph("lib", "a library", "Of code.", FULL.replace("program", "shared-lib")),
        paragraph("untagged", "says nothing", "At all."),
    ) == [
        {
            "text": text,
            "output": {
                "interface": interface,
                "use": ["searching", "viewing"],
                "works-with": ["text"],
                "scope": "utility",
                "implemented-in": None,
                "uitoolkit": kit,
            },
        }
        for text, interface, kit in [
            ("finds files. In files.", ["graphical"], "qt"),
            ("finds none. Or some.", [], None),
            ("finds words. With it you find.", ["graphical"], "qt"),
        ]
    ]


def test_tags_are_sorted_and_read_once(tags: ModuleType) -> None:
    assert tags.tags_of("use::b, use::a,\n use::b, odd, lang::c:x, suite::TODO") == {
        "use": ["a", "b"],
        "lang": ["c:x"],
    }
    assert tags.tags_of("") == {}


TOLD = (
    "It reads what others wrote and tells, in as few words as there can be, what they meant. " * 2
)


def test_synopses_that_are_something_to_write(synopsis: ModuleType, tmp_path: Path) -> None:
    rest = TOLD.partition(" ")[2]
    assert written(
        synopsis,
        tmp_path / "Packages",
        paragraph("brief", "shortens long texts", f"Brief shortens. {TOLD}"),
        paragraph("short", "too little", f"1 {TOLD}"),
        paragraph("self", "the self of selves", f"2 {TOLD}"),
        paragraph("said", "Tells, in as few words", f"3 {TOLD}"),
        paragraph("said-dev", "tool for telling things", f"4 {TOLD}"),
        paragraph("old", "tool for old things", f"This is a transitional package. {TOLD}"),
        paragraph("docs", "tool for written things", f"This package contains the headers. {TOLD}"),
        paragraph("terse", "tool for few words", "So it is."),
        paragraph("wordy", "tool for many words", TOLD * 9),
        *(paragraph(f"like{n}", f"tool number {n} of many", f"Alike. {rest}") for n in range(3)),
    ) == [{"text": f"it shortens. {TOLD}".strip(), "synopsis": "shortens long texts"}]


@pytest.mark.parametrize("name", ["package-tags", "package-synopsis"])
def test_an_index_without_long_descriptions_is_refused(name: str, tmp_path: Path) -> None:
    module = load(name)
    (tmp_path / "Packages").write_text("Package: a\nSection: misc\nDescription: short\n")
    with pytest.raises(BadInput, match="lacks the long descriptions"):
        module.main([str(tmp_path / "Packages")])


def test_the_recipes_can_be_read() -> None:
    from bantam import recipe

    for name in ("function-calls", "package-tags", "package-synopsis"):
        assert recipe.load(RECIPES / name / "recipe.toml").task.name == name
    assert str(RECIPES) in sys.path


def test_plays_are_cut_into_scenes_without_what_others_wrote(tmp_path: Path) -> None:
    fetch = load("shakespeare")
    play = tmp_path / "a_gut.txt"
    scene = "SCENE {}. A hall.\n\nHAMLET.\n" + "Words, words, words. \n" * 30
    notice = "<<THIS VERSION IS COPYRIGHT\r\nOF SOMEBODY>>"
    play.write_bytes(
        "\r\n".join(
            [
                "Licence of others",
                "*** START OF THIS PROJECT GUTENBERG EBOOK X ***",
                "ACT I",
                scene.format("I"),
                notice,
                scene.format("II"),
                "End of Project Gutenberg's X",
                "More licence",
            ]
        ).encode("latin-1")
    )
    parts = fetch.parts(fetch.plain(play))
    assert len(parts) == 2
    assert parts[0].startswith("ACT I") and "SCENE I." in parts[0]
    assert parts[1].startswith("SCENE II.")
    assert not any(word in "".join(parts) for word in ("icence", "Gutenberg", "COPYRIGHT", "\r"))


def test_pages_of_a_manual_are_named_by_their_place(tmp_path: Path) -> None:
    fetch = load("docs-writer")
    fetch.TARGET = tmp_path / "data"  # type: ignore[attr-defined]
    place = tmp_path / "opened/usr/share/doc/python3.11/html/_sources/library"
    place.mkdir(parents=True)
    (place / "json.rst.txt").write_text("JSON é", encoding="utf-8")
    assert fetch.write(tmp_path / "opened") == 1
    assert (tmp_path / "data/library-json.txt").read_text(encoding="utf-8") == "JSON é"
    with pytest.raises(BadInput, match="no sources"):
        fetch.write(tmp_path / "data")
