"""Languages of documents, told by the bundled model and without a connection."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
import pytest

from bantam.documents import language
from bantam.errors import BadInput, JobFailed

# A sentence of our own in each.
SAID = {
    "en": "The ferry leaves the harbour at seven, and who is late has to wait for the next one.",
    "de": "Die Fähre verlässt den Hafen um sieben, und wer zu spät kommt, muss länger warten.",
    "fr": "Le bac quitte le port à sept heures, et ceux qui sont en retard attendent le suivant.",
    "es": "El barco sale del puerto a las siete, y quien llegue tarde debe esperar al siguiente.",
    "it": "Il traghetto lascia il porto alle sette, e chi arriva tardi deve aspettare il prossimo.",
    "nl": "De veerboot verlaat de haven om zeven uur, en wie te laat komt moet langer wachten.",
    "pl": "Prom odpływa z portu o siódmej, a kto się spóźni, musi poczekać na następny.",
    "ru": "Паром уходит из порта в семь часов, а кто опоздал, должен ждать следующего.",
    "ja": "渡し船は七時に港を出ます。遅れた人は次の船を待たなければなりません。"
    "明日の朝も同じ時間に出発しますので、どうぞお早めにお越しください。",
}


def frame(*texts: str) -> pl.DataFrame:
    return pl.DataFrame({"text": texts}).with_columns(
        pl.lit(None, pl.String).alias("reason"), pl.lit(None, pl.String).alias("value")
    )


def test_languages_are_told_apart() -> None:
    told = language.identify(frame(*SAID.values()))
    assert told["language"].to_list() == list(SAID)
    assert told["language_probability"].min() > 0.7  # type: ignore[operator]
    assert told["language_probability"].max() <= 1.0  # type: ignore[operator]
    assert told["text"].to_list() == list(SAID.values())


def test_texts_too_short_to_tell_are_unknown_and_stay() -> None:
    short = ["", "Guten Tag!", "1234567890 " * 50, "\n\0\n", SAID["en"][:55]]
    told = language.wanted(language.identify(frame(*short)), ["fr"], 0.3)
    assert told["language"].null_count() == told["language_probability"].null_count() == 5
    assert told["reason"].null_count() == 5


def test_what_is_not_wanted_is_marked_with_what_it_is() -> None:
    texts = frame(SAID["en"], SAID["de"], SAID["fr"], "short").with_columns(
        reason=pl.Series([None, None, "quality", None], dtype=pl.String),
        value=pl.Series([None, None, "3", None], dtype=pl.String),
    )
    told = language.wanted(language.identify(texts), ["en", "nl"], 0.3)
    assert told["reason"].to_list() == [None, "language", "quality", None]
    assert told["value"][1].startswith("de ") and 0.7 < float(told["value"][1][3:]) <= 1
    assert told["value"][2] == "3"
    strict = language.wanted(language.identify(texts), ["en"], 1.01)
    assert strict["value"][0].startswith("en ")


def test_a_preface_in_another_language_does_not_decide() -> None:
    licence = SAID["en"] * 3
    text = licence + "\n" + SAID["de"] * 40
    assert language.identify(frame(text))["language"].to_list() == ["de"]


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(BadInput, match="deutsch"):
        language.wanted(language.identify(frame(SAID["de"])), ["deutsch"], 0.3)
    assert len(language.known()) == 176


def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "SHA256", "0" * 64)
    language._model.cache_clear()
    with pytest.raises(JobFailed, match="language model"):
        language.identify(frame(SAID["en"]))


WATCHED = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        print(event, args)
sys.addaudithook(watch)
import polars as pl
from bantam.documents import language
print(language.identify(pl.DataFrame({"text": [sys.argv[1]]}))["language"][0])
"""


def test_a_process_that_tells_languages_opens_no_socket_and_leaves_no_file(tmp_path: Path) -> None:
    """From its first import on, in a process of its own with an empty home and temporary folder."""
    env = os.environ | {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, SAID["fr"]],
        env=env, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "fr\n"
    assert list(tmp_path.rglob("*")) == []
    assert tempfile.gettempdir() != str(tmp_path)
