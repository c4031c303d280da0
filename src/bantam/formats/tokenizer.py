"""Text to token ids and back, the same ids as the runtime gives.

Byte-level BPE only, which is what most small models use. Whether a tokenizer comes from a GGUF file
or a Hugging Face folder, it is held as the `tokenizer.*` keys of GGUF and built from them, so there
is one way to build it. The rules follow src/llama-vocab.cpp of llama.cpp; where a Hugging Face file
and the runtime differ (Unicode normalisation), the runtime is followed, for it is what ships.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, processors

from bantam.formats import pretokenize, tokenizer_json
from bantam.formats.gguf import GGUF
from bantam.formats.tokenizer_json import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    UnknownTokenizer,
    broken,
)

__all__ = ["Segment", "Tokenizer", "UnknownTokenizer"]

# Text and whether it is trusted: control tokens are recognised in trusted text only.
Segment = tuple[str, bool]

# Tokens that the runtime takes for control tokens whatever the file says, because of their text:
# those that end an answer, and those for filling in code.
_END_TEXTS = """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn>
    <|endoftext|> </s> <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance>
    <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~[
"""
_FILL_TEXTS = """
    <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>
    <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>
    <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>
    <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO>
    <reponame> <|file_sep|>
"""
_ENDS = frozenset(_END_TEXTS.split())
_CONTROLS = _ENDS | frozenset(_FILL_TEXTS.split())
_NAMED = (*tokenizer_json.NAMES, "eot", "eom")

# Stands for a byte that the vocabulary lacks, so that its neighbours are not merged over it; it is
# then left out, as the runtime does. A byte-level token has no space in it.
_MISSING = "a missing byte"


class Tokenizer:
    """A byte-level BPE tokenizer.

    `bos_id` and `eos_id` are None when the file names none; `end_ids` are all tokens that end an
    answer (end of text, end of turn); `add_bos` says whether a prompt begins with `bos_id`, which
    the caller puts there: `encode` adds nothing.
    """

    def __init__(self, metadata: dict[str, Any], origin: str | Path) -> None:
        """Build from the `tokenizer.*` keys of a GGUF file; `origin` is named in errors.

        Raises UnknownTokenizer for a sound tokenizer of another kind, BadInput for a broken one.
        """
        self._metadata = {k: v for k, v in metadata.items() if k.startswith("tokenizer.")}
        model = _value(metadata, "model", str, origin)
        pre = _value(metadata, "pre", str, origin)
        self._tokens = _tokens(metadata, origin)
        self._types = _types(metadata, self._tokens, origin)
        self._ids = {token: id for id, token in enumerate(self._tokens)}
        self.vocab_size = len(self._tokens)
        named = {name: _special_id(metadata, name, self.vocab_size, origin) for name in _NAMED}
        self._named = {name: id for name, id in named.items() if id is not None}
        self.bos_id = self._named.get("bos")
        self.eos_id = self._named.get("eos")
        ends = [self._named.get(name) for name in ("eos", "eot", "eom")]
        ends += map(self._ids.get, _ENDS)
        self.end_ids = frozenset(id for id in ends if id is not None)
        add_bos = _value(metadata, "add_bos_token", bool, origin)
        if add_bos is None:
            add_bos = pre == "llama-bpe"
        self.add_bos: bool = add_bos and self.bos_id is not None
        self.chat_template: str | None = _value(metadata, "chat_template", str, origin)
        if model != "gpt2" or pre not in pretokenize.RULES:
            raise UnknownTokenizer(origin, f"{model}, {pre}")

        self._pre: str = pre
        self._control = frozenset(i for i, t in enumerate(self._types) if t in (UNKNOWN, CONTROL))
        # The longest first, as the runtime looks for them.
        special = [i for i, t in enumerate(self._types) if t in (UNKNOWN, CONTROL, USER_DEFINED)]
        self._special = sorted(special, key=lambda id: -len(self._tokens[id].encode()))
        # Text is encoded with a vocabulary without control tokens, so that no text can become one;
        # `_fragments` puts them in.
        text_ids = {token: id for token, id in self._ids.items() if id not in self._control}
        merges = _merges(metadata, text_ids, self._ids, origin)
        self._encoder = _encoder(text_ids | {_MISSING: self.vocab_size}, merges, pre, _MISSING)

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> Tokenizer:
        """The tokenizer of a model file. Raises UnknownTokenizer or BadInput."""
        return cls(gguf.metadata, gguf.path)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer in a Hugging Face folder. Raises UnknownTokenizer or BadInput."""
        return cls(tokenizer_json.metadata(Path(folder)), folder)

    @property
    def start(self) -> list[int]:
        """What a prompt must begin with: `bos_id` where the model wants it, else nothing."""
        return [self.bos_id] if self.add_bos and self.bos_id is not None else []

    def encode(self, segments: list[Segment]) -> list[int]:
        """The ids of the segments, each tokenised by itself: no token spans two of them.

        In trusted text a control token's text becomes that token, in untrusted text never.
        """
        ids: list[int] = []
        for text, trusted in segments:
            for fragment in self._fragments(_whole_characters(text), trusted):
                if isinstance(fragment, int):
                    ids.append(fragment)
                else:
                    ids += self._encoder.encode(fragment, add_special_tokens=False).ids
        return [id for id in ids if id < self.vocab_size]

    def _fragments(self, text: str, trusted: bool) -> list[str | int]:
        """`text` cut at the special tokens in it, which are given as ids."""
        fragments: list[str | int] = [text] if text else []
        for id in self._special:
            token = self._tokens[id]
            if token not in text or (id in self._control and not trusted):
                continue
            cut: list[str | int] = []
            for fragment in fragments:
                if isinstance(fragment, int):
                    cut.append(fragment)
                    continue
                for index, part in enumerate(fragment.split(token)):
                    cut += [id] * (index > 0) + [part] * bool(part)
            fragments = cut
        return fragments

    def decode(self, ids: list[int], keep_special: bool = False) -> str:
        """The text of `ids`; control tokens are left out unless `keep_special`.

        Bytes that are no UTF-8 become U+FFFD.
        """
        kept = (id for id in ids if keep_special or id not in self._control)
        return b"".join(map(self._bytes, kept)).decode(errors="replace")

    def _bytes(self, id: int) -> bytes:
        token = self._tokens[id]
        if self._types[id] == NORMAL:
            try:
                return token.translate(_BYTE_OF).encode("latin-1")
            except UnicodeEncodeError:  # a token that is no byte-level text stands for itself
                pass
        return token.encode()

    def token_id(self, token: str) -> int | None:
        """The id of the token that is written so in the vocabulary."""
        return self._ids.get(token)

    def gguf_metadata(self) -> dict[str, Any]:
        """The `tokenizer.*` keys to write into a GGUF file; a source file's own are kept."""
        return dict(self._metadata)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`.

        transformers' AutoTokenizer reads them and gives the ids of trusted segments.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        merges = _merges(self._metadata, self._ids, self._ids, folder)
        full = _encoder(self._ids, merges, self._pre)
        full.decoder = decoders.ByteLevel()
        added = [(self._tokens[id], id in self._control) for id in sorted(self._special)]
        full.add_tokens(
            [AddedToken(text, special=control, normalized=False) for text, control in added]
        )
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        for name, key in tokenizer_json.NAMES.items():
            if name in self._named:
                config[key] = self._tokens[self._named[name]]
        if self.add_bos and self.bos_id is not None:
            bos = self._tokens[self.bos_id]
            full.post_processor = processors.TemplateProcessing(
                single=[bos, "$A"], pair=[bos, "$A", "$B"], special_tokens=[(bos, self.bos_id)]
            )
        full.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        if self.chat_template is not None:
            (folder / "chat_template.jinja").write_text(self.chat_template, "utf-8", newline="")


def _encoder(
    ids: dict[str, int], merges: list[tuple[str, str]], pre: str, unknown: str | None = None
) -> tokenizers.Tokenizer:
    """A tokenizer of the `tokenizers` library that knows no special tokens."""
    whole_words = pretokenize.RULES[pre].whole_words
    bpe = models.BPE(ids, merges, unk_token=unknown, ignore_merges=whole_words)
    encoder = tokenizers.Tokenizer(bpe)
    encoder.pre_tokenizer = pretokenize.make(pre)
    return encoder


def _byte_of() -> dict[int, int]:
    """The byte that each character of a byte-level token stands for (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: byte for byte in plain} | {256 + i: byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of()


def _whole_characters(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can hold, replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _value(metadata: dict[str, Any], name: str, kind: type, origin: str | Path) -> Any:
    """The value of a key, None when there is none; `name` is the key's last part."""
    key = "tokenizer.chat_template" if name == "chat_template" else f"tokenizer.ggml.{name}"
    value = metadata.get(key)
    if value is not None and type(value) is not kind:
        raise broken(origin, f"{key} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _special_id(
    metadata: dict[str, Any], name: str, vocab_size: int, origin: str | Path
) -> int | None:
    id: int | None = _value(metadata, f"{name}_token_id", int, origin)
    if id is not None and not 0 <= id < vocab_size:
        raise broken(origin, f"the {name} token is {id}, the vocabulary has {vocab_size}")
    return id


def _tokens(metadata: dict[str, Any], origin: str | Path) -> list[str]:
    tokens: list[str] = _value(metadata, "tokens", list, origin) or []
    if not tokens or set(map(type, tokens)) != {str}:
        raise broken(origin, "it has no list of tokens")
    tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]
    if len(set(tokens)) < len(tokens):
        twice, _ = Counter(tokens).most_common(1)[0]
        raise broken(origin, f"the token {twice[:80]!r} is twice in its vocabulary")
    return tokens


def _types(metadata: dict[str, Any], tokens: list[str], origin: str | Path) -> list[int]:
    types: list[int] = _value(metadata, "token_type", list, origin) or [NORMAL] * len(tokens)
    if len(types) != len(tokens) or set(map(type, types)) != {int}:
        raise broken(origin, f"it has {len(tokens)} tokens, but {len(types)} token types")
    types = list(types)
    for id, token in enumerate(tokens):
        if token in _CONTROLS:
            types[id] = CONTROL
    return types


def _merges(
    metadata: dict[str, Any], ids: dict[str, int], known: dict[str, int], origin: str | Path
) -> list[tuple[str, str]]:
    """The pairs to merge, those with a token outside `ids` left out.

    Raises BadInput when a token is not even `known`: `tokenizers` would crash on it.
    """
    lines = _value(metadata, "merges", list, origin)
    if lines is None or not set(map(type, lines)) <= {str}:
        raise broken(origin, "it has no list of merges")
    merges = []
    for line in dict.fromkeys(lines):  # of two equal merges the first counts
        left, _, right = line.partition(" ")
        if left in ids and right in ids and left + right in ids:
            merges.append((left, right))
        elif left not in known or right not in known or left + right not in known:
            raise broken(origin, f"the merge {line[:80]!r} is not of tokens in its vocabulary")
    return merges
