from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents.encoding import detect
from bantam.errors import BadInput

GERMAN = "Größe und Qualität überzeugen, der Preis ist für das Gerät viel zu hoch.\n"
RUSSIAN = "Очень хороший телефон, но батарея садится за один день, не советую.\n"
JAPANESE = "この製品はとても良いですが、電池がすぐに切れます。おすすめしません。\n"


def opened(path: Path) -> str:
    found = detect(path)
    return path.read_text(encoding=found.name, errors=found.errors)


@pytest.mark.parametrize(
    ("text", "encoding", "guessed"),
    [
        (GERMAN, "utf-8", False),
        (GERMAN, "utf-8-sig", False),
        (GERMAN, "utf-16", False),
        (GERMAN, "utf-32", False),
        (GERMAN, "utf-16-le", False),
        (GERMAN, "utf-16-be", False),
        (GERMAN, "latin-1", True),
        (GERMAN, "cp1252", True),
        ("señor, ¿qué tal?", "latin-1", True),
        ("l’été “cher” à 5 €", "cp1252", True),
        (RUSSIAN * 3, "cp1251", True),
        (JAPANESE * 3, "shift_jis", True),
        ("plain", "ascii", False),
    ],
)
def test_the_text_comes_back(tmp_path: Path, text: str, encoding: str, guessed: bool) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    assert opened(path) == text
    assert bool(detect(path).note) is guessed


def test_a_latin_1_word_late_in_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = "the same english line again and again\n" * 60_000 + "un café très agréable\n"
    path.write_bytes(text.encode("latin-1"))
    assert opened(path) == text
    assert "not UTF-8" in detect(path).note


def test_a_character_across_the_block_boundary(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = "x" * ((1 << 20) - 1) + "é"
    path.write_text(text, encoding="utf-8")
    assert detect(path) == ("utf-8", "strict", "")


def test_utf8_with_a_few_bad_bytes_stays_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(JAPANESE.encode() * 10 + b"\xff" + JAPANESE.encode())
    assert opened(path) == JAPANESE * 10 + "\ufffd" + JAPANESE
    assert "replaced" in detect(path).note


@given(st.binary(max_size=300))
def test_any_bytes_can_be_opened_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_bytes(content)
    try:
        opened(path)
    except BadInput as error:
        assert error.mend
