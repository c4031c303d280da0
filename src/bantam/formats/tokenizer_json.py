"""The tokenizer of a Hugging Face folder as the `tokenizer.*` keys that GGUF has for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bantam.errors import BadInput
from bantam.formats import pretokenize, sentencepiece
from bantam.formats.token_types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    UnknownTokenizer,
    broken,
)

__all__ = ["NAMES", "NORMAL", "UNUSED", "metadata"]

# What GGUF calls a token, and what tokenizer_config.json does.
NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}

_MAX_BYTES = 128 << 20
# What a BPE model or one of its special tokens may not ask for.
_ODD_MODEL = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
_ODD_TOKEN = ("lstrip", "single_word")
# Added tokens that are control tokens whatever the file says (convert_hf_to_gguf.py of llama.cpp).
_CONTROL_LOOKS = re.compile(
    r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL
)


def metadata(folder: Path) -> dict[str, Any]:
    """The `tokenizer.*` keys for the tokenizer in `folder`.

    Unicode normalisation (NFC in Qwen's files) is left out, as the runtime leaves it out, and so is
    that some special tokens take the white space after them (Phi-3). Raises UnknownTokenizer for
    one that is neither SentencePiece's BPE nor byte-level BPE of a known rule, BadInput for a
    broken one.
    """
    path, older = folder / "tokenizer.json", folder / "vocab.json"
    config, network = (
        _json(each) if each.exists() else {}
        for each in (folder / "tokenizer_config.json", folder / "config.json")
    )
    try:
        if older.exists() and not path.exists():
            path, whole = older, _from_two_files(folder, config)
        else:
            whole = _json(path)
        keys = _keys(path, whole, config, network)
        template = _template(folder, config)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise broken(path, f"{type(error).__name__} at {error}") from error
    return keys if template is None else keys | {"tokenizer.chat_template": template}


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise broken(path, f"it has more than {_MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror})", "name a model folder"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    content = _read(path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"no JSON ({error})") from error
    if not isinstance(value, dict):
        raise broken(path, "no JSON object")
    return value


def _from_two_files(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What tokenizer.json would say for vocab.json and merges.txt, the form of GPT-2's time."""
    vocab = _json(folder / "vocab.json")
    merges = _read(folder / "merges.txt").decode().split("\n")
    texts = {_text(config.get(key)) for key in NAMES.values()} & vocab.keys()
    special = {"special": True, "lstrip": False, "single_word": False}
    begun = [{"SpecialToken": {"id": _text(config.get("bos_token"))}}] * bool(
        config.get("add_bos_token")
    )
    return {
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [line for line in merges if line and not line.startswith("#version")],
        },
        "added_tokens": [{"content": text, "id": vocab[text]} | special for text in texts],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "post_processor": {"type": "TemplateProcessing", "single": begun},
    }


def _text(token: Any) -> Any:
    """The text of a token that tokenizer_config.json names in one of its two ways."""
    return token["content"] if isinstance(token, dict) else token


def _keys(
    path: Path, whole: dict[str, Any], config: dict[str, Any], network: dict[str, Any]
) -> dict[str, Any]:
    """The keys, from tokenizer.json, tokenizer_config.json and config.json."""
    model, added = whole["model"], whole["added_tokens"]
    if model["type"] != "BPE":
        raise UnknownTokenizer(path, model["type"])
    odd = [key for key in _ODD_MODEL if model.get(key)]
    odd += [key for token in added for key in _ODD_TOKEN if token[key]]
    if odd:
        raise UnknownTokenizer(path, odd[0])

    ids = model["vocab"] | {token["content"]: token["id"] for token in added}
    types = {token["id"]: _added_type(token) for token in added}
    tokens = {id: token for token, id in ids.items()}
    rows = max(tokens) + 1
    if min(tokens) < 0 or len(tokens) < len(ids) or rows > 2 * len(ids):
        raise broken(path, "the ids of its tokens are not 0, 1, 2 and so on")
    everyone = range(rows)
    keys: dict[str, Any] = {
        "tokenizer.ggml.tokens": [tokens.get(id, f"[PAD{id}]") for id in everyone],
        "tokenizer.ggml.token_type": [
            types.get(id, NORMAL if id in tokens else UNUSED) for id in everyone
        ],
    }
    keys |= (_sentencepiece if model.get("byte_fallback") else _byte_level)(path, whole, keys)
    for name, key in NAMES.items():
        text, id = _text(config.get(key)), network.get(f"{key}_id")
        if text in ids:
            keys[f"tokenizer.ggml.{name}_token_id"] = ids[text]
        elif type(id) is int and id in tokens:
            keys[f"tokenizer.ggml.{name}_token_id"] = id
    bos = keys.get("tokenizer.ggml.bos_token_id")
    first = _first_added(whole.get("post_processor"))
    keys["tokenizer.ggml.add_bos_token"] = bos is not None and ids.get(first) == bos
    return keys


def _added_type(token: dict[str, Any]) -> int:
    control = token["special"] or _CONTROL_LOOKS.fullmatch(token["content"])
    return CONTROL if control else USER_DEFINED


def _byte_level(path: Path, whole: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
    """The keys that byte-level BPE has besides tokens and their types."""
    model = whole["model"]
    pre = pretokenize.name_of(whole["pre_tokenizer"] or {}, bool(model.get("ignore_merges")))
    if pre is None:
        raise UnknownTokenizer(path, "its rule to cut words")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
        ],
    }


def _sentencepiece(path: Path, whole: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """The keys of SentencePiece's BPE: its scores follow from the order of the merges."""
    model = whole["model"]
    prefix = _space_prefix(whole.get("normalizer"), whole["pre_tokenizer"])
    if prefix is None:
        raise UnknownTokenizer(path, "its way to write spaces")
    merges = [
        tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]
    ]
    if set(merges) != set(sentencepiece.pairs(model["vocab"])):
        raise UnknownTokenizer(path, "byte_fallback with merges that are not SentencePiece's")
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge), rank)

    tokens, types = keys["tokenizer.ggml.tokens"], list(keys["tokenizer.ggml.token_type"])
    for id, token in enumerate(tokens):
        if types[id] == NORMAL and sentencepiece.BYTE_NAME.fullmatch(token):
            types[id] = BYTE
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        # Words that are found before spaces are rewritten are written with spaces themselves.
        "tokenizer.ggml.tokens": [
            token.replace(sentencepiece.SPACE, " ") if types[id] == USER_DEFINED else token
            for id, token in enumerate(tokens)
        ],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [-float(ranks.get(token, len(merges))) for token in tokens],
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def _space_prefix(normalizer: Any, pre_tokenizer: Any) -> bool | None:
    """Whether text gets a space at its start; None for another treatment of spaces."""
    match normalizer, pre_tokenizer:
        case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, (
            None | {"type": "Split", "pattern": {"String": " "}}  # of which none is left
        ):
            return False
        case {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        }, None:
            return True
        case None, {"type": "Metaspace", "replacement": "▁", "split": False}:
            return bool(pre_tokenizer["prepend_scheme"] != "never")
    return None


def _first_added(post_processor: dict[str, Any] | None) -> str | None:
    """The token that the file puts before every text, if any."""
    match post_processor:
        case {"type": "Sequence", "processors": list(processors)}:
            return next(filter(None, map(_first_added, processors)), None)
        case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": str(token)}}, *_]}:
            return token
    return None


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        return next((each["template"] for each in template if each["name"] == "default"), None)
    return template
