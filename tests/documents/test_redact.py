"""Personal data is found in every form that is right, and nothing is that only looks like it."""

import time
from collections import Counter
from functools import cache

import personal
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bantam.documents import redact
from bantam.documents.redact.span import Span, settled
from bantam.errors import BadInput

ALL = redact.Rules(kinds=tuple(redact.FINDERS), regions=("US", "GB", "DE"))
USUAL = redact.Rules()
KEY = b"a key of a run"


@cache
def by(every: bool = False) -> dict[str, redact.Find]:
    return redact.finders(ALL if every else USUAL)


def redacted(text: str, rules: redact.Rules = USUAL) -> str:
    frame, _ = redact.redact(pl.DataFrame({"text": [text]}), rules, KEY)
    return str(frame["text"][0])


around = st.sampled_from(
    [
        ("It is ", " now."),
        ("", ""),
        ("(", ")"),
        ("<", ">"),
        ('"', '",'),
        ("is:\t", "\n"),
        ("“", "”"),
    ]
)


@pytest.mark.parametrize("kind", personal.RIGHT)
def test_every_right_form_is_found_whole(kind: str) -> None:
    @given(personal.RIGHT[kind], around)
    def found(original: str, sides: tuple[str, str]) -> None:
        text = original.join(sides)
        start = len(sides[0])
        assert Span(start, start + len(original), kind) in redact.find(text, by())
        assert original not in redacted(text)

    found()


@given(personal.NEARLY, around)
def test_what_is_nearly_right_is_not_found(text: str, sides: tuple[str, str]) -> None:
    assert redact.find(text.join(sides), by()) == []


PIECES = st.one_of(
    *personal.RIGHT.values(),
    personal.NEARLY,
    st.sampled_from(
        ["tel ", "fax: ", "v", "https://", "@", ":", ".", "-", " ", "+", "(", ")", "=", "?"]
    ),
    st.text("0123456789abcdefAB.-@:/ +()", max_size=12),
)
glued = st.lists(PIECES, max_size=8).map("".join)


@given(glued)
def test_spans_are_in_order_and_apart(text: str) -> None:
    place = 0
    for start, end, kind in redact.find(text, by(True)):
        assert place <= start < end <= len(text) and kind in redact.FINDERS
        place = end


@given(glued)
@example("+1 212 736 0000(212) 736-0000a@0.com")  # a number only when the address is gone
def test_replacing_twice_is_replacing_once(text: str) -> None:
    once = redacted(text, ALL)
    assert redacted(once, ALL) == once


@given(st.lists(st.one_of(*personal.RIGHT.values()), max_size=6))
def test_nothing_of_an_original_stays(originals: list[str]) -> None:
    text = redacted(" and\n".join(originals), ALL)
    assert not any(original in text for original in originals)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.sampled_from("abc")), max_size=9)
)
def test_spans_that_overlap_become_one_of_the_longest_kind(
    drawn: list[tuple[int, int, str]],
) -> None:
    spans = [Span(start, start + length, kind) for start, length, kind in drawn]
    done = settled(spans)
    covered = {place for span in spans for place in range(span.start, span.end)}
    assert sorted(place for span in done for place in range(span.start, span.end)) == sorted(
        covered
    )
    for span in done:
        inside = [one for one in spans if span.start <= one.start and one.end <= span.end]
        longest = max(one.end - one.start for one in inside)
        assert span.kind in {one.kind for one in inside if one.end - one.start == longest}


@given(glued)
def test_a_shard_is_searched_for_signs_and_loses_nothing(text: str) -> None:
    _, found = redact.redact(pl.DataFrame({"text": [text]}), ALL, KEY)
    counts = Counter(span.kind for span in redact.find(text, by(True)))
    assert dict(found.select("kind", "count").iter_rows()) == counts


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://ann:pa55word@host.org/x", "https://<CREDENTIALS>@host.org/x"),
        ("http://h.org/?a=1&access_token=abcd1234&b=2", "http://h.org/?a=1&access_token=<CREDENTIALS>&b=2"),
        ("https://h.org/?mail=ann@host.org&x", "https://h.org/?mail=<EMAIL>&x"),
        ("<a title=ann@host.org>", "<a title=<EMAIL>>"),
        ("bounce-ann=host.org@list.net!", "<EMAIL>!"),
        ("mailto:o'brien@host.ie", "mailto:<EMAIL>"),
        ("请联系ann@host.com谢谢", "请联系<EMAIL>谢谢"),
        ("müller@bücher.de", "<EMAIL>"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer <KEY>"),
        ("aws_secret_access_key = " + "aB3/" * 10, "aws_secret_access_key = <KEY>"),
        ("Tel 0301234567, Fax: 030-765 43 21", "Tel <PHONE>, Fax: <PHONE>"),
        ("call (212) 736-5000 ext. 12!", "call <PHONE>!"),
        ("from 0049 30 901820 on", "from <PHONE> on"),
        ("1 4539 1488 0343 6467 12/27 123", "1 <CARD> 12/27 123"),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "IBAN <IBAN> BIC COBADEFF"),
        ("[64.161.22.236]:25, 2a00:1450:4001:81b::200e.", "[<IP>]:25, <IP>."),
        ("536904399, ssn 536904399", "536904399, ssn <US_SSN>"),
        ("-----BEGIN RSA PRIVATE KEY-----\n" + "A1b2" * 16 + "\ncut", "<PRIVATE_KEY>\ncut"),
    ],
)  # fmt: skip
def test_what_stays_around_it(text: str, left: str) -> None:
    assert redacted(text) == left


