"""In a network namespace where nothing is but loopback: make, serve, and ask in every way.

Run in the folder of a recipe by `test_without_network.py`, which reads what is printed.
"""

import fcntl
import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from process import Process
from rooms import ask, chat

import job

UP, SET_FLAGS = 0x1, 0x8914


def main() -> None:
    _loopback()
    names = [name for _, name in socket.if_nameindex()]
    made = job.run("--offline", "make", "recipe.toml", cwd=Path.cwd())
    assert made.code == 0, made.err
    served = Process("runs/tiny", "chat=pypi:tiny-job==1.0", "--feedback", "said.db")
    told: dict[str, Any] = {"interfaces": names, "models": served.told["models"]}
    cold = {"temperature": 0, "max_tokens": 8}
    whole = ask(served.port, "/v1/chat/completions", "POST", chat("chat", **cold)).json
    told["chat"] = whole["choices"][0]["message"]["content"]
    stream = ask(served.port, "/v1/chat/completions", "POST", chat("chat", stream=True, **cold))
    pieces = [line[6:] for line in stream.body.decode().splitlines() if line.startswith("data: ")]
    told["stream"] = "".join(
        json.loads(piece)["choices"][0]["delta"].get("content", "") for piece in pieces[:-1]
    )
    texts = [text for text, _ in job.texts_and_labels(30)]
    answered = ask(served.port, "/tasks/tiny", "POST", {"texts": texts}).json["answers"]
    told["labels"] = [one["label"] for one in answered]
    body = {"model": "chat", "input": ["a", "b"]}
    told["embeddings"] = [
        len(one["embedding"])
        for one in ask(served.port, "/v1/embeddings", "POST", body).json["data"]
    ]
    said = {"answer_id": answered[0]["id"], "thumb": "up"}
    told["feedback"] = ask(served.port, "/feedback", "POST", said).status
    told["page"] = ask(served.port, "/").status
    told["code"], told["log"] = served.end()
    print(json.dumps(told))


def _loopback() -> None:
    """Begin to use the loopback interface, which is off in a new namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, SET_FLAGS, struct.pack("16sH14s", b"lo", UP, b""))


if __name__ == "__main__":
    main()
