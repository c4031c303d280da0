"""The file of a recipe: read, held against what it may say, mistakes told with their lines."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bantam.errors import BadInput
from bantam.recipe_types import nearest
from bantam.toml_lines import key_lines

Model = TypeVar("Model", bound=BaseModel)

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"  # of a task
LARGEST = 1_000_000  # bytes; a recipe is written by hand
EXAMPLES = {
    "name": '"my-task"',
    "kind": '"classify"',
    "instruction": '"Which team should answer this message?"',
    "sure": "0.9",
    "schema": '"schema.json"',
    "tools": '"tools"',
    "accepted": '"accepted"',
    "output": '"category"',
    "examples": '["examples.csv"]',
    "group": '"customer"',
    "date": '"created"',
    "mended": '"mended.csv"',
    "none": '"none of these"',
    "budget": '"5 min"',
    "epochs": "1.0",
    "steps": "500",
    "threads": "2",
    "size": '"160 MB"',
    "latency": '"200 ms"',
    "memory": '"1 GB"',
    "prompts": '["Message: {text}\\nTeam:"]',
    "files": '["notes/"]',
    "text": '"body"',
    "licence": '"CC-BY-4.0"',
    "licence_column": '"licence"',
    "languages": '["en"]',
    "stop_words": '{ en = ["the", "of"] }',
    "min_line_words": "3",
    "kinds": '["email", "phone"]',
    "patterns": "{ order = 'A-[0-9]{6}' }",
    "words": '{ client = ["Acme"] }',
    "good": '["good/"]',
    "ratings": '"ratings.jsonl"',
    "against": '["test.csv"]',
    "tokens": "10_000_000",
    "parameters": "7_000_000",
    "vocabulary": "8192",
    "context": "512",
    "depth": "6",
    "width": "256",
    "batch": "4096",
    "weight_decay": "0.1",
    "learning_rate": "0.001",
}
ANY = "NAME"  # of a table that the user names


def default_name(path: Path) -> str:
    """The name of a task whose recipe gives none: its folder's for recipe.toml, else the file's."""
    path = path.absolute()
    name = path.parent.name if path.name == "recipe.toml" else path.stem
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64] or "task"


def table_of(path: Path) -> tuple[str, dict[str, Any]]:
    """The file's text and what it says. Raises BadInput for what is no TOML."""
    text = _text_of(path)
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is not valid TOML: {error}", _syntax_mend(text, error)) from None
    except RecursionError:
        raise BadInput(f"{path} is nested too deeply to be a recipe", "flatten it") from None


def has_documents(path: Path) -> bool:
    """Whether the recipe is one of documents. Raises BadInput for what is no TOML."""
    return of_documents(table_of(path)[1])


def of_documents(raw: dict[str, Any]) -> bool:
    """The same of what a recipe says."""
    task = raw.get("task")
    completes = isinstance(task, dict) and task.get("kind") == "complete"
    return "data" not in raw and ("documents" in raw or completes)


def held(
    path: Path, text: str, raw: dict[str, Any], model: type[Model], context: dict[str, Any]
) -> Model:
    """What the file says, as `model`. BadInput tells every mistake at once, with line and key."""
    try:
        return model.model_validate(raw, context=context)
    except ValidationError as error:
        raise _bad(path, text, raw, model, error) from None


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BadInput(
            f"cannot read the recipe {path}: {error.strerror}",
            "give the path of a recipe.toml; `bantam new DATA` writes one",
        ) from None
    if len(content) > LARGEST:
        raise BadInput(f"{path} is over 1 MB: too large to be a recipe", "is it the data file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not UTF-8 text", "save the file as UTF-8") from None


def _syntax_mend(text: str, error: tomllib.TOMLDecodeError) -> str:
    found = re.search(r"at line (\d+)", str(error))
    lines = text.splitlines()
    if found and int(found[1]) <= len(lines):
        return f"look at line {found[1]}: {lines[int(found[1]) - 1].strip()[:120]}"
    return "the file ends too early: is a quote or a bracket not closed?"


class Mistake(NamedTuple):
    line: int
    key: str
    problem: str
    mend: str


