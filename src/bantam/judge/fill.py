"""Arguments of a function filled from a text by plain rules: the type says what is looked for."""

import re
from collections.abc import Callable, Iterator
from typing import Any

MOST_DEPTH = 4  # of objects within objects; deeper ones stay empty

# Where strings are looked for, in this order.
STRINGS: dict[str, tuple[str, ...]] = {
    "quoted, capitalised, after": ("quoted", "capitalised", "after"),
    "quoted, after, capitalised": ("quoted", "after", "capitalised"),
    "quoted, capitalised": ("quoted", "capitalised"),
    "quoted, text": ("quoted", "text"),
}

_NUMBER = re.compile(r"(?<![\w.])-?\d{1,15}(?:,\d{3}){0,4}(?:\.\d{1,15})?(?!\d)")
_NUMBER_WORDS = "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_NUMBER_WORD = re.compile(rf"\b(?:{_NUMBER_WORDS})\b", re.IGNORECASE)
_YES = re.compile(r"\b(?:true|yes|on|enabled?|with|include|including|please do)\b", re.IGNORECASE)
_NO = re.compile(r"\b(?:false|no|not|off|disabled?|without|exclude|don't)\b", re.IGNORECASE)
_QUOTED = re.compile(
    r'"([^"\n]{1,500})"|“([^”\n]{1,500})”|«([^»\n]{1,500})»|`([^`\n]{1,500})`'
    r"|(?<!\w)'([^'\n]{1,500})'(?!\w)"
)
_PIECE = re.compile(r"\w+(?:['’-]\w+){0,4}|[^\w\s]")
# Stretches of a form of their own, known by the parameter's name or format.
_FORMS = {
    "mail": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}"),
    "url": re.compile(r"\bhttps?://[^\s\"'<>]{1,1000}"),
    "date": re.compile(r"\b\d{4}-\d{2}-\d{2}\b"),
    "time": re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?(?: ?[ap]m\b)?", re.IGNORECASE),
}
_PREPOSITION = re.compile(
    r"in|for|to|of|at|from|about|named|called|on|with|by|into|between|and|titled|is|as",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"the|an?|my|our|your", re.IGNORECASE)
_MOST_AFTER = 6  # words after a preposition

NOTHING = object()


def arguments(
    text: str, schema: Any, *, strings: str, optional: bool, empty: bool
) -> dict[str, Any]:
    """Arguments by a JSON schema of an object, in the order of its properties.

    `strings` is a key of `STRINGS`. Arguments that are not required are given if they are found
    and `optional` says so; required ones that are not found get their default, else an empty value
    of their type if `empty` says so.
    """
    return _object(_Finds(text, STRINGS[strings]), schema, optional, empty, MOST_DEPTH)


def _object(
    finds: "_Finds", schema: Any, optional: bool, empty: bool, depth: int
) -> dict[str, Any]:
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    found: dict[str, Any] = {}
    # What is required takes from the text first.
    for name, spec in sorted(properties.items(), key=lambda pair: pair[0] not in required):
        if name not in required and not optional:
            continue
        spec = spec if isinstance(spec, dict) else {}
        if _type(spec) == "object":
            value: Any = _object(finds, spec, optional, empty, depth - 1) if depth > 1 else {}
            value = value if value or name in required else NOTHING
        else:
            value = finds.value(name, spec)
        if value is NOTHING and name in required:
            value = spec.get("default", _empty(spec) if empty else NOTHING)
        if value is not NOTHING:
            found[name] = value
    return {name: found[name] for name in properties if name in found}


def _type(spec: dict[str, Any]) -> str:
    kind = spec.get("type", "string")
    kinds = kind if isinstance(kind, list) else [kind]
    return next((str(one) for one in kinds if one != "null"), "string")


