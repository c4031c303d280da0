"""Several labels a text, as text: sets of labels that are equal when their texts are."""

from collections.abc import Iterable

SEPARATOR = "|"  # between the labels of a set
EVEN = 0.5  # the threshold of a label of which nothing better is known


def joined(labels: Iterable[str]) -> str:
    """A set of labels as one text: sorted, each once, "" for none. Equal sets are equal texts."""
    return SEPARATOR.join(sorted(set(labels)))


def parted(text: str) -> list[str]:
    """The labels of a set that `joined` wrote."""
    return text.split(SEPARATOR) if text else []
