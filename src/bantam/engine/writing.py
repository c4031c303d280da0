"""How the child has a text written: llama.cpp's request for it, and what its stream means."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

Request = dict[str, Any]

WINDOW = 64  # tokens that `repeat_penalty` looks back over, as everybody has it


class Refused(Exception):
    """The model cannot do what was asked; the text says why, the status whose fault it is."""

    def __init__(self, why: str, status: int = 500) -> None:
        super().__init__(why)
        self.status = status  # as of HTTP


def refusal(error: dict[str, Any]) -> Refused:
    """What llama.cpp tells as an error."""
    return Refused(error["message"], error.get("code", 500))


class Writing:
    """A text that is being written; it asks llama.cpp, and listens to what its stream tells.

    Stop strings are looked for here, since llama.cpp does not say which it met, and swallows what
    might have become one when the tokens are used up.
    """

    def __init__(
        self,
        request: Request,
        say: Callable[..., None],
        cancelled: threading.Event,
        tokenize: Callable[[str], list[int]],
    ) -> None:
        self.asked, self.say, self.cancelled, self.tokenize = request, say, cancelled, tokenize
        self.text = Text(request["stop"])
        self.told: tuple[list[str], list[Any]] = [], []  # pieces, and their tokens, for the end
        self.ends = set(request["end_ids"])
        self.ids: list[int] = []  # that were written
        # Tokens of the prompt that were not written yet, if that makes a difference.
        self.unwritten = set(request["prompt"]) if request["presence_penalty"] else set()
        self.tokens = self.before = 0  # written in all; before the present request
        self.cached: int | None = None
        self.reason = "stop"
        self.refusal: Refused | None = None
        self.again = False

    def write(self, ask: Callable[[Request, Callable[[Any], bool]], Any]) -> Request | None:
        """Says pieces as they come; how the text ended, None if it was cancelled."""
        while True:
            ask(self.request(), self.hear)
            if self.refusal:
                raise self.refusal
            if self.cancelled.is_set():
                return None
            if not self.again:
                break
            self.again, self.before = False, self.tokens
        self.tell(*self.text.rest())
        if self.told[0]:
            self.send("".join(self.told[0]), self.told[1])
        return {
            "reason": self.reason,
            "stop": self.text.stop,
            "tokens": self.tokens,
            "cached_tokens": self.cached or 0,
        }

    def request(self) -> Request:
        """What llama.cpp is asked, to go on after what was written already."""
        asked, before = self.asked, self.before
        greedy = asked["temperature"] <= 0
        frequency, presence = asked["frequency_penalty"], asked["presence_penalty"]
        bias: dict[int, float] = dict(asked["logit_bias"])
        window = WINDOW
        if frequency or presence:
            # OpenAI counts the tokens that were written, llama.cpp the prompt's too: what these
            # take away is given back, `presence` until the token is written.
            window = len(asked["prompt"]) + asked["max_tokens"]
            counts: Counter[int] = Counter(asked["prompt"])
            for token, count in counts.items():
                back = count * frequency + presence * (token in self.unwritten)
                bias[token] = bias.get(token, 0.0) + back
        penalised = frequency or presence or asked["repeat_penalty"] != 1
        # The temperature first, as others have it: what `top_p` and `min_p` keep depends on it.
        drawn = ["top_k", "temperature", "top_p", "min_p"]
        return {
            "prompt": asked["prompt"] + self.ids if before else asked["prompt"],
            "n_predict": asked["max_tokens"] - before,
            "stream": True,
            "return_progress": True,  # so that it can be stopped while it reads a long prompt
            "verbose": True,  # tells the tokens and their number
            "samplers": ["penalties"] * bool(penalised) + (["top_k"] if greedy else drawn),
            "top_k": 1 if greedy else asked["top_k"],
            "temperature": 1.0 if greedy else asked["temperature"],
            "top_p": asked["top_p"],
            "min_p": asked["min_p"],
            "frequency_penalty": frequency,
            "presence_penalty": presence,
            "repeat_penalty": asked["repeat_penalty"],
            "repeat_last_n": window,
            "logit_bias": list(bias.items()),
            "seed": -1 if asked["seed"] is None else (asked["seed"] + before) % (1 << 31),
            # A token's own log-probability is told with at least one other.
            "n_probs": 0 if asked["alternatives"] is None else max(1, asked["alternatives"]),
            "cache_prompt": True,
        }

    def hear(self, chunk: dict[str, Any]) -> bool:
        """Takes what llama.cpp tells after each of its steps; True stops it."""
        if self.cancelled.is_set():
            return True
        if "error" in chunk:
            self.refusal = refusal(chunk["error"])
            return True
        if "prompt_progress" in chunk:
            if self.cached is None:
                self.cached = chunk["prompt_progress"]["cache"]
            return False
        choice, more = chunk["choices"][0], chunk["__verbose"]
        since, self.tokens = self.tokens, self.before + more["tokens_predicted"]
        if choice["finish_reason"]:
            self.reason = choice["finish_reason"]
            return False
        if not self.ends.isdisjoint(more["tokens"]):
            return True
        told = (choice["logprobs"] or {}).get("content") or []
        self.tell(*self.text.add(choice["text"], [self.token(choice["text"], one) for one in told]))
        if self.text.stop is not None:
            return True
        if self.unwritten:
            # Of a character's tokens only the last is told.
            whole = self.tokens == since + 1
            self.ids += more["tokens"] if whole else self.tokenize(choice["text"])
            if not self.unwritten.isdisjoint(self.ids) and self.tokens < self.asked["max_tokens"]:
                self.unwritten.difference_update(self.ids)
                self.again = True
        return self.again

    def token(self, text: str, told: dict[str, Any]) -> list[Any]:
        """`text` is the whole character where the token only ends it."""
        others = [
            [one["id"], bytes(one["bytes"]).decode(errors="replace"), one["logprob"]]
            for one in told["top_logprobs"][: self.asked["alternatives"]]
        ]
        return [told["id"], text, told["logprob"], others]

    def tell(self, piece: str, tokens: list[Any]) -> None:
        if not piece:
            return
        if self.asked["whole"]:
            self.told[0].append(piece)
            self.told[1].extend(tokens)
        else:
            self.send(piece, tokens)

    def send(self, piece: str, tokens: list[Any]) -> None:
        asked = self.asked["alternatives"] is not None
        self.say(piece=piece, **({"tokens": tokens} if asked else {}))


class Text:
    """What was written, of which the end is kept back while it may begin a stop string."""

    def __init__(self, stops: list[str]) -> None:
        self.stops = stops
        self.stop: str | None = None  # the one that ended it
        self.kept = ""
        self.tokens: list[Any] = []  # [id, text, ...] of `kept`
        self.at = 0  # where the first of them begins in `kept`

    def add(self, text: str, tokens: list[Any]) -> tuple[str, list[Any]]:
        """What can be told now, and the tokens that begin in it."""
        self.kept += text
        self.tokens += tokens
        found = [(self.kept.find(stop), stop) for stop in self.stops if stop in self.kept]
        if found:
            end, self.stop = min(found)
            told = self._upto(end)
            self.kept = ""
            return told
        return self._upto(len(self.kept) - max(map(self._begun, self.stops), default=0))

    def rest(self) -> tuple[str, list[Any]]:
        return self._upto(len(self.kept))

    def _begun(self, stop: str) -> int:
        """How many of the last characters are how `stop` begins."""
        lengths = range(min(len(stop) - 1, len(self.kept)), 0, -1)
        return next((n for n in lengths if self.kept.endswith(stop[:n])), 0)

    def _upto(self, end: int) -> tuple[str, list[Any]]:
        tokens: list[Any] = []
        while self.tokens and self.at < end:
            tokens.append(self.tokens.pop(0))
            self.at += len(tokens[-1][1])
        self.at -= end
        text, self.kept = self.kept[:end], self.kept[end:]
        return text, tokens
