"""A model in use: a packed file, its task, its tokenizer and the runtime that runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, lru_cache
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam import engine, kinds
from bantam.answer import Answer, Written
from bantam.errors import BadInput
from bantam.formats import gguf, lora
from bantam.kinds import classify, several

if TYPE_CHECKING:
    import llguidance

    from bantam.formats.tokenizer import Tokenizer
    from bantam.kinds.constrain import Decoded, Draw
    from bantam.kinds.grammar import Grammar

ADD_BOS = "tokenizer.ggml.add_bos_token"
COMPLETE = "bantam.completes"  # the key of files whose models go on with a text
TASK_CONTEXT, WRITING_CONTEXT, CHAT_CONTEXT = 1024, 2048, 4096  # tokens
SHORT = 300  # characters of a part of a prompt whose ids are remembered
KEPT = 20_000  # characters of declarations that are remembered as sound
TEMPERATURE = 0.7  # of a conversation: at 0 small models go round in circles


class TooLong(BadInput):
    """A question that leaves no room for an answer."""


class Model:
    """Answers one text when called, many with `batch`, a conversation with `chat` and `stream`.

    A context manager: closing it ends the runtime's process.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        parallel: int = 1,
        context: int | None = None,
    ) -> None:
        """`parallel` prompts are worked on together, each within `context` tokens.

        The default context holds the task's longest prompt, or a conversation.
        """
        self.path = path
        self.file = gguf.read(path)
        if self.file.metadata.get("general.type") == "adapter":
            raise BadInput(
                f"{path} is an adapter and no whole model",
                f"serve it over the model that it was trained over: `bantam serve MODEL+{path}`",
            )
        self.adapter: gguf.GGUF | None = None
        self.task = kinds.from_metadata(self.file.metadata, path)
        self.threads, self.parallel = threads, parallel
        self._wanted = context
        self.context = self._room_for(self.task)

    def adapted(self, adapter: Path) -> Model:
        """The same file with a LoRA adapter over it, for the adapter's own task if it has one.

        Raises BadInput when the adapter is not sound, or for another model.
        """
        file = lora.read(adapter, self.file)
        other = copy(self)
        for made in ("runtime", "_tokenize", "_tree"):  # for the task or the weights as they are
            other.__dict__.pop(made, None)
        other.adapter = file
        other.task = kinds.from_metadata(file.metadata, adapter) or self.task
        other.context = other._room_for(other.task)
        return other

    def _room_for(self, task: kinds.Task | None) -> int:
        wanted = CHAT_CONTEXT
        if task:
            wanted = TASK_CONTEXT if task.kind == "classify" else WRITING_CONTEXT
        return min(self._wanted or wanted, trained_context(self.file))

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the runtime; the model may be used again and then starts a new one."""
        if "runtime" in self.__dict__:
            self.__dict__.pop("_tokenize", None)
            self.__dict__.pop("runtime").close()

    @cached_property
    def runtime(self) -> engine.Runtime:
        """The child process that runs the file; started at first use."""
        runtime = engine.start(
            self.path,
            threads=self.threads,
            parallel=self.parallel,
            context=self.context,
            adapters=[self.adapter.path] if self.adapter else (),
        )
        return runtime.adapted(0) if self.adapter else runtime

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Ours; None for a file whose tokenizer only the runtime knows."""
        from bantam.formats.tokenizer import Tokenizer, UnknownTokenizer

        try:
            return Tokenizer.from_gguf(self.file)
        except UnknownTokenizer:
            return None

    def encode(self, segments: list[kinds.Segment]) -> list[int]:
        """Token ids; control tokens are recognised in trusted segments only."""
        if self.tokenizer:
            return self.tokenizer.encode(segments)
        ids: list[int] = []
        for text, trusted in segments:
            short = len(text) <= SHORT
            ids += (self._tokenize if short else self.runtime.tokenize)(text, trusted)
        return ids

    @cached_property
    def _tokenize(self) -> Callable[[str, bool], list[int]]:
        """The runtime's tokenizer; the parts that prompts share, which are short, are asked for
        once. Long ones are people's texts: they are not kept."""
        return lru_cache(4096)(self.runtime.tokenize)

    @property
    def start(self) -> list[int]:
        """The token that the file wants before any text, if any."""
        if self.tokenizer:
            return self.tokenizer.start
        bos = self._id("bos") if self.file.metadata.get(ADD_BOS, True) else None
        return [] if bos is None else [bos]

    @property
    def end(self) -> int:
        """The token that ends a text."""
        eos = self.tokenizer.eos_id if self.tokenizer else self._id("eos")
        return 0 if eos is None else eos

    def _id(self, name: str) -> int | None:
        found = self.file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return found if isinstance(found, int) else None

    def prompt(self, task: kinds.Task, text: str) -> list[int]:
        """The ids that ask this model `task` of a text."""
        return self.start + task.prompt(self.encode, text)

    def __call__(self, text: str, tools: Any = None) -> Answer | Written:
        """The answer for one text; `tools` are the functions to call, for a task with functions, in
        OpenAI's form."""
        if not isinstance(text, str):
            raise BadInput(f"{text!r:.80} is no text", "give a str")
        if self.asked().kind == "classify":
            return self.batch([text])[0]
        return self.write(text, tools)

    def write(
        self, text: str, tools: Any = None, tell: Callable[[bytes], None] | None = None
    ) -> Written:
        """The answer of a task whose answers are written; `tell` as for `written`. Raises BadInput
        when text and functions are longer than the context, or when the functions are missing or
        no functions."""
        task = self.asked()
        return self.written(task, text, declared(task, tools), tell=tell)

    def written(
        self,
        task: kinds.Task,
        text: str,
        tools: str = "",
        stop: Sequence[str] = (),
        tell: Callable[[bytes], None] | None = None,
    ) -> Written:
        """The answer to `task`, which may be another than the file was packed for; `tools` are
        checked declarations as JSON. Free text also ends before one of `stop`; of JSON `tell` gets
        what is written as it comes, and what it raises ends the work."""
        from bantam.kinds import texts

        prompt = self.start + texts.prompt(task, self.encode, text, tools)
        most, cut = self._room(task, prompt), self._cuts(task, text)
        if task.kind == "generate":
            told = self.runtime.complete(prompt, most, stop)
            probability = texts.certain(task, told.log_probability, told.tokens)
            written, log = told.text.strip(), told.log_probability
            return Written(written, probability, log, told.tokens, whole=told.ended, cut=cut)
        done = self.held(prompt, self._grammar(task, tools), most, tell=tell)
        probability = texts.certain(task, done.log_probability, done.tokens)
        return Written(
            done.text,
            probability,
            done.log_probability,
            done.tokens,
            json.loads(done.text),
            texts.sure(task, probability),
            not done.closed,
            cut,
        )

    def held(
        self,
        prompt: Sequence[int],
        grammar: Grammar,
        most: int,
        *,
        draw: Draw | None = None,
        tell: Callable[[bytes], None] | None = None,
    ) -> Decoded:
        """What the model writes when it is held to a grammar: see `kinds.constrain.decode`."""
        from bantam.kinds import constrain

        return constrain.decode(
            self.runtime.likeliest,
            self.runtime.choose,
            prompt,
            self._vocabulary,
            grammar,
            most,
            draw or constrain.likeliest_of,
            tell,
        )

    def freely(self, task: kinds.Task, text: str, tools: str = "") -> str:
        """What the model writes when nothing holds its answer to the schema."""
        from bantam.kinds import texts

        prompt = self.start + texts.prompt(task, self.encode, text, tools)
        return self.runtime.complete(prompt, self._room(task, prompt)).text

    def _room(self, task: kinds.Task, prompt: list[int]) -> int:
        """How many tokens the answer may take. Raises TooLong when there is room for none."""
        room = self.context - 1 - len(prompt)
        if room < 1:
            raise TooLong(
                f"a text{' and its functions' if task.most_calls else ''} of {len(prompt)} tokens: "
                f"this model has room for {self.context - 2}",
                "shorten the text" + (", or declare fewer functions" if task.most_calls else ""),
            )
        return min(task.max_answer_tokens, room)  # closing it takes no context

    @cached_property
    def _grammar(self) -> Callable[[kinds.Task, str], Grammar]:
        """The grammar of a task's answers, by the functions that are declared."""
        from bantam.kinds import grammar, schema, texts

        path = self.path  # not this model: it would hold itself, and all it has, for long

        def made(task: kinds.Task, tools: str) -> Grammar:
            found = texts.schema_of(task, tools)
            if task.schema:  # it comes out of a file, which may be anybody's; functions are checked
                schema.check(found, f"{path}: bantam.schema")
            return grammar.grammar(found)

        return lru_cache(64)(made)

    @cached_property
    def _vocabulary(self) -> llguidance.LLTokenizer:
        from bantam.kinds import constrain

        return constrain.vocabulary(self.known_tokenizer())

    def known_tokenizer(self) -> Tokenizer:
        """Ours. Raises BadInput when only the runtime knows the file's."""
        if self.tokenizer is None:
            raise BadInput(
                f"{self.path}: its tokens are not known, so its JSON cannot be held to a schema",
                "use a model of another family",
            )
        return self.tokenizer

    def batch(self, texts: Sequence[str]) -> list[Answer]:
        """The labels of many texts, in their order."""
        task = self.asked()
        tree = self._tree
        prompts = [self.prompt(task, text) for text in texts]
        rows = classify.probabilities(self.runtime.choose, tree, prompts)
        rows = classify.calibrated(rows, task.temperature, task.multi)
        return [
            replace(_answer(task, row), cut=self._cuts(task, text))
            for row, text in zip(rows, texts, strict=True)
        ]

    def _cuts(self, task: kinds.Task, text: str) -> bool:
        """Whether the end of a text is not read."""
        most = task.max_text_tokens
        # No token is less than a byte, of which a character has up to four.
        return 4 * len(text) > most and len(self.encode([(text, False)])) > most

    @cached_property
    def _tree(self) -> classify.LabelTree:
        return classify.label_tree(self.asked(), self.encode, self.end)

    def asked(self) -> kinds.Task:
        """The task that the file was packed for. Raises BadInput when it was packed for none."""
        if self.task is None:
            raise BadInput(
                f"{self.path} was not made by Bantam for a task",
                f"talk to it with `bantam chat {self.path}`",
            )
        return self.task

    @property
    def completes(self) -> bool:
        """Whether it was made to go on with texts, and for nothing else."""
        return COMPLETE in self.file.metadata

    def complete(
        self, text: str, *, max_tokens: int = 256, temperature: float = 0.8, seed: int | None = None
    ) -> Iterator[str]:
        """What may follow a text, piece by piece, up to the model's end. The same `seed` gives the
        same text again. Of a text that is longer than the context the end is read."""
        ids = self.encode([(text, False)])[-(self.context - 2) :]
        return self.runtime.generate(
            self.start + ids, max_tokens=max_tokens, temperature=temperature, seed=seed
        )

    def stream(
        self,
        messages: Sequence[dict[str, str]],
        *,
        max_tokens: int = 512,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The reply to a conversation, piece by piece.

        `temperature` is what the file recommends, else 0.7; at 0 the likeliest token is taken.
        The same `seed` gives the same reply again.
        """
        ids = self.conversation(messages)
        room = self.context - 1
        if len(ids) > room:
            raise BadInput(
                f"the conversation has {len(ids)} tokens, this model has room for {room}",
                "begin a new one, or say less at once",
            )
        known = (temperature, self.temperature, TEMPERATURE)
        warmth = next(one for one in known if one is not None)
        return self.runtime.generate(ids, max_tokens=max_tokens, temperature=warmth, seed=seed)

    @property
    def template(self) -> str | None:
        """The file's own chat template, which may be anybody's."""
        told = self.file.metadata.get("tokenizer.chat_template")
        return told if isinstance(told, str) else None

    def conversation(
        self, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None = None
    ) -> list[int]:
        """The ids that ask for the next turn of a conversation, as the file's template has it.

        Raises BadInput when the template fails or refuses the messages.
        """
        from bantam.formats import chat

        segments = chat.render(
            self.template,
            list(messages),
            tools=tools,
            bos_token=self._special("bos"),
            eos_token=self._special("eos"),
        )
        ids = self.encode(segments)
        # Exactly one start token, whether or not the template writes it.
        return ids if ids[: len(self.start)] == self.start else self.start + ids

    def chat(self, messages: Sequence[dict[str, str]], **settings: Any) -> str:
        """The whole reply to a conversation; settings as for `stream`."""
        return "".join(self.stream(messages, **settings))

    @property
    def temperature(self) -> float | None:
        """What the file recommends for a conversation, in the key that llama.cpp reads too."""
        told = self.file.metadata.get("general.sampling.temp")
        return told if isinstance(told, float) and 0 <= told < inf else None

    def _special(self, name: str) -> str:
        id, tokens = self._id(name), self.file.metadata.get("tokenizer.ggml.tokens", [])
        return tokens[id] if id is not None and 0 <= id < len(tokens) else ""


def declared(task: kinds.Task, tools: Any) -> str:
    """The functions of a request as JSON, checked; "" for a task without."""
    if not task.most_calls:
        if tools is not None:
            raise BadInput("this model calls no functions", "leave the functions out")
        return ""
    if tools is None:
        raise BadInput(
            "this model chooses among functions, and there are none",
            "give their declarations with --tools FILE, or tools=[...] in Python",
        )
    told = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
    return _checked(told) if len(told) <= KEPT else _checked.__wrapped__(told)


@lru_cache(256)
def _checked(tools: str) -> str:
    """Declarations of which every name and type is sound, as JSON; the same are asked for again."""
    from bantam.kinds import declarations

    return json.dumps(declarations.tools(tools, "the functions"), ensure_ascii=False)


def _answer(task: kinds.Task, row: list[float]) -> Answer:
    chosen = classify.chosen(task, row)
    labels = tuple(task.labels[n] for n in chosen)
    shares = dict(zip(task.labels, row, strict=True))
    if not task.multi:
        return Answer(labels[0], row[chosen[0]], shares, labels, classify.sure(task, row))
    whole = prod(p if n in chosen else 1 - p for n, p in enumerate(row))
    return Answer(several.joined(labels), whole, shares, labels)


def trained_context(file: gguf.GGUF) -> int:
    """How many tokens the model was made for; many when its file does not say."""
    told = file.metadata.get(f"{file.metadata.get('general.architecture')}.context_length")
    return told if isinstance(told, int) and told > 0 else 1 << 31
