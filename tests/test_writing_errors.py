"""What is wrong or odd in the kinds that write their answers: told, or borne, never a traceback."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import job
from bantam import kinds, labelled, pipeline, recipe
from bantam.errors import BadInput
from bantam.job import Job
from bantam.judge import certainty, prompted, written
from bantam.judge.patterns import patterns
from bantam.kinds import Row, declarations, schema, texts
from bantam.model import Model
from test_writing_jobs import TOOLS, write
from tiny import tiny_llama, tokenizer_metadata

Bantam = Callable[..., job.Done]


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def chain(link: Any, last: Any) -> dict[str, Any]:
    """A schema of 40 definitions, each of which refers to the next twice."""
    refs = [{"$ref": f"#/$defs/d{number + 1}"} for number in range(40)]
    defs = {f"d{number}": link(ref) for number, ref in enumerate(refs)}
    return closed({"a": {"$ref": "#/$defs/d0"}}, **{"$defs": defs | {"d40": last}})


UNSOUND: dict[str, dict[str, Any]] = {
    "too large": chain(lambda ref: closed({"left": ref, "right": ref}), {"type": "null"}),
    "without an end": chain(
        lambda ref: {"anyOf": [ref, ref]}, closed({"a": {"$ref": "#/$defs/d40"}})
    ),
    "no number": closed({"a": {"type": "number", "default": float("nan")}}),
    "half of a character": closed({"a": {"enum": ["\ud800", "b"]}}),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_schemas_are_refused_at_once(name: str) -> None:
    with pytest.raises(BadInput) as error:
        schema.check(UNSOUND[name], "task.schema")
    assert error.value.mend


def test_a_schema_that_says_nothing_leaves_the_next_one_alone() -> None:
    schema.check({}, "task.schema")
    assert schema.check(closed({"a": True}), "task.schema")


def test_keys_are_ordered_through_references_of_all_sorts() -> None:
    tree = closed(
        {
            "name": {"type": "string"},
            "kind": {"anyOf": [{"$ref": "#/definitions/kind"}, {"type": "null"}]},
            "child": {"anyOf": [{"$ref": "#"}, {"$ref": "#/properties/kind"}]},
        },
        definitions={"kind": {"enum": ["leaf", "twig"]}},
    )
    leaf = {"child": None, "kind": "leaf", "name": "b"}
    told = schema.ordered(schema.check(tree, "task.schema"), {**leaf, "child": leaf})
    assert list(told) == list(told["child"]) == ["name", "kind", "child"]


def test_references_of_functions_mean_their_own_parts() -> None:
    def function(name: str, kind: str, **more: Any) -> dict[str, Any]:
        properties = {
            "value": {"$ref": "#/definitions/value"},
            "more": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        }
        parts = {"definitions": {"value": {"type": kind}}, **more}
        return {"name": name, "parameters": closed(properties, **parts)}

    some = [function("f", "string", **{"$id": "https://example.org/f"}), function("g", "integer")]
    tools = declarations.tools(some, "tools")
    answer = schema.check(declarations.of_tools(tools, 1), "answer")

    def call(name: str, value: Any, more: Any) -> Any:
        return [{"name": name, "arguments": {"value": value, "more": more}}]

    assert schema.mistake(answer, call("f", "x", {"value": "y", "more": None})) is None
    assert schema.mistake(answer, call("g", 1, {"value": 2, "more": None})) is None
    assert schema.mistake(answer, call("g", 1, {"value": "y", "more": None}))
    assert schema.mistake(answer, call("f", "x", []))


CONTEXT = 512  # of the tiny model
LONG = [{"name": "long", "description": "x y z " * CONTEXT}]


def packed(path: Path, kind: str, **more: Any) -> Model:
    """An untrained model with a task."""
    plain = Model(tiny_llama(path))
    task = texts.task(kind, "tiny", "", **more)
    task = texts.sized(task, plain.encode, [Row("a", "good camera " * 8)], CONTEXT)
    return Model(tiny_llama(path, tokenizer=tokenizer_metadata() | kinds.to_metadata(task)))


def test_a_text_of_any_length_leaves_room_for_the_answer(tmp_path: Path) -> None:
    lists = closed({"a": {"type": "array", "items": {"type": "integer"}, "minItems": 9}})
    for name, more in (("generate", {}), ("extract", {"answer_schema": lists})):
        with packed(tmp_path / f"{name}.gguf", name, **more) as model:
            task = model.asked()
            answer = model.write("good camera " * 10_000)
            assert answer.tokens >= task.max_answer_tokens - 1  # it is untrained and goes on


def test_no_prompt_of_a_rival_leaves_a_long_text_unanswered(tmp_path: Path) -> None:
    rows = [Row(f"the camera {number}", '{"a": 1}') for number in range(3)]
    wanted = closed({"a": {"type": "integer", "description": "how many " * 20}})
    with packed(tmp_path / "model.gguf", "extract", answer_schema=wanted) as model:
        task = model.asked()
        prompts = prompted.zero_shot(model, task, ["Read it with care. " * 5 + "{text}"])
        prompts |= prompted.few_shot(model, task, rows, 3, prompted.longest(model, task, rows))
        assert len(prompts) == 6
        for asked in prompts.values():
            (answer,) = prompted.asking(asked, ())(model, [Row("good camera " * 900, "")])
            assert schema.mistake(wanted, json.loads(answer or "")) is None


def test_what_is_no_text(tmp_path: Path) -> None:
    with packed(tmp_path / "model.gguf", "generate") as model:
        for bad in (None, 5, b"text", ["text"]):
            with pytest.raises(BadInput, match="no text"):
                model(bad)  # type: ignore[arg-type]


def test_rows_without_room_are_wrong_and_end_nothing(tmp_path: Path) -> None:
    """Of ours and of rivals alike; a file of validation or test rows may hold such."""
    told = json.dumps(declarations.tools(TOOLS, "tools"))
    rows = pl.DataFrame(
        {
            "id": [f"{number:016x}" for number in range(24)],
            "input": [f"the camera {number}" for number in range(24)],
            "output": ["[]"] * 24,
            "tools": [json.dumps(declarations.tools(LONG, "tools")), *[told] * 23],
        }
    )
    path = tmp_path / "model.gguf"
    with packed(path, "extract", most_calls=1) as model:
        task = model.asked()
    split = written.split_of("extract", rows)
    found = written._ours(path, task, split, lambda *_: None)
    assert found.answers[0] is None
    assert found.probabilities[0] == 0
    assert None not in found.answers[1:]
    learned = certainty.learned(path, task, split, 0.9, lambda *_: None)
    assert len(learned.certainty) == 2
    with Model(path) as model:
        assert prompted.asking(task, ())(model, split.rows[:2])[0] is None


def test_a_rival_whose_json_cannot_be_held_is_refused(
    tmp_path: Path, tiny_model: Path, bantam: Bantam
) -> None:
    write(tmp_path, tiny_model, "record", rivals='["./theirs.gguf"]')
    tiny_llama(tmp_path / "theirs.gguf", pre="chatglm-bpe")
    for command in ("check", "make"):
        done = bantam(command, "recipe.toml")
        assert done.code == 2
        assert "its tokens are not known" in done.out + done.err
    assert not (tmp_path / "runs/tiny/text").exists()


def test_odd_rows_are_told_or_borne(tmp_path: Path, bantam: Bantam) -> None:
    with packed(tmp_path / "model.gguf", "extract", most_calls=1):
        pass

    def rows(*lines: str) -> None:
        (tmp_path / "rows.jsonl").write_text("\n".join(lines), "utf-8")

    good = json.dumps({"text": "half of a character: \ud800", "tools": TOOLS})
    rows(good)
    done = bantam("run", "model.gguf", "-f", "rows.jsonl", "--json")
    assert json.loads(done.out)["answers"][0]["text"].endswith("\ud800")
    for name in ("out.jsonl", "out.csv"):
        assert bantam("run", "model.gguf", "-f", "rows.jsonl", "-o", name).code == 0
    assert json.loads((tmp_path / "out.jsonl").read_text("utf-8"))["text"].endswith("\ud800")

    rows(good, "[" * 100_000)
    done = bantam("run", "model.gguf", "-f", "rows.jsonl")
    assert done.code == 2
    assert "rows.jsonl, line 2: not JSON" in done.err

    rows(json.dumps({"text": "the second", "tools": [{"name": "two words"}]}))
    done = bantam("run", "model.gguf", "-f", "rows.jsonl")
    assert done.code == 2
    assert 'the text "the second": the functions: ' in done.err


def change(folder: Path, one: str, other: str) -> None:
    """Other words in the recipe, all of which must be there."""
    text = (folder / "recipe.toml").read_text("utf-8")
    assert one in text
    (folder / "recipe.toml").write_text(text.replace(one, other), "utf-8")


def test_rivals_and_prompts_for_nothing_are_refused(
    tmp_path: Path, tiny_model: Path, bantam: Bantam
) -> None:
    write(tmp_path, tiny_model, "record", rivals='["tagger"]')
    for command in ("check", "make"):
        done = bantam(command, "recipe.toml")
        assert done.code == 2
        assert 'judge.rivals: "tagger" finds spans' in done.out + done.err
    assert not (tmp_path / "runs/tiny/train").exists()
    write(tmp_path, tiny_model, "call")
    change(tmp_path, "shots = 2", 'prompts = ["{text}"]')
    done = bantam("check", "recipe.toml")
    assert "judge.prompts: there are none with data.tools" in done.out


def test_outputs_that_make_no_schema_or_call_what_is_not_declared(
    tmp_path: Path, tiny_model: Path, bantam: Bantam
) -> None:
    write(tmp_path, tiny_model, "record")
    keys = [{"text": f"t {n}", "output": {f"k {n} {m}": m for m in range(30)}} for n in range(90)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, keys)), "utf-8")
    done = bantam("check", "recipe.toml")
    assert "what the outputs hold, as a schema: the schema has over 2000 parts" in done.out
    for name, said in (("nope", '"nope" is not'), ("mend", "0.arguments: 'thing' is a required")):
        write(tmp_path, tiny_model, "call")
        call = {"text": "odd", "output": [{"name": name, "arguments": {}}], "tools": TOOLS}
        with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(call))
        done = bantam("check", "recipe.toml")
        assert f"row 161: the output does not follow the declared functions: {said}" in done.out


def test_an_empty_schema_is_refused(tmp_path: Path, tiny_model: Path, bantam: Bantam) -> None:
    write(tmp_path, tiny_model, "record", task='schema = "own.json"')
    (tmp_path / "own.json").write_text("{}", "utf-8")
    assert "own.json says nothing of the answers" in bantam("check", "recipe.toml").out


def test_many_rows_with_the_same_functions_are_checked_quickly() -> None:
    began = time.process_time()
    for row in range(500):
        declarations.tools(TOOLS, f"row {row}")
    assert time.process_time() - began < 2
    bad = {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}
    for row in (1, 2):
        with pytest.raises(BadInput, match=f"row {row}, f"):
            declarations.tools([{"name": "f", "parameters": bad}], f"row {row}")


def test_another_order_of_properties_is_another_schema(tmp_path: Path, tiny_model: Path) -> None:
    """And what can never be met is told."""
    write(tmp_path, tiny_model, "record", task='schema = "own.json"')
    rows = [
        {"text": f"the camera {n}", "output": {"id": 10**17 + n, "small": 1e-7}} for n in range(80)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    made, folder = recipe.load(tmp_path / "recipe.toml"), tmp_path / "run"
    folder.mkdir()
    for names in (["id", "small"], ["small", "id"]):
        own = closed({name: {"type": "number"} for name in names})
        (tmp_path / "own.json").write_text(json.dumps(own), "utf-8")
        found = pipeline._sources(made, folder)
        begun = Job(made, folder, found, recipe.answer_schema(made))
        labelled.stage(begun)
        assert list(json.loads(begun.rows("train")["output"][0])) == names
        assert "train outputs hold numbers over 1e15" in pipeline._never_met(begun)[0]


def test_choices_do_not_begin_with_the_first_rows_of_a_sorted_file() -> None:
    rows = pl.DataFrame({"row": range(1000)})
    some = written.drawn(rows, 100)["row"]
    assert 400 < some.mean() < 600  # type: ignore[operator]
    assert some.equals(written.drawn(rows)["row"].head(100))
    assert written.drawn(rows)["row"].n_unique() == 1000


@pytest.mark.filterwarnings("error")
def test_the_rival_of_fields_bears_texts_that_share_no_word_or_hold_none() -> None:
    outputs = [json.dumps({"a": "xy"[n % 2], "b": ["p", "qr"[n % 2]]}) for n in range(24)]
    for texts_ in ([f"{n}{n + 1}" for n in range(24)], [chr(33 + n % 14) for n in range(24)]):
        found = patterns(texts_[:16], outputs[:16], texts_[16:], outputs[16:], lambda *_: 0.0)
        assert len(found.answer(["?", "new"])) == 2
