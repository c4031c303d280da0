"""How much memory a model takes, told from the head of its file; and what the server keeps."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

from bantam.formats.gguf import GGUF

# What a process takes beside weights, keys and values; 77 MB (135M parameters) to 122 MB (270M)
# were measured, with the keys and values of 1,024 tokens.
PROCESS = 80_000_000
KEPT = 128 << 20  # prompts that gave up their slot to others: see `engine.llama_cpp.KEPT_MIB`
ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_LARGEST = 1 << 20  # of any number in a head that is believed


def needed(file: GGUF, size: int, context: int, slots: int) -> int:
    """Bytes for a file of `size` bytes with room for `context` tokens in each slot.

    That is the whole file, which is mapped, the keys and values of each token in float16, the
    process itself, and with several slots the prompts that it keeps beside them. Layers without
    attention are counted as if they had it.
    """
    kept = KEPT if slots > 1 else 0
    return PROCESS + kept + size + context * slots * _a_token(file.metadata)


def _a_token(metadata: dict[str, Any]) -> int:
    family = metadata.get("general.architecture")

    def told(key: str, otherwise: int) -> int:
        value = metadata.get(f"{family}.{key}")
        return value if isinstance(value, int) and 0 < value < _LARGEST else otherwise

    layers, heads = told("block_count", 0), told("attention.head_count", 1)
    by_layer = metadata.get(f"{family}.attention.head_count_kv")
    if isinstance(by_layer, list):
        kept = sum(n for n in by_layer if isinstance(n, int) and 0 < n < _LARGEST)
    else:
        kept = layers * told("attention.head_count_kv", heads)
    head = told("embedding_length", 0) // heads
    numbers = told("attention.key_length", head) + told("attention.value_length", head)
    return 2 * kept * numbers


def keep_little() -> None:
    """Have all threads share one arena of the C library, where there is a choice (glibc).

    Vocabularies, some fifty megabytes each, are built in whatever thread is free; with arenas of
    their own eight threads kept what each had ever held.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
