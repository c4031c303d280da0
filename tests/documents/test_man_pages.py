"""Man pages; groff is the reference where there is one."""

import gzip
import io
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents.parts import Fault, Part, Unreadable, Wanted
from bantam.documents.readers import man

WORD = re.compile(r"\w+")


def read(page: str | bytes) -> str:
    content = page.encode() if isinstance(page, str) else page
    parts = man.read(io.BytesIO(content), "man", Wanted())
    return "".join(part.text for part in parts if isinstance(part, Part))


MAN = r""".\" A comment
.TH CAT 1 "May 2024" "cat 9" "Commands"
.ie \n(.g .ds Aq \(aq
.el .ds Aq '
.de XX
never shown
..
.SH NAME
cat \- join
files \fBand\fP print\e \*(Aqx\*(Aq
.SH "SEE \(lqALSO\(rq"
.BR tac (1),
.IR less (1)
.PP
A long line that \
goes on.\" not this
.TP
.BI \-n " NUMBER"
Show \fINUMBER\fR lines.
.IP \(bu 3
An item.
.nf
x = 1
    y = 2
.fi
.if t never
.if n \{\
always \}
.TS
allbox tab(;);
c c
l l.
Name;Kind
_
a;T{
two
lines
T}
.TE
na\[:i]ve caf\('e \[u20AC] \N'65'
"""


def test_the_macros_of_man() -> None:
    assert read(MAN) == (
        "NAME\n\ncat - join files and print\\ 'x'\n\nSEE “ALSO”\n\ntac(1), less(1)\n\n"
        "A long line that goes on.\n\n-n NUMBER\nShow NUMBER lines.\n\n•\nAn item.\nx = 1\n"
        "    y = 2\nalways\n\nName | Kind\na | two lines\n\nnaïve café € A\n\n"
    )


MDOC = r""".Dd May 1, 2024
.Dt CAT 1
.Os
.Sh NAME
.Nm cat
.Nd concatenate files
.Sh SYNOPSIS
.Nm
.Op Fl bn
.Op Fl o Ar file
.Ar
.Sh DESCRIPTION
The
.Nm
utility reads
.Ar file ,
see
.Xr tac 1 .
.Bl -tag -width Ds
.It Fl n Ns Ar count
Numbers
.Pq from 1
the lines.
.El
.Bd -literal
$ cat  x
.Ed
.Fn main "int argc" "char **argv"
"""


def test_the_macros_of_mdoc() -> None:
    assert read(MDOC) == (
        "NAME\n\ncat – concatenate files\n\nSYNOPSIS\n\ncat [-bn] [-o file] file ...\n\n"
        "DESCRIPTION\n\nThe cat utility reads file, see tac(1).\n\n-ncount\n"
        "Numbers (from 1) the lines.\n\n"
        "$ cat  x\n\nmain(int argc, char **argv)\n\n"
    )


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_real_pages_have_the_words_that_groff_shows() -> None:
    pages = sorted(
        path for path in Path("/usr/share/man").glob("man[1-8]/*.gz") if not path.is_symlink()
    )
    compared = 0
    for path in random.Random(1).sample(pages, min(40, len(pages))):
        page = gzip.decompress(path.read_bytes())
        if page.lstrip().startswith(b".so") or len(page) > 50_000:
            continue
        command = ["groff", "-t", "-mandoc", "-Kutf8", "-Tutf8", "-rLL=200n", "-P-cbou"]
        shown = subprocess.run(command, input=page, capture_output=True, timeout=60).stdout.decode()
        shown = "\n".join(shown.strip().split("\n")[1:-1])  # without its head and foot
        ours, theirs = (
            Counter(WORD.findall(re.sub(r"‐\n\s*", "", t))) for t in (read(page), shown)
        )
        both = (ours & theirs).total()
        assert both >= 0.95 * theirs.total() and both >= 0.95 * ours.total(), path
        compared += 1
    assert compared > 9 or len(pages) < 40


@given(st.lists(st.text(alphabet="abcé ,;:", min_size=1).filter(lambda t: t.strip()), min_size=1))
def test_plain_lines_keep_their_words(lines: list[str]) -> None:
    page = ".TH X 1\n.SH NAME\n" + "\n".join(line.strip() for line in lines)
    assert read(page).split() == ["NAME", *" ".join(lines).split()]


_PIECES = r"""
.TH .SH .B .BR^a .TP .IP^x .nf .fi .if^n .ie^t .el \{ \} .de^X .. .TS .TE l^l. T{ T} \ \fB \f[ \*(Aq
\*[x] \[u1F600] \[uD800] \(:a \N'9999999' \h' ' " ^ a^b .Dd .Nm .Op^Fl^a .Xr^a^1^. .Bl .It .El
.Bd^-literal .Fn^f^a Oo Oc .ds^a^\*a\*a .as^a^\*a \*a .ig
"""
PIECES = st.sampled_from(["\n", "\t", *_PIECES.replace("^", " ").split("\n")]) | st.sampled_from(
    [piece.replace("^", " ") for piece in _PIECES.split()]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_no_page_is_too_broken(page: str) -> None:
    read(page).encode()


@given(st.binary(max_size=200))
def test_not_even_noise(noise: bytes) -> None:
    with suppress(Unreadable):
        read(b".SH NAME\n" + noise)


FULL = man.LONGEST - 2


@pytest.mark.parametrize(
    "hostile",
    [
        ".if n " * (FULL // 6),
        ".ds a aaaaaaaa\n" + ".as a \\*a\\*a\\*a\n" * 1000 + "\\*a" * (FULL // 3),
        "\\f[" * (FULL // 3),
        "\\[" * (FULL // 2),
        "\\h'\\h\"\\h|" * (FULL // 9),
        "\\s'" * (FULL // 3),
        '"' * FULL,
        ".Dd\n.Op " + "Op " * (FULL // 3 - 2),
        ".Dd\n.Op " + ". " * (FULL // 2 - 2),
        ".TS\nl.\n" + "T{\n" * 100_000,
        "word " * (FULL // 5),
        ".BR " + "a\\" * (FULL // 2 - 2),
        "\\\n" * 100_000,
        "a\\\n" * 100_000,
        "x" * 3 * FULL,
    ],
    ids=range(15),
)
def test_hostile_pages_take_no_time(hostile: str) -> None:
    before = time.process_time()
    assert len(read(".SH NAME\n" + "\n".join([hostile] * 5))) < 60_000_000
    assert time.process_time() - before < 20


def test_a_line_without_end_is_told() -> None:
    page = b".SH NAME\n" + b"x" * 3 * FULL + b"\nend"
    parts = list(man.read(io.BytesIO(page), "man", Wanted()))
    assert [part.name for part in parts if isinstance(part, Fault)] == ["line 2"]
    assert parts[-1] == Part("NAME\n\nend\n\n")
