"""Man pages: the roff of the packages `man` and `mdoc`, filled as a reader sees them.

groff is not there everywhere, and runs what a page says; this reads only what manuals are made of.
Requests and macros that say how a page looks are passed over, definitions and loops are not run.
"""

import re
from collections.abc import Iterator
from typing import IO, cast
from unicodedata import normalize

from bantam.documents.parts import Fault, Part, Wanted
from bantam.documents.readers import mdoc
from bantam.documents.readers.plain import decoded, lines

LONGEST = 100_000  # characters of a line
DEFINED = 200  # characters of a string that a page defines, and pages have at most as many

_TABLE = """
aq ' dq " oq ‘ cq ’ lq “ rq ” Bq „ bq ‚ Fo « Fc » fo ‹ fc › em — en – hy - mi − bu • co © rg ® tm ™
de ° +- ± ** ∗ <> ↔ <= ≤ >= ≥ ha ^ ti ~ ga ` rs \\ sl / at @ sh # lB [ rB ] lC { rC } la ⟨ ra ⟩
<- ← -> → ua ↑ da ↓ br │ ul _ Do $ ct ¢ ss ß ae æ AE Æ oe œ OE Œ /o ø /O Ø /l ł /L Ł oa å aa ´
Eu € Po £ Ye ¥ sc § dg † dd ‡ ps ¶ mu × di ÷ != ≠ == ≡ ~~ ≈ if ∞ 12 ½ 14 ¼ 34 ¾ S1 ¹ S2 ² S3 ³ OK ✓
sq □ ci ○ no ¬ tno ¬ lf ⌊ rf ⌋ lc ⌈ rc ⌉ pl + eq = fi fi fl fl
*a α *b β *g γ *d δ *e ε *m μ *p π *s σ *l λ *w ω *h θ *S Σ *D Δ
""".split()  # noqa: SIM905  a list of these is a page long
_SIGNS = dict(zip(_TABLE[::2], _TABLE[1::2], strict=True))
_ACCENTS = dict(zip("'`^:~,ov", "\u0301\u0300\u0302\u0308\u0303\u0327\u030a\u030c", strict=True))
# Names are bounded, so that no line takes the square of its length.
_ESCAPE = re.compile(
    r"""\\(?:
      ["#].*                                                       # a comment
    | \*(?:\[(?P<string3>[^]]{0,99})\]|\((?P<string2>..)|(?P<string1>.))
    | \[(?P<long>[^]]{0,99})\] | \((?P<short>..) | C'(?P<named>[^']{0,99})'
    | N'(?P<code>\d{1,7})'
    | [fFmMgkYVn][+-]?(?:\[[^]]{0,99}\]|\(..|.)
    | s(?:[+-]?(?:\[[^]]{0,99}\]|'[^']{0,99}'|\(..)|[+-]?[0-3]?\d)
    | [hvwlLDobXZAxRSHB](?P<mark>['"|])(?:(?!(?P=mark)).){0,999}(?P=mark)
    | (?P<other>.)
    | $
    )""",
    re.X,
)
_PLAIN = {"e": "\\", "\\": "\\", "-": "-", "'": "'", "`": "`", ".": ".", " ": " ", "~": " "}
_PLAIN |= {"0": " ", "_": "_", "E": "\\"}
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+|\\$)')
_REQUEST = re.compile(r"[.'][ \t]*([^ \t\\]*)[ \t]*(.*)", re.S)
_CONDITION = re.compile(
    r"\s*(!?)\s*(?:([ntveo])(?![\w(])|'([^']*)'([^']*)'|\\n(?:\(\.g|\[\.g\])|(\S+?(?=\s|\\\{|$)))"
)
_FONTS = {"B", "I", "SM", "SB", "R", "CW", "Cw"}
_MIXED = {"BR", "RB", "BI", "IB", "IR", "RI"}
_PARAGRAPHS = {"PP", "P", "LP", "HP", "sp", "RS", "RE", "SY", "YS", "Sp", "bp", "in", "Pp", "Lp"}
_LITERAL = {"nf", "EX", "Vb", "DS"}
_FILLED = {"fi", "EE", "Ve", "DE"}
_UNTIL = {"de": ".", "de1": ".", "am": ".", "ig": ".", "EQ": "EN", "PS": "PE", "GS": "GE"}
ENOUGH = 1 << 16  # characters that are given away at once


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    page = _Page()
    for number, line in enumerate(lines(decoded(file), LONGEST), 1):
        if line is None:
            yield Fault(f"line {number}", f"it has more than {LONGEST:,} characters")
            continue
        page.line(line.rstrip("\r\n"))
        if page.size > ENOUGH:
            yield Part(page.taken())
    page.paragraph()
    yield Part(page.taken())


