"""How byte-level BPE tokenizers cut text into words before merging, by their names in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tokenizers import Regex, pre_tokenizers


class Rule(NamedTuple):
    """The steps of cutting, and whether a word that is a token by itself is taken whole."""

    steps: tuple[tuple[str, Any], ...]
    whole_words: bool


# The patterns of llama.cpp, and how Hugging Face files write the contractions in them.
_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_HF_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# `tokenizer.ggml.pre`: the rule (llm_tokenizer_bpe in src/llama-vocab.cpp).
RULES = {
    "gpt-2": Rule((("bytes", True),), whole_words=False),
    "smollm": Rule((("digits", True), ("bytes", True)), whole_words=False),
    "llama-bpe": Rule(
        (("split", _WORDS.replace("DIGITS", "{1,3}")), ("bytes", False)), whole_words=True
    ),
    "qwen2": Rule((("split", _WORDS.replace("DIGITS", "")), ("bytes", False)), whole_words=False),
}

_MAKE: dict[str, Callable[[Any], pre_tokenizers.PreTokenizer]] = {
    "digits": lambda each: pre_tokenizers.Digits(individual_digits=each),
    "split": lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated"),
    "bytes": lambda cut: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut),
}


def make(name: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer of the rule `name`."""
    return pre_tokenizers.Sequence([_MAKE[step](how) for step, how in RULES[name].steps])


def name_of(pre_tokenizer: dict[str, Any], whole_words: bool) -> str | None:
    """The rule that a tokenizer.json describes in its `pre_tokenizer`; None for another one."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    rule = Rule(tuple(map(_step, steps)), whole_words)
    return next((name for name in RULES if RULES[name] == rule), None)


def _step(step: dict[str, Any]) -> tuple[str, Any]:
    match step:
        case {"type": "Digits", "individual_digits": each}:
            return "digits", each
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated"}:
            return "split", pattern.replace(_HF_CONTRACTIONS, _CONTRACTIONS)
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "bytes", step.get("use_regex", True)
    return "unknown", None
