"""What kinds of tokens GGUF knows, and the two errors that a tokenizer can be refused with."""

from __future__ import annotations

from pathlib import Path

from bantam.errors import BadInput
from bantam.formats import pretokenize

# tokenizer.ggml.token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


class UnknownTokenizer(BadInput):
    """A sound tokenizer of a kind that is not built here; the runtime may know it."""

    def __init__(self, where: str | Path, what: str) -> None:
        super().__init__(
            f"{where}: its tokenizer ({what}) is only known to the runtime",
            "use a model with a tokenizer of SentencePiece's BPE or of byte-level BPE "
            f"({', '.join(pretokenize.RULES)})",
        )


def broken(where: str | Path, what: str) -> BadInput:
    """The error for a tokenizer that contradicts itself."""
    return BadInput(f"{where}: not a sound tokenizer: {what}", "download or export the model again")
