"""Which column of a table holds the text."""

from collections.abc import Mapping

from bantam.documents.parts import Unreadable

SAMPLE = 1000  # rows that are looked at


def text_column(letters: Mapping[str, int], wanted: str | None) -> str:
    """The wanted column, else `text`, else the one with most letters in the first rows."""
    if wanted is not None and wanted not in letters:
        held = ", ".join(list(letters)[:30])[:500]
        raise Unreadable(f'it has no column "{wanted}" with text; it has {held or "none"}')
    if wanted is not None or "text" in letters:
        return wanted or "text"
    if not any(letters.values()):
        raise Unreadable("its rows hold no text")
    return max(letters, key=lambda name: letters[name])
