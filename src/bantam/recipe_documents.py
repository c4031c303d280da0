"""A recipe of documents: which there are, what of them is kept, and the model that learns them.

A rule is switched off with `false`: TOML knows no null.
"""

import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from bantam.errors import BadInput
from bantam.recipe_file import NAME, default_name, held, table_of
from bantam.recipe_types import (
    Column,
    Files,
    Seconds,
    Section,
    Seed,
    Share,
    Source,
    nearest,
    source,
)

UNNAMED = "documents"  # the source of files that have no name
BUDGET = 600.0  # seconds of training, where the recipe says neither budget nor tokens
PLAIN = ("zstd", "ngram")  # ways to predict text without a language model
BASE = "base"  # the rival that is what training went on with
RIVALS = (*PLAIN, BASE)  # those that have names here
SCRATCH = "scratch"
OF_SCRATCH = ("parameters", "vocabulary", "depth", "width")  # keys that shape a new model
ENGLISH = ["the", "be", "to", "of", "and", "that", "have", "with"]  # Gopher's stop words


def _no_false(value: object) -> object:
    return None if value is False else value


IntOrOff = Annotated[int | None, BeforeValidator(_no_false)]
FloatOrOff = Annotated[float | None, BeforeValidator(_no_false)]


def _off(section: type[Section]) -> BeforeValidator:
    """`false` in place of a table: none of its rules."""

    def read(value: object) -> object:
        if value is not False:
            return value
        fields = section.model_fields.items()
        return section(**{name: False for name, field in fields if _may_be_off(field)})

    return BeforeValidator(read)


def _may_be_off(field: FieldInfo) -> bool:
    return field.annotation is bool or NoneType in get_args(field.annotation)


class Gopher(Section):
    """Gopher's quality rules. Symbols count in the shares of words, as they do in datatrove."""

    min_words: IntOrOff = 50
    max_words: IntOrOff = 100_000
    min_word_length: FloatOrOff = 3
    max_word_length: FloatOrOff = 10
    max_hashes: FloatOrOff = 0.1  # "#" per word
    max_ellipses: FloatOrOff = 0.1  # "..." per word
    max_bullet_lines: FloatOrOff = 0.9  # share of the lines that begin with "-" or a bullet
    max_ellipsis_lines: FloatOrOff = 0.3  # share of the lines that end with an ellipsis
    min_alphabetic: FloatOrOff = 0.8  # share of the words that hold a letter
    min_stop_words: IntOrOff = 2  # how many different ones
    # By language. Documents in others are not asked for any; without a column `language` all count
    # as English.
    stop_words: dict[str, list[str]] = Field(default={"en": ENGLISH})


class Repetition(Section):
    """Gopher's rules on repetition: shares of the lines, paragraphs or characters of a document."""

    max_lines: FloatOrOff = 0.3
    max_paragraphs: FloatOrOff = 0.3
    max_line_characters: FloatOrOff = 0.2
    max_paragraph_characters: FloatOrOff = 0.2
    max_top_2_gram: FloatOrOff = 0.2
    max_top_3_gram: FloatOrOff = 0.18
    max_top_4_gram: FloatOrOff = 0.16
    max_5_grams: FloatOrOff = 0.15
    max_6_grams: FloatOrOff = 0.14
    max_7_grams: FloatOrOff = 0.13
    max_8_grams: FloatOrOff = 0.12
    max_9_grams: FloatOrOff = 0.11
    max_10_grams: FloatOrOff = 0.1


class C4(Section):
    """C4's rules. Its first six keys are of lines (module `c4`), the others of documents.

    Two are off as they come, since they take headings, lists and code: C4 has `line_ends` true and
    `min_line_words` 3.
    """

    line_ends: bool = False  # a line must end with . ? ! " or ', and not with "..."
    min_line_words: IntOrOff = None
    max_word_characters: IntOrOff = 1000  # of the longest word of a line
    javascript: bool = True  # lines that speak of it go
    policy: bool = True  # lines that speak of cookies, terms of use or privacy policies go
    citations: bool = True  # "[12]", "[edit]" and "[citation needed]" are taken out of lines
    lorem_ipsum: bool = True
    curly_brackets: bool = True
    min_sentences: IntOrOff = 5


