"""Fakes: the same for the same, never real, never found again, and telling nothing."""

import ipaddress
import re

import personal
import phonenumbers
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents import redact
from bantam.documents.redact import stand_in
from bantam.documents.redact.national import FORMS

RULES = redact.Rules(kinds=tuple(redact.FINDERS), regions=("US", "GB", "DE"), fakes=True)


def redacted(text: str, key: bytes = b"key") -> str:
    frame, _ = redact.redact(pl.DataFrame({"text": [text]}), RULES, key)
    return str(frame["text"][0])


anything = st.one_of(*personal.RIGHT.values())


@given(anything, st.sampled_from([("It is ", " now."), ("<", ">"), ("tel: ", ",")]))
def test_a_fake_is_not_found_again_and_tells_nothing(original: str, sides: tuple[str, str]) -> None:
    once = redacted(original.join(sides))
    assert redacted(once) == once and original not in once
    assert "<" not in once or sides[0] == "<"  # no placeholder


@given(anything)
def test_the_same_has_the_same_fake_by_its_key(original: str) -> None:
    first, second = redacted(f"{original} | {original}").split(" | ")
    assert first == second == redacted(original)


@given(personal.emails)
def test_another_key_has_other_fakes(original: str) -> None:
    assert redacted(original, b"key") != redacted(original, b"another")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann@Host.org", "ann@host.ORG"),
        ("4539 1488 0343 6467", "4539148803436467"),
        ("+49 30 901820", "0049 30 901820"),
        ("DE89 3704 0044 0532 0130 00", "DE89370400440532013000"),
    ],
)
def test_two_writings_of_one_thing_are_one_thing(one: str, other: str) -> None:
    assert re.sub(r"\s", "", redacted(one)) == re.sub(r"\s", "", redacted(other))


@given(personal.ips)
def test_an_address_is_one_of_the_documentation(original: str) -> None:
    nets = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
    fake = ipaddress.ip_address(redacted(original))
    assert fake.version == ipaddress.ip_address(original).version
    assert any(
        fake in net for net in map(ipaddress.ip_network, nets) if net.version == fake.version
    )


@given(personal.phones)
def test_a_telephone_is_one_of_fiction(original: str) -> None:
    number = phonenumbers.parse(redacted(original), None)
    national = str(number.national_number)
    assert re.fullmatch(
        r"\d{3}55501\d\d" if number.country_code == 1 else r"7700900\d{3}", national
    )


@given(personal.cards())
def test_a_card_is_of_no_scheme(original: str) -> None:
    fake = redacted(original)
    digits = re.sub(r"\D", "", fake)
    assert re.sub(r"\d", "9", fake) == re.sub(r"\d", "9", original)
    assert digits.startswith("000")


@given(personal.ibans())
def test_an_account_fails_its_check(original: str) -> None:
    fake = redacted(original)
    assert fake[:4] == original[:2] + "00" and personal.iban(fake[:2], fake[4:]) != fake


@given(personal.ssns)
def test_a_social_security_number_is_of_no_area(original: str) -> None:
    assert re.fullmatch(r"000-\d\d-\d{4}", redacted(original))


def test_every_kind_has_a_fake() -> None:
    assert set(stand_in.KINDS) == redact.FINDERS.keys() and FORMS.keys() < redact.FINDERS.keys()
