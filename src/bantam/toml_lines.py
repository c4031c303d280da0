"""What tomllib lacks: on which line of a text each key stands, and how to write a string."""

import json
import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|[\[\]{}=,.\n]"
    r"|[^\s\[\]{}=,.#\"']+"
    r"|#[^\n]*",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every key, table and list item of a text that tomllib accepts.

    Paths are as in the parsed document: ("judge", "rivals", 0). A table is where it is first named.
    """
    return _Scan(text).lines


class _Scan:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # arrays of tables, with the index of the last one
        self.tokens = _tokens(text)
        self.step()
        prefix: Path = ()
        while self.word:
            if self.word == "[":
                prefix = self.header()
            elif self.word == "\n":
                self.step()
            else:
                self.pair(prefix)

    def step(self) -> None:
        self.word, self.line = next(self.tokens, ("", 0))

    def header(self) -> Path:
        """[a.b] or [[a.b]]; inside arrays of tables a name means the last table of the array."""
        line = self.line
        self.step()
        repeated = self.word == "["
        if repeated:
            self.step()
        path: Path = ()
        for part in self.key():
            if path in self.arrays:
                path += (self.arrays[path],)
            path += (part,)
            self.lines.setdefault(path, line)
        if repeated:
            self.arrays[path] = self.arrays.get(path, -1) + 1
        if path in self.arrays:
            path += (self.arrays[path],)
            self.lines.setdefault(path, line)
        while self.word == "]":
            self.step()
        return path

    def key(self) -> Iterator[str]:
        while self.word not in ("=", "]"):
            if self.word != ".":
                quoted = self.word[0] in "\"'"
                yield tomllib.loads(f"k={self.word}")["k"] if quoted else self.word
            self.step()

    def pair(self, path: Path) -> None:
        line = self.line
        for part in self.key():
            path += (part,)
            self.lines.setdefault(path, line)
        self.step()
        self.value(path)

    def value(self, path: Path) -> None:
        opened = self.word
        self.step()
        if opened not in ("[", "{"):
            while self.word not in ("", "\n", ",", "]", "}"):  # 1.5 and dates are several tokens
                self.step()
            return
        item = 0
        while self.word not in ("]", "}"):
            if self.word in ("\n", ","):
                self.step()
            elif opened == "{":
                self.pair(path)
            else:
                self.lines[(*path, item)] = self.line
                self.value((*path, item))
                item += 1
        self.step()


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line, end = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", end, match.start())
        end = match.start()
        if not match[0].startswith("#"):
            yield match[0], line


def quoted(text: str | None) -> str:
    """A TOML string; also safe in a comment and a terminal, for it escapes what controls."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