def _bad(
    path: Path, text: str, raw: dict[str, Any], model: type[BaseModel], error: ValidationError
) -> BadInput:
    lines = key_lines(text)
    found: dict[tuple[str | int, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        place = detail["loc"]
        if detail["type"] != "missing":
            place = _written_place(raw, place)
        found.setdefault(place, []).append(detail)
    return told(path, [_mistake(place, details, lines, model) for place, details in found.items()])


def told(path: Path, mistakes: list[Mistake]) -> BadInput:
    mistakes = sorted(mistakes)
    messages = [f"{path}, line {m.line}, {m.key}: {m.problem}" for m in mistakes]
    if len(mistakes) == 1:
        return BadInput(messages[0], mistakes[0].mend)
    mends = [f"line {m.line}: {m.mend}" for m in mistakes]
    return BadInput("\n".join(messages), "\n    ".join(["", *mends]))


def _written_place(raw: Any, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The table, key and item that pydantic means: below the key it adds the branch of a union."""
    for depth, part in enumerate(loc):
        item = isinstance(raw, list) and isinstance(part, int)
        if not item and not (isinstance(raw, dict) and part in raw):
            return loc[: max(depth, 2)]
        raw = raw[part]
    return loc


def _mistake(
    place: tuple[str | int, ...],
    details: list[Any],
    lines: dict[tuple[str | int, ...], int],
    model: type[BaseModel],
) -> Mistake:
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 1)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{_bare(part)}" for part in place)[1:]
    first = details[0]
    if first["type"] == "missing":
        return Mistake(line, key, "is missing", _add(place, model))
    if first["type"] == "extra_forbidden":
        return Mistake(line, key, "there is no such key", _instead(place, model))
    problem = " or ".join(dict.fromkeys(_problem(detail) for detail in details))
    problem = problem.replace(" or must be ", " or ")
    if "exclude each other" in problem:
        return Mistake(line, key, problem, "take one of the two out")
    return Mistake(line, key, f"{problem} (it is {_shown(first['input'])})", _mend(place, model))


def _problem(detail: Any) -> str:
    """What is wrong with a value, in the words of this file rather than of pydantic."""
    kind, context = detail["type"], detail.get("ctx", {})
    plain = {
        "string_type": "must be text in quotes",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "list_type": 'must be a list such as ["a", "b"]',
        "model_type": "must be a table",
        "dict_type": "must be a table",
        "bool_type": "must be true or false",
        "string_too_short": "must not be empty",
        "too_short": "must not be empty",
        "string_pattern_mismatch": "must be up to 64 small letters, digits, - and _",
    }
    bounds = {
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "literal_error": "must be {expected}",
        "value_error": "{error}",
    }
    if kind in bounds:
        return bounds[kind].format(**context).replace("'", '"')
    return plain.get(kind, str(detail["msg"]))


def _add(place: tuple[str | int, ...], model: type[BaseModel]) -> str:
    key, field = _field(model, place)
    if section := _section(field.annotation):
        required = [(name, one) for name, one in _keys(section).items() if one.is_required()]
        lines = "".join(f"\n    {name} = {_example(name, one)}" for name, one in required)
        return f"add the table\n    [{_dotted(place)}]{lines}"
    return f"add under [{_dotted(place[:-1])}]: {key} = {_example(key, field)}"


def _instead(place: tuple[str | int, ...], model: type[BaseModel]) -> str:
    key, tables = str(place[-1]), dict(_tables(model))
    homes = [name for name, section in tables.items() if key in _keys(section)]
    if homes:
        return f"{key} belongs under {' or '.join(f'[{table}]' for table in homes)}"
    if len(place) == 1:
        known = list(_keys(model))
        return f"the tables are {', '.join(known)}{nearest(key, known)}"
    _, field = _field(model, place[:-1])
    known = list(_keys(_section(field.annotation) or model))
    return f"the keys of [{_dotted(place[:-1])}] are {', '.join(known)}{nearest(key, known)}"


def _mend(place: tuple[str | int, ...], model: type[BaseModel]) -> str:
    key, field = _field(model, place)
    if _section(field.annotation) is None:
        return f"write for instance {key} = {_example(key, field)}"
    if get_origin(field.annotation) is dict and place[-1] == key:
        place = (*place, ANY)
    return f"write [{_dotted(place)}] on a line of its own and its keys below it"


def _example(key: str, field: FieldInfo) -> str:
    """How a key may be written: its default, or for those without a telling one an example."""
    chosen = get_origin(field.annotation) is Literal and not field.is_required()
    return EXAMPLES[key] if key in EXAMPLES and not chosen else json.dumps(field.default)


def _field(model: type[BaseModel], place: tuple[str | int, ...]) -> tuple[str, FieldInfo]:
    """The last key of a place that a section knows, and what it may hold. Of tables that the user
    names, the name is passed over."""
    names = iter(place)
    section: type[BaseModel] | None = model
    while section is not None and (key := str(next(names, ""))):
        if key not in _keys(section):
            break
        last, field = key, _keys(section)[key]
        section = _section(field.annotation)
        if get_origin(field.annotation) is dict:
            next(names, None)
    return last, field


def _tables(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """All tables by their names in the file, those within others after them."""
    for key, field in _keys(model).items():
        if section := _section(field.annotation):
            named = f".{ANY}" if get_origin(field.annotation) is dict else ""
            yield f"{above}{key}{named}", section
            yield from _tables(section, f"{above}{key}{named}.")


def _section(kind: Any) -> type[BaseModel] | None:
    """The section that a key holds, or of which it holds several; None where it holds none."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((found for one in get_args(kind) if (found := _section(one))), None)


def _keys(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a table as they are written."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _dotted(place: tuple[str | int, ...]) -> str:
    return ".".join(_bare(str(part)) for part in place)


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[\w-]{1,60}", key) else _shown(key)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
