"""How byte-level BPE tokenizers cut text into words before merging, by their names in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tokenizers import Regex, pre_tokenizers


class Rule(NamedTuple):
    """The steps of cutting, and whether a word that is a token by itself is taken whole."""

    steps: tuple[tuple[str, Any], ...]
    whole_words: bool = False


# The patterns of llama.cpp. It has no cases beyond ASCII: a letter that is no a-z may begin a word,
# one that is no A-Z may go on.
_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_UPPER = r"(?:(?=\p{L})[^a-z])"
_LOWER = r"(?:(?=\p{L})[^A-Z])"
_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}DIGITS"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_REST}"
)
_MARKED_WORDS = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*{_REST}"
)
_CASED_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+ENDING|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*ENDING"
    rf"|\p{{N}}DIGITS| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_REST}"
)

_GPT_2 = Rule((("bytes", True),))
_SMOLLM = Rule((("digits", True), ("bytes", True)))
_LLAMA_3 = (("split", _WORDS.replace("DIGITS", "{1,3}")), ("bytes", False))
_QWEN_2 = Rule((("split", _WORDS.replace("DIGITS", "")), ("bytes", False)))
_QWEN_3_5 = Rule((("split", _MARKED_WORDS), ("bytes", False)))
_GPT_4O = _CASED_WORDS.replace("ENDING", f"{_CONTRACTIONS}?").replace("DIGITS", "{1,3}")
_DEEPSEEK_CODER = (
    *(
        ("split", pattern)
        for pattern in (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+")
    ),
    *(("digits", True), ("bytes", False)),
)
_TEKKEN = _CASED_WORDS.replace("ENDING", "").replace("DIGITS", "")

# `tokenizer.ggml.pre`: the rule (llm_tokenizer_bpe in src/llama-vocab.cpp). Of several names for a
# rule the first is the one that a folder's tokenizer gets.
RULES = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "exaone4"), _GPT_2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), _SMOLLM),
    **dict.fromkeys(("llama-bpe", "falcon3", "lfm2"), Rule(_LLAMA_3, whole_words=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Rule(_LLAMA_3)),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan", "megrez"), _QWEN_2),
    "qwen35": _QWEN_3_5,
    **dict.fromkeys(("gpt-4o", "llama4"), Rule((("split", _GPT_4O), ("bytes", False)))),
    "deepseek-coder": Rule(_DEEPSEEK_CODER),
    "tekken": Rule((("split", _TEKKEN), ("bytes", False)), whole_words=True),
}
# Those that begin a prompt with the BOS where the file does not say.
BEGUN = frozenset(("llama-bpe", "falcon3", "lfm2", "tekken"))

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


# How Hugging Face files write parts of the patterns.
_SPELLINGS = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)": _CONTRACTIONS,
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": _UPPER,
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": _LOWER,
}


def _step(step: dict[str, Any]) -> tuple[str, Any]:
    match step:
        case {"type": "Digits", "individual_digits": each}:
            return "digits", each
        # Everything is matched, so nothing is left between the matches.
        case {"type": "Split", "pattern": {"Regex": str(pattern)}} if step[
            "behavior"
        ] == "Isolated" or (step["behavior"] == "Removed" and step["invert"]):
            for theirs, ours in _SPELLINGS.items():
                pattern = pattern.replace(theirs, ours)
            return "split", pattern
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "bytes", step.get("use_regex", True)
    return "unknown", None
