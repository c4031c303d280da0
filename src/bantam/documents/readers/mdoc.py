"""The macros of mdoc, which say what words of a manual are, as plain words."""

from collections.abc import Sequence

_PAIRS = {  # around the rest of the line
    "Op": "[]",
    "Bq": "[]",
    "Pq": "()",
    "Aq": "<>",
    "Brq": "{}",
    "Dq": "“”",
    "Sq": "‘’",
    "Ql": "‘’",
    "Qq": '""',
}
_MARKS = {
    **{"Oo": "[", "Oc": "]", "Bo": "[", "Bc": "]", "Po": "(", "Pc": ")", "Ao": "<", "Ac": ">"},
    **{"Bro": "{", "Brc": "}", "Do": "“", "Dc": "”", "So": "‘", "Sc": "’", "Qo": '"', "Qc": '"'},
}
_NAMES = {
    "At": "AT&T UNIX",
    "Bsx": "BSD/OS",
    "Bx": "BSD",
    "Dx": "DragonFly",
    "Fx": "FreeBSD",
    "Nx": "NetBSD",
    "Ox": "OpenBSD",
    "Ux": "UNIX",
}
_PLAIN = """
Ad An Ar Cd Cm Dv D1 Dl Em Er Es Ev Fa Fd Ft Ic In Lb Li Lk Ms Mt Nd No Pa Rv St Sx Sy Tn Va Vt Ex
Xo Xc Fo Fc Bt Ud %A %B %C %D %I %J %N %O %P %Q %R %T %U %V
""".split()  # noqa: SIM905  a list of these is a page long
_OWN = {"Nm", "Fl", "Xr", "Fn", "Ns", "Pf", "Ap", "Ta", "Eo", "Ec"}
MACROS = {*_PLAIN} | _OWN | _PAIRS.keys() | _MARKS.keys() | _NAMES.keys()
_CLOSE = set(".,;:!?)]}>”’")
_OPEN = set("([{<“‘")


def words(arguments: Sequence[str], name: str) -> str:
    """The words of a line of mdoc, its macros among them; `name` is what the page is about."""
    out: list[str] = []
    ends: list[str] = []  # of pairs that close where the line ends
    joined = True  # the next word stands right behind what is there
    rest = list(reversed(arguments))
    last = len(arguments)
    while last and arguments[last - 1] in _CLOSE:  # signs behind all that is on the line
        last -= 1
    tail = len(arguments) - last

    def put(word: str, close: bool = False, opens: bool = False) -> None:
        nonlocal joined
        out.append(word if joined or close else f" {word}")
        joined = opens

    def word() -> str | None:
        """The next argument, if it is neither a macro nor a sign."""
        free = len(rest) > tail and rest[-1] not in MACROS and rest[-1] not in _CLOSE | _OPEN
        return rest.pop() if free else None

    while len(rest) > tail:
        one = rest.pop()
        if one in _PAIRS:
            put(_PAIRS[one][0], opens=True)
            ends.append(_PAIRS[one][1])
        elif one in _MARKS:
            put(_MARKS[one], close=one.endswith("c"), opens=not one.endswith("c"))
        elif one in _NAMES:
            put(_NAMES[one])
        elif one == "Nm":
            put(word() or name)
        elif one == "Nd":
            put("–")
        elif one == "Ar" and (not rest or len(rest) <= tail or rest[-1] in MACROS):
            put("file ...")
        elif one == "Fl":
            put(f"-{word() or ''}")
            while more := word():
                put(f"-{more}")
        elif one == "Xr":
            page, section = word() or "", word()
            put(f"{page}({section})" if section else page)
        elif one in ("Fn", "Fo"):
            function, given = word() or "", []
            while one == "Fn" and (more := word()):
                given.append(more)
            put(f"{function}({', '.join(given)})" if one == "Fn" else f"{function}(")
        elif one == "Fc":
            put(")", close=True)
        elif one == "Pf":
            put(word() or "", opens=True)
        elif one == "Ns":
            joined = True
        elif one == "Ap":
            put("'", close=True, opens=True)
        elif one == "Ta":
            put("|")
        elif one in _CLOSE:
            put(one, close=True)
        elif one in _OPEN:
            put(one, opens=True)
        elif one not in MACROS:
            put(one)
    return "".join([*out, *reversed(ends), *reversed(rest)])