class FineWeb(Section):
    """FineWeb's own rules."""

    min_ended_lines: FloatOrOff = 0.12  # share of the lines that end a sentence
    max_short_lines: FloatOrOff = 0.67  # share of the lines of at most `short_line` characters
    short_line: int = 30
    max_repeated_characters: FloatOrOff = 0.01  # share that stands in repeated lines
    max_newlines: FloatOrOff = 0.3  # per word


class Rules(Section):
    """All thresholds, with the papers' values. `gopher = false` switches off all of a paper's."""

    gopher: Annotated[Gopher, _off(Gopher)] = Gopher()
    repetition: Annotated[Repetition, _off(Repetition)] = Repetition()
    c4: Annotated[C4, _off(C4)] = C4()
    fineweb: Annotated[FineWeb, _off(FineWeb)] = FineWeb()


class Boilerplate(Section):
    """When a line is boilerplate: in how many documents of its source, and in which share."""

    min_documents: int = 10
    min_share: float = 0.05


class Redaction(Section):
    """Personal data that is replaced before anything is kept.

    `kinds` as `bantam.documents.redact` names them; empty: nothing is looked for. `regions` are
    those whose telephone numbers are known without "+". `patterns` and `words` are your own, by
    the name that stands in their place. With `fakes` they are replaced by values that look real and
    cannot be, else by placeholders such as <EMAIL>.
    """

    kinds: list[str] | None = None
    regions: list[str] = Field(default=["US"])
    patterns: dict[str, str] = Field(default={})
    words: dict[str, list[str]] = Field(default={})
    fakes: bool = False


class From(Section):
    """Documents that belong together: folders, patterns, archives and files.

    Of tables, `text` is the column that holds text and `licence_column` that of its licence.
    `licence` is that of files that say nothing. `weight` is how often each document is read in
    training: 2.5 for twice, and half of them a third time.
    """

    files: Files
    text: Column | None = None
    licence: str | None = None
    licence_column: Column | None = None
    weight: Annotated[float, Field(ge=0, le=100)] = 1.0


class Score(Section):
    """A score that is learned from what is called good; the best `keep` of the documents stay.

    `good` are files of documents as they should be, `ratings` what `bantam text rate` wrote. What
    was rated bad is held against them, or where nothing was, a sample of all documents.
    """

    good: list[Source] = Field(default=[])
    ratings: Source | None = None
    keep: Share = 0.5


class Documents(Rules):
    """Unlabelled text.

    `files` are documents without more to say of them; `sources` tell more, by name. Documents in
    other languages than `languages` go, if it names any. `against` are files of rows that training
    must not have seen, such as benchmarks. `markup = false` leaves HTML in texts as it is. `val` is
    the share that is held out. `order` is that of training: by chance, the best last, or the short
    and easy first.
    """

    files: list[Source] = Field(default=[])
    sources: dict[str, From] = Field(default={})
    markup: bool = True
    languages: list[str] = Field(default=[])
    language_probability: Share = 0.3  # 99 of 100 English manuals have more
    boilerplate: Annotated[Boilerplate | None, BeforeValidator(_no_false)] = Boilerplate()
    redact: Redaction = Redaction()
    score: Score | None = None
    against: list[Source] = Field(default=[])
    order: Literal["shuffled", "quality", "curriculum"] = "shuffled"
    val: Share = 0.02
    seed: Seed = 0


class Purpose(Section):
    """What the documents are for. The name defaults to that of the recipe's folder."""

    name: Annotated[str, Field(pattern=NAME)] = "documents"
    kind: Literal["complete"] = "complete"


def _rival(text: str) -> str:
    if text in RIVALS:
        return text
    if text.endswith(".gguf") or re.search(r"[:/\\]", text):
        return source(text)
    raise ValueError(
        f"must be one of {', '.join(RIVALS)}, or a model: a .gguf, pypi:..., hf:..., https:... or "
        f"a path with a slash{nearest(text, RIVALS)}"
    )


def _base(text: str) -> str:
    return text if text == SCRATCH else source(text)


class Base(Section):
    """What the model starts from: "scratch" is nothing, else a pretrained model goes on reading."""

    model: Annotated[str, AfterValidator(_base)] = SCRATCH


