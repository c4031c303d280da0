"""The tokenizer of a Hugging Face folder as the `tokenizer.*` keys that GGUF has for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bantam.errors import BadInput
from bantam.formats import pretokenize

# tokenizer.ggml.token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5

# What GGUF calls a token, and what tokenizer_config.json does.
NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}

_MAX_BYTES = 128 << 20
# What a byte-level BPE model or one of its special tokens may not ask for.
_ODD_MODEL = ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
_ODD_TOKEN = ("lstrip", "rstrip", "single_word")


class UnknownTokenizer(BadInput):
    """A sound tokenizer of a kind that is not built here; the runtime may know it."""

    def __init__(self, where: str | Path, what: str) -> None:
        super().__init__(
            f"{where}: its tokenizer ({what}) is only known to the runtime",
            f"use a model with a byte-level BPE tokenizer: {', '.join(pretokenize.RULES)}",
        )


def metadata(folder: Path) -> dict[str, Any]:
    """The `tokenizer.*` keys for the tokenizer in `folder`.

    Unicode normalisation (NFC in Qwen's files) is left out, as the runtime leaves it out. Raises
    UnknownTokenizer for one that is no byte-level BPE of a known rule, BadInput for a broken one.
    """
    path = folder / "tokenizer.json"
    config_path = folder / "tokenizer_config.json"
    config = _json(config_path) if config_path.exists() else {}
    try:
        keys = _keys(path, _json(path), config)
        template = _template(folder, config)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise broken(path, f"{type(error).__name__} at {error}") from error
    return keys if template is None else keys | {"tokenizer.chat_template": template}


def broken(where: str | Path, what: str) -> BadInput:
    return BadInput(f"{where}: not a sound tokenizer: {what}", "download or export the model again")


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise broken(path, f"it has more than {_MAX_BYTES >> 20} MiB")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror})", "name a model folder"
        ) from error
    except (ValueError, RecursionError) as error:
        raise broken(path, f"no JSON ({error})") from error
    if not isinstance(value, dict):
        raise broken(path, "no JSON object")
    return value


def _keys(path: Path, whole: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    model, added = whole["model"], whole["added_tokens"]
    if model["type"] != "BPE":
        raise UnknownTokenizer(path, model["type"])
    pre = pretokenize.name_of(whole["pre_tokenizer"] or {}, bool(model.get("ignore_merges")))
    odd = [key for key in _ODD_MODEL if model.get(key)]
    odd += [key for token in added for key in _ODD_TOKEN if token[key]]
    if pre is None or odd:
        raise UnknownTokenizer(path, odd[0] if odd else "its rule to cut words")

    ids = model["vocab"] | {token["content"]: token["id"] for token in added}
    types = {token["id"]: CONTROL if token["special"] else USER_DEFINED for token in added}
    tokens = {id: token for token, id in ids.items()}
    rows = max(tokens) + 1
    if min(tokens) < 0 or len(tokens) < len(ids) or rows > 2 * len(ids):
        raise broken(path, "the ids of its tokens are not 0, 1, 2 and so on")
    everyone = range(rows)
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [tokens.get(id, f"[PAD{id}]") for id in everyone],
        "tokenizer.ggml.token_type": [
            types.get(id, NORMAL if id in tokens else UNUSED) for id in everyone
        ],
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
        ],
    }
    for name, key in NAMES.items():
        token = config.get(key)
        text = token["content"] if isinstance(token, dict) else token
        if text in ids:
            keys[f"tokenizer.ggml.{name}_token_id"] = ids[text]
    bos = keys.get("tokenizer.ggml.bos_token_id")
    first = _first_added(whole.get("post_processor"))
    keys["tokenizer.ggml.add_bos_token"] = bos is not None and ids.get(first) == bos
    return keys


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
