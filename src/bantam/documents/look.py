"""Look at a folder of documents: what lies there, and which of the rules fit it."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from bantam.documents import language, quality, words
from bantam.documents.document import Unread
from bantam.documents.normalise import normalise
from bantam.documents.read import read_files
from bantam.documents.walk import Source, files
from bantam.errors import BadInput
from bantam.recipe_documents import Rules

PAPERS = ("gopher", "repetition", "c4", "fineweb")
MOST_FILES, MOST_BYTES = 200, 16 << 20  # that are looked into
MOST_SHARDS = 4  # of some megabytes of text each, of files that unpack to more


@dataclass(frozen=True)
class Look:
    """What was seen. `suffixes` counts all files, the commonest first; `documents` and
    `characters` are of the sample that was read, `languages` shares of these characters. `against`
    is the share of these documents that the rules of each paper alone would take out."""

    folder: Path
    files: int
    bytes: int
    suffixes: dict[str, int]
    looked_into: int  # files
    documents: int
    characters: int
    languages: dict[str, float]
    against: dict[str, float]
    unread: list[Unread]

    @property
    def documents_in_all(self) -> int:
        """An estimate."""
        return round(self.documents * self.files / self.looked_into)


def look(folder: Path) -> Look:
    """Walk through a folder and read a sample of its files. BadInput: there is no text in it."""
    passed: list[Unread] = []
    source = Source("documents", folder)
    paths: list[str] = []
    for path in files(source):
        passed.append(path) if isinstance(path, Unread) else paths.append(path)
    sizes = {path: (folder / path).stat().st_size for path in paths}
    sample = _sample(sizes)
    shards = []
    for number, frame in enumerate(read_files([(source, path) for path in sample], passed), 1):
        shards.append(frame)
        if number == MOST_SHARDS:
            break
    if not shards:
        why = passed[0].reason if passed else "it is empty"
        raise BadInput(
            f"{folder} holds no text that can be read: {why}",
            "name a folder of documents, or a file of labelled rows",
        )
    texts = pl.concat(normalise(frame["text"], True)[0] for frame in shards)
    seen = language.identify(pl.DataFrame({"text": texts}))
    return Look(
        folder=folder,
        files=len(paths),
        bytes=sum(sizes.values()),
        suffixes=dict(Counter(PurePosixPath(path).suffix.lower() for path in paths).most_common()),
        looked_into=len(sample),
        documents=len(texts),
        characters=int(texts.str.len_chars().sum()),
        languages=_languages(seen),
        against=dict(_against(seen)),
        unread=passed,
    )


def _sample(sizes: dict[str, int]) -> list[str]:
    """Some of the files, by chance, but always the same; sorted. One at least, however large."""
    order = sorted(sizes)
    random.Random(0).shuffle(order)  # noqa: S311
    taken, room = order[:1], MOST_BYTES
    for path in order[1:MOST_FILES]:
        if sizes[path] <= room:
            taken.append(path)
            room -= sizes[path]
    return sorted(taken)


def _languages(seen: pl.DataFrame) -> dict[str, float]:
    known = seen.filter(pl.col("language").is_not_null())
    letters = pl.col("text").str.len_chars().sum().alias("characters")
    counts = known.group_by("language").agg(letters).sort("characters", descending=True)
    total = max(1, counts["characters"].sum())
    return {name: round(count / total, 3) for name, count in counts.iter_rows()}


def _against(seen: pl.DataFrame) -> Iterator[tuple[str, float]]:
    found = words.split(seen["text"])
    measures = quality.measure(found, Rules(), seen["language"])
    frame = seen.select("text", reason=pl.lit(None, pl.String), value=pl.lit(None, pl.String))
    for paper in PAPERS:
        alone = Rules.model_validate({other: False for other in PAPERS if other != paper})
        judged = quality.judge(frame, measures, alone)
        yield paper, round(judged["reason"].count() / len(judged), 3)