NATIONAL = {  # numbers that the offices themselves, or the makers of their rules, give as examples
    "gb-nino": ("AB 12 34 56 C", "QQ 12 34 56 C"),
    "gb-nhs": ("NHS no. 943 476 5919", "NHS no. 943 476 5918"),
    "de-steuer-id": ("Steuer-ID 36 574 261 809", "Steuer-ID 36 574 261 808"),
    "fr-nir": ("2 95 10 99 126 111 93", "2 95 10 99 126 111 94"),
    "es-dni": ("54362315K", "54362315L"),
    "it-codice-fiscale": ("RCCMNL83S18D969H", "RCCMNL83S18D969I"),
    "nl-bsn": ("BSN 111222333", "BSN 111222334"),
    "pl-pesel": ("PESEL 44051401359", "PESEL 44051401358"),
    "se-personnummer": ("811228-9874", "811228-9873"),
    "br-cpf": ("390.533.447-05", "390.533.447-04"),
    "in-aadhaar": ("Aadhaar 2341 2341 2346", "Aadhaar 2341 2341 2347"),
    "ca-sin": ("SIN 123 456 782", "SIN 123 456 783"),
    "ch-ahv": ("756.9217.0769.85", "756.9217.0769.84"),
}


@pytest.mark.parametrize("kind", NATIONAL)
def test_numbers_that_a_state_gives(kind: str) -> None:
    right, wrong = NATIONAL[kind]
    only = redact.finders(redact.Rules(kinds=[kind]))
    assert [span.kind for span in redact.find(f"It is {right}, no?", only)] == [kind]
    assert redact.find(f"It is {wrong}, no?", only) == []
    assert kind not in redact.USUAL


def test_every_kind_is_tested() -> None:
    assert redact.FINDERS.keys() == {*personal.RIGHT, "credentials", *NATIONAL}


def test_a_shard_is_counted_and_shown_masked() -> None:
    texts = ["ann@host.org, ANN@host.org, 64.161.22.236", "bob@host.org", "nothing"]
    frame = pl.DataFrame({"id": ["a", "b", "c"], "text": texts})
    done, found = redact.redact(frame, USUAL, KEY)
    assert done["text"].to_list() == ["<EMAIL>, <EMAIL>, <IP>", "<EMAIL>", "nothing"]
    assert done["id"].to_list() == ["a", "b", "c"]
    assert found.rows() == [
        ("email", 3, 2, ["a***@***.org", "A***@***.org", "b***@***.org"]),
        ("ip", 1, 1, ["6*.***.**.***"]),
    ]
    assert redact.totals([found, found]).rows() == [
        ("email", 6, 4, ["a***@***.org", "A***@***.org", "b***@***.org"]),
        ("ip", 2, 2, ["6*.***.**.***"]),
    ]
    assert redact.totals([]).schema == found.schema


@given(st.one_of(*personal.RIGHT.values()))
def test_a_masked_example_does_not_tell(original: str) -> None:
    _, found = redact.redact(pl.DataFrame({"text": [original]}), USUAL, KEY)
    for shown in found["examples"].explode():
        assert sum(map(str.isalnum, shown)) <= 15 and original not in shown


HOSTILE = [
    *("a@", "a.", "@a.", "1", "1 ", "1.", "1-", "(1", "1/2/", "4111 ", "DE00 1111", "A1 ", "2001:"),
    *(
        "eyJa.",
        "sk-",
        "sk-a-",
        "://a:",
        "?token=",
        "[at] a.",
        "-----BEGIN PRIVATE KEY-----\n",
        "ab1",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "tel 1 ",
        "+1 2 ",
        "123-45-",
        "xox",
        "AKIA",
        "Basic ",
        "=" * 9,
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_take_no_longer_than_their_length(piece: str) -> None:
    """Of quadratic time a text ten times as long would take a hundred times as long."""
    times = []
    for size in (10_000, 100_000):
        text = piece * (size // len(piece))
        took = []
        for _ in range(3):  # the quickest: beside other work some take much longer
            began = time.process_time()
            redact.find(text, by(True))
            took.append(time.process_time() - began)
        times.append(min(took))
    assert times[1] < 40 * times[0] + 0.5


@pytest.mark.parametrize(
    "rules",
    [
        redact.Rules(kinds=["e-mail"]),
        redact.Rules(regions=["USA"]),
        redact.Rules(patterns={"x": "("}),
        redact.Rules(patterns={"x": "a*"}),
        redact.Rules(patterns={"email": "a"}),
        redact.Rules(patterns={"Not a name": "a"}),
        redact.Rules(patterns={"x": "(" * 3000}),
        redact.Rules(patterns={"x": "(" * 900 + ")" * 900}),
        redact.Rules(words={"x": []}),
        redact.Rules(words={"x": ["a"]}, patterns={"x": "a"}),
    ],
)
def test_rules_that_cannot_be_are_refused(rules: redact.Rules) -> None:
    with pytest.raises(BadInput):
        redact.finders(rules)