def _empty(spec: dict[str, Any]) -> Any:
    choices = spec.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    blanks = {"integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}
    return blanks.get(_type(spec), "")


class _Finds:
    """What a text holds; each number and string is given once, in the order of the text."""

    def __init__(self, text: str, order: tuple[str, ...]) -> None:
        self.text = text
        self.numbers = _numbers(text)
        self.strings = [string for kind in order for string in _STRETCHES[kind](text)]

    def value(self, name: str, spec: dict[str, Any]) -> Any:
        choices, kind = spec.get("enum"), _type(spec)
        if isinstance(choices, list):
            return next(iter(self._chosen(choices)), NOTHING)
        if kind in ("integer", "number"):
            return self._number(kind == "integer")
        if kind == "boolean":
            # "not" weighs more than "with": a denial turns what stands beside it.
            if _NO.search(self.text):
                return False
            return True if _YES.search(self.text) else NOTHING
        if kind == "array":
            return self._list(spec.get("items"))
        return self._string(f"{name} {spec.get('format', '')}".casefold())

    def _chosen(self, choices: list[Any]) -> list[Any]:
        """The choices that stand in the text as words, as they stand there; of those that begin
        together the longest first."""
        places = []
        for choice in choices:
            word = re.escape(str(choice).replace("_", " "))
            found = re.search(rf"(?<!\w){word}(?!\w)", self.text.replace("_", " "), re.IGNORECASE)
            if found and str(choice):
                places.append((found.start(), -len(str(choice)), choice))
        return [choice for _, _, choice in sorted(places, key=lambda place: place[:2])]

    def _number(self, whole: bool) -> Any:
        for place, number in enumerate(self.numbers):
            if not whole or isinstance(number, int):
                return self.numbers.pop(place)
        return NOTHING

    def _string(self, hint: str) -> Any:
        for form, pattern in _FORMS.items():
            found = pattern.search(self.text) if form in hint else None
            if found:
                return found[0]
        if not self.strings:
            return NOTHING
        taken = self.strings[0]
        # What stands within it is not another argument.
        self.strings = [string for string in self.strings[1:] if string not in taken]
        return taken

    def _list(self, items: Any) -> Any:
        items = items if isinstance(items, dict) else {}
        choices = items.get("enum")
        found: list[Any]
        if isinstance(choices, list):
            found = self._chosen(choices)
        elif _type(items) in ("integer", "number"):
            whole = _type(items) == "integer"
            found = [number for number in self.numbers if not whole or isinstance(number, int)]
            self.numbers = []
        elif _type(items) == "string":
            found, self.strings = self.strings, []
        else:
            found = []
        return found or NOTHING


def _numbers(text: str) -> list[int | float]:
    """The numbers of a text in digits, and up to twelve in words."""
    found: dict[int, int | float] = {}
    for match in _NUMBER.finditer(text):
        written = match[0].replace(",", "")
        found[match.start()] = float(written) if "." in written else int(written)
    for match in _NUMBER_WORD.finditer(text):
        found[match.start()] = _NUMBER_WORDS.split("|").index(match[0].casefold())
    return [found[place] for place in sorted(found)]


def _quoted(text: str) -> list[str]:
    return [next(filter(None, match.groups())) for match in _QUOTED.finditer(text)]


def _capitalised(text: str) -> list[str]:
    """Runs of words that begin with a capital; the first word of a sentence does anyway."""
    found: list[list[int]] = []
    sentence, end = True, -1
    for match in _PIECE.finditer(text):
        capital = match[0][0].isupper() and not sentence
        if capital and found and found[-1][1] == end and text[end : match.start()] in (" ", "-"):
            found[-1][1] = match.end()
        elif capital and match[0] not in ("I", "I'm", "I'd", "I'll", "I've"):
            found.append([match.start(), match.end()])
        sentence, end = match[0] in ".!?", match.end()
    return [text[start:stop] for start, stop in found]


def _after(text: str) -> list[str]:
    """What follows a preposition, up to the next one or to punctuation, without an article."""
    return [string for string in _stretches(text) if string]


def _stretches(text: str) -> Iterator[str]:
    start, end, words = -1, -1, 0
    for match in _PIECE.finditer(text):
        preposition = _PREPOSITION.fullmatch(match[0]) is not None
        if preposition or not match[0][0].isalnum():
            yield text[start:end] if words else ""
            # Punctuation begins nothing; -1 says that no stretch is open.
            start, words = (match.end() if preposition else -1), 0
        elif start >= 0 and words < _MOST_AFTER and (words or not _ARTICLE.fullmatch(match[0])):
            start, end, words = (start if words else match.start()), match.end(), words + 1
    yield text[start:end] if words else ""


_STRETCHES: dict[str, Callable[[str], list[str]]] = {
    "quoted": _quoted,
    "capitalised": _capitalised,
    "after": _after,
    "text": lambda text: [text.strip()] if text.strip() else [],
}
