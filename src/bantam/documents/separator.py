"""What parts the cells of a csv file."""

import csv


def separator(header: str) -> str:
    """The mark that parts a header most: spreadsheets also write semicolons and tabs."""
    return max(",;\t|", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
