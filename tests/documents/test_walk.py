import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.documents.document import Unread
from bantam.documents.walk import DEPTH, Source, files
from bantam.errors import BadInput


def found(folder: Path, *patterns: str) -> list[str]:
    source = Source("s", folder, patterns or ("**",))
    return [one for one in files(source) if isinstance(one, str)]


def passed(folder: Path, *patterns: str) -> dict[str, str]:
    source = Source("s", folder, patterns or ("**",))
    return {one.path: one.reason for one in files(source) if isinstance(one, Unread)}


def fill(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("text")
    return folder


def test_files_come_sorted_whatever_the_disk_says(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.txt", "b.txt", "a/z/1.txt", "a/b.txt", "B.txt", "b/10.txt")
    assert found(tmp_path) == ["B.txt", "a/b.txt", "a/z/1.txt", "b.txt", "b/10.txt", "b/2.txt"]


def test_the_last_pattern_that_fits_decides(tmp_path: Path) -> None:
    fill(tmp_path, "a.md", "drafts/b.md", "drafts/keep/c.md", "x.txt")
    assert found(tmp_path, "**/*.md", "!drafts", "drafts/keep/**") == ["a.md", "drafts/keep/c.md"]


def test_what_programs_keep_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, ".git/config", "__MACOSX/a.txt", "a.txt", ".notes/b.txt")
    assert found(tmp_path) == [".notes/b.txt", "a.txt"]


NAMES = st.sampled_from(["a", "b", "ab", "a.txt", "b.md", "[x]", "ä"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PATTERNS = st.lists(
    st.sampled_from(["a", "*", "**", "?", "a*", "*.txt", "[ab]", "[!a]*", "*b*", "[[]x]", "ä"]),
    min_size=1,
    max_size=3,
).map("/".join)


@settings(max_examples=150)
@given(st.lists(PATHS, max_size=6), PATTERNS)
def test_patterns_mean_what_pathlib_says(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], pattern: str
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for path in paths:
        try:
            fill(folder, path)
        except OSError:
            continue  # a file and a folder of one name
    fits = set(folder.glob(pattern))
    every = [path for path in folder.rglob("*") if path.is_file()]
    told = {path for path in every if path in fits or fits.intersection(path.parents)}
    assert {folder / path for path in found(folder, pattern)} == told


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "secret.txt")
    inside = fill(tmp_path / "inside", "a/b.txt")
    (inside / "file").symlink_to(outside / "secret.txt")
    (inside / "folder").symlink_to(outside)
    (inside / "up").symlink_to("..")
    (inside / "a" / "round").symlink_to(inside)
    (inside / "twin").symlink_to("a/b.txt")
    (inside / "dead").symlink_to("nowhere")
    assert found(inside) == ["a/b.txt"]
    out = "a link out of the folder is not followed"
    assert passed(inside) == {"file": out, "folder": out, "up": out, "dead": "a link to nothing"}


def test_a_folder_that_is_named_by_a_link_is_read(tmp_path: Path) -> None:
    fill(tmp_path / "real", "a.txt")
    (tmp_path / "named").symlink_to("real")
    assert found(tmp_path / "named") == ["a.txt"]


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert passed(tmp_path) == {"pipe": "neither a file nor a folder"}


def test_folders_without_end_end(tmp_path: Path) -> None:
    fill(tmp_path, "/".join(["d"] * (DEPTH + 50)) + "/x.txt")
    assert found(tmp_path) == []
    assert list(passed(tmp_path).values()) == [f"more than {DEPTH} folders deep"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no folder"):
        found(tmp_path / "none")


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_line_end_in_a_name_hides_no_file(tmp_path: Path) -> None:
    fill(tmp_path, "a\nb.txt", "c\nd/e.txt")
    assert found(tmp_path) == found(tmp_path, "*") == ["a\nb.txt", "c\nd/e.txt"]


def test_names_that_are_no_utf_8_are_told_as_text(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.txt")).symlink_to("/etc")
    except OSError:
        pytest.skip("the disk takes only UTF-8, or no links")
    (told,) = passed(tmp_path)
    assert told == "\ufffd.txt"
