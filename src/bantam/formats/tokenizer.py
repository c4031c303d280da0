"""Text to token ids and back, the same ids as the runtime gives.

Byte-level BPE and SentencePiece's BPE, which is what most small models use. Whether a tokenizer
comes from a GGUF file or a Hugging Face folder, it is held as the `tokenizer.*` keys of GGUF and
built from them, so there is one way to build it. The rules follow src/llama-vocab.cpp of llama.cpp;
where a Hugging Face file and the runtime differ (Unicode normalisation, white space that a special
token takes with it), the runtime is followed, for it is what ships.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, processors

from bantam.formats import gguf, pretokenize, tokenizer_json
from bantam.formats.byte_level import ByteLevel
from bantam.formats.gguf import GGUF
from bantam.formats.sentencepiece import BYTE_NAME, SentencePiece
from bantam.formats.token_types import (
    BYTE,
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
# What a file of SentencePiece's kind means when it names no such tokens.
_ASSUMED = {"bos": 1, "eos": 2, "unknown": 0}


class Tokenizer:
    """A tokenizer of a known kind.

    `bos_id` and `eos_id` are None when the file names none; `end_ids` are all tokens that end an
    answer (end of text, end of turn), `control` those that are no text; `add_bos` says whether a
    prompt begins with `bos_id`, which the caller puts there: `encode` adds nothing.
    """

    def __init__(self, metadata: dict[str, Any], origin: str | Path) -> None:
        """Build from the `tokenizer.*` keys of a GGUF file; `origin` is named in errors.

        Raises UnknownTokenizer for a sound tokenizer of another kind, BadInput for a broken one.
        """
        self._metadata = {k: v for k, v in metadata.items() if k.startswith("tokenizer.")}
        self._model: str | None = _value(metadata, "model", str, origin)
        pre = _value(metadata, "pre", str, origin)
        self._tokens = _tokens(metadata, origin)
        self._types = _types(metadata, self._tokens, origin)
        self._ids = {token: id for id, token in enumerate(self._tokens)}
        self.vocab_size = len(self._tokens)
        named = {name: _special_id(metadata, name, self.vocab_size, origin) for name in _NAMED}
        assumed = _ASSUMED if self._model == "llama" else {}
        self._named = assumed | {name: id for name, id in named.items() if id is not None}
        self.bos_id = self._named.get("bos")
        self.eos_id = self._named.get("eos")
        ends = [self._named.get(name) for name in ("eos", "eot", "eom")]
        ends += map(self._ids.get, _ENDS)
        self.end_ids = frozenset(id for id in ends if id is not None)
        add_bos = _value(metadata, "add_bos_token", bool, origin)
        if add_bos is None:
            add_bos = self._model == "llama" or pre in pretokenize.BEGUN
        self.add_bos: bool = add_bos and self.bos_id is not None
        self.chat_template: str | None = _value(metadata, "chat_template", str, origin)

        self.control = frozenset(i for i, t in enumerate(self._types) if t in (UNKNOWN, CONTROL))
        special = [i for i, t in enumerate(self._types) if t in (UNKNOWN, CONTROL, USER_DEFINED)]
        # The longest first, as the runtime looks for them.
        special.sort(key=lambda id: -len(self._tokens[id].encode()))
        self._special = {True: special, False: [i for i in special if i not in self.control]}
        self._text = self._text_encoder(metadata, pre, origin)

    def _text_encoder(
        self, metadata: dict[str, Any], pre: str | None, origin: str | Path
    ) -> ByteLevel | SentencePiece:
        """What encodes the text between special tokens."""
        if self._model == "gpt2" and pre in pretokenize.RULES:
            merges = _value(metadata, "merges", list, origin)
            if merges is None or not set(map(type, merges)) <= {str}:
                raise broken(origin, "it has no list of merges")
            return ByteLevel(self._ids, self.control, merges, pre, origin)
        if self._model == "llama":
            scores = _value(metadata, "scores", list, origin) or []
            prefix = _value(metadata, "add_space_prefix", bool, origin)
            return SentencePiece(self._tokens, self._types, scores, prefix is not False, origin)
        raise UnknownTokenizer(origin, f"{self._model}, {pre}")

    @classmethod
    def from_gguf(cls, file: GGUF) -> Tokenizer:
        """The tokenizer of a model file. Raises UnknownTokenizer or BadInput."""
        return cls(file.metadata, file.path)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer in a Hugging Face folder. Raises UnknownTokenizer or BadInput."""
        return cls(tokenizer_json.metadata(Path(folder)), folder)

    @classmethod
    def of(cls, model: Path) -> Tokenizer:
        """The tokenizer of a .gguf or a folder. Raises UnknownTokenizer or BadInput."""
        return cls.from_folder(model) if model.is_dir() else cls.from_gguf(gguf.read(model))

    @property
    def edge(self) -> int:
        """The token that begins a document: `bos_id` where the model wants it, else what ends a
        text."""
        return self.start[0] if self.start else self.eos_id or 0

    @property
    def start(self) -> list[int]:
        """What a prompt must begin with: `bos_id` where the model wants it, else nothing."""
        return [self.bos_id] if self.add_bos and self.bos_id is not None else []

    def encode(self, segments: list[Segment]) -> list[int]:
        """The ids of the segments, each tokenised by itself: no token spans two of them.

        In trusted text a control token's text becomes that token, in untrusted text never.
        """
        ids: list[int] = []
        first = True  # at the start, or after a special token
        for text, trusted in segments:
            for fragment in self._fragments(_whole_characters(text), trusted):
                if isinstance(fragment, int):
                    ids.append(fragment)
                else:
                    ids += self._text.encode(fragment, first)
                first = isinstance(fragment, int)
        return ids

    def _fragments(self, text: str, trusted: bool) -> list[str | int]:
        """`text` cut at the special tokens in it, which are given as ids."""
        fragments: list[str | int] = [text] if text else []
        for id in self._special[trusted]:
            token = self._tokens[id]
            if token not in text:
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

        Bytes that are no UTF-8 become U+FFFD. A space that `encode` put before is taken away.
        """
        kept = (id for id in ids if keep_special or id not in self.control)
        text = b"".join(map(self._bytes, kept)).decode(errors="replace")
        spaced = isinstance(self._text, SentencePiece) and self._text.prefix
        return text.removeprefix(" ") if spaced else text

    def _bytes(self, id: int) -> bytes:
        token, kind = self._tokens[id], self._types[id]
        if kind == NORMAL:
            return self._text.decode(token)
        return bytes([int(token[3:5], 16)]) if kind == BYTE else token.encode()

    @property
    def pieces(self) -> list[bytes]:
        """The bytes of every token, by its id."""
        return [self._bytes(id) for id in range(self.vocab_size)]

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
        full = self._text.library()
        added = [(self._tokens[id], id in self.control) for id in sorted(self._special[True])]
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
        elif types[id] == BYTE and not BYTE_NAME.fullmatch(token):
            raise broken(origin, f"the token {token[:80]!r} is no byte")
    return types