class Train(Section):
    """How long to train, `budget` or `tokens`, and what shall not be decided by the rules.

    `parameters` is the size of the model; its shape can also be given as `depth` and `width`.
    `context` is how many tokens it sees at once, `batch` how many a step takes, `learning_rate`
    that of embeddings and norms: the matrices' changes with it. A base that is gone on with has its
    own vocabulary and shape, and learns by LoRA.
    """

    budget: Seconds | None = None
    tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, validate_default=True)
    parameters: Annotated[int, Field(ge=10_000, le=10**11)] | None = None
    vocabulary: Annotated[int, Field(ge=257, le=1 << 20)] | None = None
    context: Annotated[int, Field(ge=16, le=1 << 17)] | None = None
    depth: Annotated[int, Field(ge=1, le=256)] | None = None
    width: Annotated[int, Field(ge=32, le=1 << 14)] | None = None
    batch: Annotated[int, Field(ge=16, le=1 << 24)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=10)] | None = None
    seed: Seed = 0
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None

    @field_validator("tokens")
    @classmethod
    def _one_length(cls, tokens: int | None, info: ValidationInfo) -> int | None:
        if tokens is not None and info.data.get("budget") is not None:
            raise ValueError("and train.budget exclude each other; keep one")
        return tokens

    @field_validator("width")
    @classmethod
    def _one_size(cls, width: int | None, info: ValidationInfo) -> int | None:
        if width is not None and info.data.get("parameters") is not None:
            raise ValueError("and train.parameters exclude each other; keep one")
        if width is not None and width % 32:
            raise ValueError("must be a multiple of 32")
        return width


class Judge(Section):
    """What the model must beat: ways to predict text without one, other models, and the base that
    it went on with."""

    rivals: list[Annotated[str, AfterValidator(_rival)]] = Field(default=list(PLAIN))


class Written(Section):
    """The file as its author writes it."""

    task: Purpose = Purpose()
    documents: Documents
    base: Base = Base()
    train: Train = Train()
    judge: Judge = Judge()


class Recipe(Written):
    """A recipe of documents and the file that it stands in; its relative paths start there."""

    path: Path

    @property
    def continues(self) -> bool:
        """Whether training goes on with a base."""
        return self.base.model != SCRATCH


def load(path: Path) -> Recipe:
    """Read and check a recipe of documents. BadInput tells every mistake with its line and key."""
    text, raw = table_of(path)
    if "data" in raw and "documents" not in raw:
        raise BadInput(
            f"{path} is a recipe of labelled rows, which has no documents",
            "`bantam make` cleans and reports them first; documents stand under [documents]",
        )
    if isinstance(raw.setdefault("task", {}), dict):
        raw["task"].setdefault("name", default_name(path))
    written = held(path, text, raw, Written, {})
    documents = written.documents
    if not documents.files and not documents.sources:
        raise BadInput(
            f"{path}: [documents] names no files", 'add files = ["notes/", "mails/*.mbox"]'
        )
    if documents.files and UNNAMED in documents.sources:
        raise BadInput(
            f'{path}: "{UNNAMED}" is what the source of documents.files is called',
            f"rename [documents.sources.{UNNAMED}]",
        )
    if documents.score and not documents.score.good and not documents.score.ratings:
        raise BadInput(
            f"{path}: [documents.score] has nothing to learn from",
            'add good = ["good/"], or ratings = "ratings.jsonl" from `bantam text rate`',
        )
    if documents.order == "quality" and not documents.score:
        raise BadInput(
            f'{path}: documents.order = "quality" needs a score',
            'add [documents.score] with good = ["good/"], or take another order',
        )
    _check_base(path, written)
    return Recipe(**dict(_with_rivals(written)), path=path)


def _check_base(path: Path, written: Written) -> None:
    """Refuse what a base has decided, and a rival that is not there."""
    asked = written.train.model_fields_set
    if written.base.model == SCRATCH:
        if BASE in written.judge.rivals:
            raise BadInput(
                f'{path}: judge.rivals names "{BASE}", but the model starts from scratch',
                "take it out, or name a base.model",
            )
    elif own := [key for key in OF_SCRATCH if key in asked]:
        raise BadInput(
            f"{path}: train.{own[0]} is that of the base, {written.base.model}",
            f'take train.{own[0]} out, or make a model from scratch: base.model = "{SCRATCH}"',
        )


def _with_rivals(written: Written) -> Written:
    """By default a base is a rival too: what has reading on gained?"""
    if written.base.model == SCRATCH or "rivals" in written.judge.model_fields_set:
        return written
    judge = written.judge.model_copy(update={"rivals": list(RIVALS)})
    return written.model_copy(update={"judge": judge})
