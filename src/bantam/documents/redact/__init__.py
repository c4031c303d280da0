"""Personal data and secrets in texts: found by rules, replaced by placeholders or by fakes.

Found are e-mail addresses, telephone numbers, public IP addresses, numbers of cards and bank
accounts, credentials in links, keys of well-known services, private keys, numbers that a state
gives to a person, and the user's own patterns and words. `benchmarks/redact.py` measures how many.

**Not found are names of people, postal addresses, dates of birth, and whatever else only its
meaning gives away**: no rule can tell them from other words. Passwords in sentences neither. Names
that are known can be given as words. What was redacted is thus not anonymous.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress

import polars as pl
from phonenumbers import SUPPORTED_REGIONS

from bantam.documents.redact import bank, email, ip, national, own, phone, secret, stand_in
from bantam.documents.redact.span import Span, replaced, settled
from bantam.errors import BadInput
from bantam.sources.door import suggest

Find = Callable[[str], Iterator[tuple[int, int]]]

# Where two kinds find the same, the first counts.
FINDERS: dict[str, Find] = {
    "private-key": secret.find_private_key,
    "credentials": secret.find_credentials,
    "key": secret.find_key,
    "email": email.find,
    "iban": bank.find_iban,
    "card": bank.find_card,
    **{kind: partial(national.find, kind=kind) for kind in national.FORMS},
    "ip": ip.find,
    "phone": phone.find,
}
# What every text holds that something of the kind is found in: looked for in a whole shard at once,
# by expressions of polars, so that most texts are not searched at all.
SIGNS = {
    "private-key": "PRIVATE KEY",
    "credentials": r"://[^\s/]*:|[?&;#][\w;-]*(?i:token|key|secret|pass|pwd|sig|sess|cred)[\w-]*=",
    "key": "|".join(map(re.escape, secret.SIGNS)),
    "email": r"@|[\[({] ?(?:at|AT) ?[\])}]",
    "iban": r"[A-Z]{2}\d\d[ \u00a0]?[A-Z0-9]",
    "card": r"\d{13}|\d{4}[ -]\d{4}[ -]\d{4}|\d{4}[ -]\d{6}[ -]\d{4}",
    "us-ssn": r"\d{3}[- ]\d\d[- ]\d{4}|\d{9}",
    "ip": r"\d\.\d{1,3}\.\d{1,3}\.\d|[23][0-9a-fA-F]{3}:[0-9a-fA-F:]",
    "phone": r"\d[\d \u00a0.()\-–/]{5,}\d",
}
USUAL = tuple(kind for kind in FINDERS if kind not in national.FORMS or kind == "us-ssn")
FOUND: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "count": pl.Int64(),
    "documents": pl.Int64(),
    "examples": pl.List(pl.String()),
}
ROUNDS = 10  # in which a text is searched at most
BEFORE = re.compile(r"[\w=]$|\d\W{1,2}$|::$")  # what may become something to find by itself
AFTER = re.compile(r"[\w+(-]|[.,:]\d")
EXAMPLES = 20  # masked ones of each kind that are told


@dataclass(frozen=True)
class Rules:
    """What is looked for, and what takes its place."""

    kinds: Sequence[str] = USUAL  # of `FINDERS`
    regions: Sequence[str] = ("US",)  # whose telephone numbers are known without "+", as in "GB"
    patterns: Mapping[str, str] = field(default_factory=dict)  # {name: expression of `regex`}
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)  # {name: words, in any case}
    fakes: bool = False  # instead of placeholders; own patterns and words have placeholders always


def finders(rules: Rules) -> dict[str, Find]:
    """What finds each kind that the rules ask for. Raises BadInput for rules that cannot be."""
    for kind in rules.kinds:
        _known("kind of personal data", kind, FINDERS)
    for region in rules.regions:
        _known("region of telephone numbers", region, SUPPORTED_REGIONS)
    found = {kind: find for kind, find in FINDERS.items() if kind in rules.kinds}
    if "phone" in found:
        found["phone"] = partial(phone.find, regions=tuple(rules.regions))
    return own.finders(rules.patterns, rules.words, tuple(FINDERS)) | found


def _known(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise BadInput(f'there is no {what} "{name}"', suggest(name, names))


def find(text: str, by: Mapping[str, Find]) -> list[Span]:
    """What is found in a text, in order, none over another."""
    spans: list[Span] = []
    for _ in range(ROUNDS):
        new = [Span(*place, kind) for kind, one in by.items() for place in one(text)]
        if not new:
            break
        spans = settled(spans + new)
        if not any(_touches(text, span) for span in new):
            break
        # Beside a placeholder more may stand by itself than beside a letter: it is looked for too.
        text = replaced(text, settled(new), stand_in.blank)
    return spans


def _touches(text: str, span: Span) -> bool:
    before, after = text[max(0, span.start - 3) : span.start], text[span.end : span.end + 2]
    return BEFORE.search(before) is not None or AFTER.match(after) is not None


def redact(frame: pl.DataFrame, rules: Rules, key: bytes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents with `text` redacted, and what was found: a row for each kind with `kind`,
    `count`, `documents` (how many hold it) and `examples` (masked).

    `key` is the run's secret, 1 to 64 random bytes: by it the same original has the same fake in
    all shards, and without it nobody finds the original of a fake by trying. Raises BadInput for
    rules that cannot be, and for an own pattern that takes too long.
    """
    by = finders(rules)
    ours = {kind: one for kind, one in by.items() if kind in FINDERS}
    replace = stand_in.fakes(key, partial(find, by=ours)) if rules.fakes else stand_in.placeholder
    signs = [frame["text"].str.contains(SIGNS.get(kind, "")) for kind in by]
    texts = []
    counts: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    examples: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for text, *may in zip(frame["text"], *signs, strict=True):
        spans = find(text, dict(compress(by.items(), may)))
        texts.append(replaced(text, spans, replace) if spans else text)
        counts.update(span.kind for span in spans)
        documents.update({span.kind for span in spans})
        for start, end, kind in spans:
            if len(examples[kind]) < EXAMPLES:
                examples[kind][stand_in.masked(kind, text[start:end])] = None
    told = {
        "kind": list(counts),
        "count": list(counts.values()),
        "documents": [documents[kind] for kind in counts],
        "examples": [list(examples[kind]) for kind in counts],
    }
    found = pl.DataFrame(told, schema=FOUND).sort("kind")
    return frame.with_columns(pl.Series("text", texts, pl.String)), found


def totals(shards: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """What was found in several shards, as one such table."""
    return (
        pl.concat([pl.DataFrame(schema=FOUND), *shards])
        .group_by("kind")
        .agg(
            pl.col("count", "documents").sum(),
            pl.col("examples").explode().unique(maintain_order=True).head(EXAMPLES),
        )
        .sort("kind")
    )