class _Page:
    """What a page says as its lines go by."""

    def __init__(self) -> None:
        self.size = 0  # of what is written and not taken
        self._out: list[str] = []
        self._words: list[str] = []  # of the open paragraph, with what parts them
        self._glue = ""  # before the next words
        self._literal = False
        self._held: list[str] = []  # a line that goes on in the next one
        self._size = 0  # of it
        self._until: str | None = None  # the request that ends what is passed over
        self._braces = 0  # open in what a condition passes over
        self._else: list[bool] = []  # what the open conditions do with their other half
        self._tag = self._heading = False  # whether the next words are one
        self._tight = False  # words stand right behind one another
        self._link = ""
        self._table: _Table | None = None
        self._strings = {"lq": "“", "rq": "”", "Aq": "'", "R": "®", "Tm": "™", "S": ""}
        self._mdoc = False
        self._name = ""

    def taken(self) -> str:
        text = "".join(self._out)
        self._out, self.size = [], 0
        return text

    def line(self, line: str) -> None:
        """Take a line of the page, without its end."""
        if line.endswith("\\") and (len(line) - len(line.rstrip("\\"))) % 2:
            self._held.append(line[:-1])
            self._size += len(line)
            if self._size < LONGEST:
                return
            line = ""
        line = "".join([*self._held, line])
        self._held, self._size = [], 0
        if self._until is not None:
            found = _REQUEST.match(line)
            if found and (found[1] == self._until or line.rstrip() == "." + self._until):
                self._until = None
        elif self._braces:
            self._braces = max(0, self._braces + line.count("\\{") - line.count("\\}"))
        else:
            rest: str | None = line
            while rest is not None:  # what a condition lets through is a line again
                rest = self._taken_up(rest)

    def _taken_up(self, line: str) -> str | None:
        found = _REQUEST.match(line)
        if self._table is not None and (found is None or found[1] != "TE"):
            if found is None or found[1] in _FONTS:
                self._table.line(self.plain(line if found is None else found[2]))
        elif found is None:
            self._text(self.plain(line))
        elif found[1] in ("if", "ie", "el", "while"):
            return self._condition(found[1], found[2])
        else:
            self._request(found[1], found[2])
        return None

    def _condition(self, name: str, rest: str) -> str | None:
        """What is left of the line if it holds."""
        if name == "el":
            holds = self._else.pop() if self._else else False
        else:
            found = _CONDITION.match(rest)
            rest = rest[found.end() :] if found else ""
            holds = bool(found) and name != "while" and _holds(cast(re.Match[str], found))
            if name == "ie":
                self._else = [*self._else[-50:], not holds]
        if holds:
            return rest.lstrip().removeprefix("\\{").lstrip() or None
        self._braces = max(0, rest.count("\\{") - rest.count("\\}"))
        return None

    def _request(self, name: str, rest: str) -> None:
        if name in _UNTIL:
            words = rest.split()
            own = words[1] if name in ("de", "de1", "am") and len(words) > 1 else None
            self._until = own or (words[0] if name == "ig" and words else _UNTIL[name])
        elif name in ("ds", "as"):
            key, _, value = rest.partition(" ")
            if key in self._strings or len(self._strings) < DEFINED:
                before = self._strings.get(key, "") if name == "as" else ""
                value = self.plain(value.lstrip().removeprefix('"'))
                self._strings[key] = (before + value)[:DEFINED]
        elif name in ("SH", "SS", "Sh", "Ss"):
            self.paragraph()
            self._literal, self._heading = False, True
            self._words_of(rest)
        elif name in ("TP", "TQ", "IP"):
            self.paragraph() if name != "TQ" else self._break()
            self._tag = name != "IP" or bool(self._arguments(rest))
            if name == "IP":
                self._text(self.plain(" ".join(self._arguments(rest)[:1])), blank=False)
        elif name in _PARAGRAPHS:
            self.paragraph()
        elif name in _LITERAL or name in _FILLED:
            self._break()
            self._literal = name in _LITERAL
        elif name == "br":
            self._break()
        elif name == "TS":
            self.paragraph()
            self._table = _Table()
        elif name == "TE" and self._table is not None:
            self._words = ["\n".join(self._table.rows())]
            self._table = None
            self.paragraph()
        elif self._mdoc or name == "Dd":
            self._mdoc_request(name, rest)
        elif name in _FONTS:
            self._words_of(rest)
        elif name in _MIXED:
            self._text(self.plain("".join(self._arguments(rest))), blank=False)
        elif name == "OP":
            self._text(self.plain(f"[{' '.join(self._arguments(rest))}]"))
        elif name in ("UR", "MT"):
            self._link = self.plain(rest).strip()
        elif name in ("UE", "ME"):
            self._text(f"<{self._link}>{self.plain(rest).strip()}")

    def _mdoc_request(self, name: str, rest: str) -> None:
        self._mdoc = True
        arguments = self._arguments(rest)
        if name == "Sm":
            self._tight = arguments[:1] == ["off"]
        if name in ("Bl", "El", "Rs", "Re"):
            self.paragraph()
        elif name in ("Bd", "Ed"):
            self.paragraph()
            self._literal = name == "Bd" and bool({"-literal", "-unfilled"} & set(arguments))
        elif name == "It":
            self.paragraph()
            self._tag = bool(arguments)
            self._text(self.plain(mdoc.words(arguments, self._name)), blank=False)
        elif name in mdoc.MACROS:
            if name == "Nm" and arguments and not self._name:
                self._name = arguments[0]
            if name in ("D1", "Dl"):
                self._break()
            self._text(self.plain(mdoc.words([name, *arguments], self._name)), blank=False)
            if name in ("D1", "Dl"):
                self._break()

    def _arguments(self, rest: str) -> list[str]:
        """The arguments of a macro: words, or what stands in quotation marks."""
        found = _ARGUMENT.finditer(rest.partition('\\"')[0])
        return [m[2] if m[1] is None else m[1].replace('""', '"') for m in found]

    def _words_of(self, rest: str) -> None:
        """The words of a macro that means the next line where it has none."""
        if arguments := self._arguments(rest):
            self._text(self.plain(" ".join(arguments)))

    def _text(self, text: str, blank: bool = True) -> None:
        if not text.strip():
            if self._literal and self._words:
                self._glue = "\n\n"
            elif blank:
                self.paragraph()
            return
        blank_glue = "" if self._tight else " "
        glue = self._glue or ("\n" if self._literal or text[0] == " " else blank_glue)
        self._words += [glue, text.rstrip() if self._literal else " ".join(text.split())]
        self._glue = ""
        if self._heading:
            self._heading = False
            self.paragraph()
        if self._tag:
            self._tag = False
            self._break()
        if len(self._words) > 1000:  # a paragraph without end is given away in pieces
            self._write("".join(self._words))
            self._words = []

    def _break(self) -> None:
        self._glue = self._glue or "\n"

    def paragraph(self) -> None:
        """End the paragraph that is open."""
        text = "".join(self._words).strip("\n")
        self._words, self._glue = [], ""
        if text.strip():
            self._write(f"{text.removeprefix(' ') if not self._literal else text}\n\n")

    def _write(self, text: str) -> None:
        self._out.append(text)
        self.size += len(text)

    def plain(self, text: str) -> str:
        """A text with its escapes resolved."""
        return _ESCAPE.sub(self._escape, text) if "\\" in text else text

    def _escape(self, found: re.Match[str]) -> str:
        sign = found["long"] or found["short"] or found["named"]
        string = found["string3"] or found["string2"] or found["string1"]
        if sign is not None:
            return _sign(sign)
        if string is not None:
            return self._strings.get(string, "")
        if found["code"] is not None:
            code = int(found["code"])
            return chr(code) if 31 < code < 0xD800 else ""
        return _PLAIN.get(found["other"] or "", "")


