"""The runtime: loads a packed model and answers, in a process of its own, behind one interface.

    with engine.start(Path("model.gguf"), threads=1) as runtime:
        runtime.choose([prompt], [[yes, no]])

Today llama.cpp is behind it. Another runtime needs the methods of `Runtime` and a place in `start`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from bantam.errors import BantamError, JobFailed


class Died(JobFailed):
    """The model's process is gone, or answers no more."""


class Refused(JobFailed):
    """The model's process lives, and does not do what was asked. `asked`: that is to blame, and not
    the file."""

    def __init__(self, message: str, mend: str, asked: bool) -> None:
        super().__init__(message, mend)
        self.asked = asked


@dataclass(frozen=True)
class Info:
    """What is running."""

    runtime: str
    version: str
    context: int  # tokens that one prompt and its answer may take
    vocabulary: int  # ids run from 0 to here
    parameters: int
    width: int  # numbers in an embedding
    bytes: int  # of the weights


@dataclass(frozen=True)
class Completion:
    """A text that a model wrote."""

    text: str
    tokens: int
    log_probability: float  # of the tokens that were written, in nats
    ended: bool  # by the model or a stop string; else its tokens were used up


@dataclass(frozen=True)
class Sampling:
    """How the next tokens are chosen, in llama.cpp's and OpenAI's terms.

    In this order: biases, penalties, the `top_k` likeliest, temperature, `top_p`, `min_p`.
    """

    max_tokens: int | None = None  # None: as many as there is room for
    temperature: float = 0.0  # 0: always the likeliest token
    top_p: float = 1.0
    top_k: int = 0  # 0: no bound
    min_p: float = 0.0
    frequency_penalty: float = 0.0  # of a token, each time that it was written
    presence_penalty: float = 0.0  # of a token that was written; the prompt does not count
    repeat_penalty: float = 1.0  # of a token among the last 64, the prompt's too
    logit_bias: tuple[tuple[int, float], ...] = ()  # token, added to its logit
    # The same text again, but that requests worked on together are rounded differently: where two
    # tokens are about as likely, another one may follow.
    seed: int | None = None
    stop: tuple[str, ...] = ()  # strings that end the text and are left out of it
    end_ids: tuple[int, ...] = ()  # tokens that end it, beside the model's own
    alternatives: int | None = None  # tell each token's log-probability, and so many others
    whole: bool = False  # told in one piece at the end, which costs less than many


@dataclass(frozen=True)
class Token:
    """A token that was written, and the likeliest in its place, before anything was biased.

    Of a character that took several tokens only the last is told, with the whole character as its
    text: llama.cpp says nothing about the others. Control tokens have no text.
    """

    id: int
    text: str
    log_probability: float
    alternatives: tuple[tuple[int, str, float], ...] = ()  # id, text, log-probability


@dataclass(frozen=True)
class Piece:
    """Some whole characters of a text that is being written."""

    text: str
    tokens: tuple[Token, ...] = ()  # only with `Sampling.alternatives`


@dataclass(frozen=True)
class Done:
    """How a text ended."""

    reason: str  # "stop" (the model's end, an end id or a stop string) or "length"
    stop: str | None  # the stop string
    tokens: int  # that were written
    cached_tokens: int  # of the prompt, that the runtime still knew


class Runtime(Protocol):
    """A running model. Prompts are token ids; several threads may ask at the same time.

    Every method raises Died or Refused when the model's process does, BadInput when a prompt does
    not fit in the context, ValueError for ids that make no sense.
    """

    @property
    def info(self) -> Info: ...

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory that the model's process has held so far, mapped weights included."""
        ...

    @property
    def pid(self) -> int:
        """The model's process."""
        ...

    @property
    def alive(self) -> bool:
        """Whether that process runs; once it has died or was closed it stays so."""
        ...

    def choose(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """P(candidate comes next | prompt), renormalised over that prompt's candidates.

        One list of distinct candidates for each prompt; answers in the same order.
        """
        ...

    def generate(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        end_ids: Sequence[int] = (),
    ) -> Iterator[str]:
        """The text that follows, in pieces of whole characters, as they come.

        It ends at the model's own end token, at one of `end_ids`, before a `stop` string, after
        `max_tokens`, or when the context is full. Closing the iterator stops the work.
        """
        ...

    def write(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        tell: Callable[[Piece | Done | BantamError], None],
    ) -> Callable[[], None]:
        """Begin to write what follows; calling what is returned stops it.

        `tell` gets each piece as it comes, then one `Done`, or the error that ended it; it is
        called in a thread of the runtime's and must return at once. A text that was stopped is told
        no more about.
        """
        ...

    def likeliest(self, prompt: Sequence[int], count: int) -> list[tuple[int, float]]:
        """The `count` likeliest next tokens with their probabilities, the likeliest first."""
        ...

    def complete(
        self, prompt: Sequence[int], max_tokens: int, stop: Sequence[str] = ()
    ) -> Completion:
        """What follows the prompt when the likeliest token is taken each time, up to the model's
        own end token, before a `stop` string, or up to `max_tokens`."""
        ...

    def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """The last token's state after the final norm, not scaled to unit length.

        Only for a runtime that was started with `embeddings=True`.
        """
        ...

    def tokenize(self, text: str, special: bool) -> list[int]:
        """The ids of `text`, nothing added before or after; control tokens only if `special`."""
        ...

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of `ids`, control tokens written out."""
        ...

    def adapted(self, adapter: int) -> Runtime:
        """The same process, asked with one of the adapters that it was started with.

        Requests of different adapters take turns, in the order in which they came: a text is
        written to its end before those of another adapter begin.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def cores() -> int:
    """Physical cores that this process may use."""
    import os

    import psutil

    physical = psutil.cpu_count(logical=False) or 1
    return min(physical, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1024)


def start(
    model: Path,
    *,
    threads: int | None = None,
    context: int = 1024,
    parallel: int = 1,
    embeddings: bool = False,
    adapters: Sequence[Path] = (),
) -> Runtime:
    """Start a GGUF model. Use it in a `with`, or call `close()`.

    `context` tokens are kept for each of `parallel` prompts that are worked on together: memory
    grows with their product, and 8 prompts together are about a third faster than one by one. With
    more than one, up to 128 MiB more hold the beginnings of prompts that gave way to others.
    `adapters` are GGUF files of LoRA adapters for this model: see `Runtime.adapted`.
    Raises BadInput when there is no such file, JobFailed when it cannot be loaded.
    """
    # Imported here so that the child, which imports this package too, does not pay for it.
    from bantam.engine.runtime import LlamaCpp

    return LlamaCpp(
        model,
        threads=threads,
        context=context,
        parallel=parallel,
        embeddings=embeddings,
        adapters=adapters,
    )
