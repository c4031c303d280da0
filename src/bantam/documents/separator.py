"""What parts the cells of a csv file."""

import csv
import re

SAID = re.compile(r"sep=(.)\r?\n?")  # what spreadsheets may write as a line before the header


def separator(header: str) -> str:
    """The mark that parts a header most: spreadsheets also write semicolons and tabs."""
    return max(",;\t|", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def said(line: str) -> str | None:
    """The mark that a first line names, such as `sep=;`; None for a header."""
    found = SAID.fullmatch(line)
    return found[1] if found else None