def _holds(found: re.Match[str]) -> bool:
    """Whether a condition holds for a page that is read on a screen, by groff."""
    negated, letter, one, other, number = found.groups()
    if letter:
        value = letter in "no"
    elif one is not None:
        value = one == other
    else:
        value = number is None or (number.isdecimal() and int(number[:9]) > 0)
    return value != bool(negated)


def _sign(name: str) -> str:
    """The character that roff calls so."""
    if known := _SIGNS.get(name):
        return known
    if re.fullmatch(r"u[0-9A-F]{4,6}(_[0-9A-F]{4,6})*", name):
        codes = [int(code, 16) for code in name[1:].split("_")]
        return "".join(chr(code) for code in codes if 31 < code < 0x110000 and code >> 11 != 27)
    if len(name) == 2 and name[0] in _ACCENTS and name[1].isalpha():
        return normalize("NFC", name[1] + _ACCENTS[name[0]])
    return ""


class _Table:
    """Lines of tbl as rows whose cells are parted by " | "."""

    def __init__(self) -> None:
        self._rows: list[str] = []
        self._tab = "\t"
        self._format = True  # the lines that say how the table looks
        self._cell: list[str] | None = None  # lines of a cell that has several
        self._row = ""

    def line(self, line: str) -> None:
        if self._format:
            if found := re.search(r"tab\s*\((.)\)", line):
                self._tab = found[1]
            self._format = not line.rstrip().endswith(".")
        elif self._cell is not None and not line.startswith("T}"):
            self._cell.append(line.strip())
        else:
            if self._cell is not None:
                line = self._row + " ".join(self._cell) + line[2:]
                self._cell = None
            if line.rstrip().endswith("T{"):
                self._row, self._cell = line.rstrip()[:-2], []
            elif line.strip() not in ("", "_", "="):
                self._rows.append(" | ".join(cell.strip() for cell in line.split(self._tab)))

    def rows(self) -> list[str]:
        """The rows; a cell that is open at the end closes here."""
        if self._cell:
            self.line("T}")
        return [row for row in self._rows if row.strip(" |_=")]
