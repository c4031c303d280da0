"""Strategies for data that looks personal: forms that are right, and those that nearly are."""

import re
import string

import phonenumbers
from hypothesis import strategies as st

DIGITS = string.digits
ALNUM = string.ascii_letters + string.digits


def text(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most or least)


def luhn(digits: str) -> str:
    """The digit that makes a card's number right, by the rule as Luhn's patent has it."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return str(-total % 10)


def grouped(digits: str, sizes: tuple[int, ...], sign: str) -> str:
    parts, place = [], 0
    for size in sizes:
        parts.append(digits[place : place + size])
        place += size
    return sign.join(part for part in parts if part)


def iban(country: str, account: str) -> str:
    number = "".join(str(int(sign, 36)) for sign in account + country + "00")
    return f"{country}{98 - int(number) % 97:02d}{account}"


LETTERS = string.ascii_letters
names = st.from_regex(r"[a-z][a-z0-9_+-]{0,12}(\.[a-z0-9]{1,10})?", fullmatch=True)
hosts = st.builds(
    "{}.{}".format,
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?(\.mail)?", fullmatch=True),
    st.sampled_from(["com", "org", "de", "co.uk", "info", "museum", "xn--p1ai"]),
).filter(lambda host: not host.startswith("example."))
emails = st.builds("{}@{}".format, names, hosts) | st.builds(
    "{} [at] {}".format, names, hosts.map(lambda host: host.replace(".", " [dot] "))
)

REGIONS = ("GB", "DE", "FR", "ES", "IT", "NL", "PL", "SE", "BR", "IN", "JP", "AU", "KE")


def _phone(region: str, kind: int, form: int) -> str:
    number = phonenumbers.example_number_for_type(region, kind)
    return phonenumbers.format_number(number, form)


phones = st.builds(
    "{}{:04d}".format,
    st.sampled_from(["+1 212 736 ", "(212) 736-", "212-736-", "1-212-736-", "+1 (212) 736-"]),
    st.integers(0, 9999),
) | st.builds(
    _phone,
    st.sampled_from(REGIONS),
    st.sampled_from([0, 1]),  # fixed, mobile
    st.sampled_from(
        [phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.E164]
    ),
)

ipv4 = st.ip_addresses(v=4).filter(
    lambda one: one.is_global and sum(len(part) == 1 for part in str(one).split(".")) < 2
)
ipv6 = st.ip_addresses(v=6, network="2000::/3").filter(lambda one: one.is_global)
ips = (ipv4.filter(lambda one: str(one)[:2] != "1.") | ipv6).map(str)

CARDS = ((("4",), 16), (("51", "55", "2221", "2720"), 16), (("34", "37"), 15), (("6011",), 16))


@st.composite
def cards(draw: st.DrawFn, right: bool = True) -> str:
    heads, length = draw(st.sampled_from(CARDS))
    head = draw(st.sampled_from(heads))
    digits = head + draw(text(DIGITS, length - 1 - len(head)))
    last = luhn(digits)
    if not right:
        last = str((int(last) + draw(st.integers(1, 9))) % 10)
    sizes = (4, 6, 5) if length == 15 else (4, 4, 4, 4)
    return grouped(digits + last, sizes, draw(st.sampled_from(["", " ", "-"])))


COUNTRIES = {"DE": 18, "NL": None, "GB": None, "FR": None, "BE": 12, "PL": 24, "AT": 16}


@st.composite
def ibans(draw: st.DrawFn, right: bool = True) -> str:
    country = draw(st.sampled_from(list(COUNTRIES)))
    capital = string.ascii_uppercase
    account = {
        "NL": lambda: draw(text(capital, 4)) + draw(text(DIGITS, 10)),
        "GB": lambda: draw(text(capital, 4)) + draw(text(DIGITS, 14)),
        "FR": lambda: draw(text(DIGITS, 10)) + draw(text(capital + DIGITS, 11)) + "42",
    }.get(country, lambda: draw(text(DIGITS, COUNTRIES[country] or 0)))()
    number = iban(country, account)
    if not right:
        wrong = (int(number[2:4]) + draw(st.integers(1, 96))) % 97
        number = f"{country}{wrong + 97 * (wrong < 2):02d}{account}"
    # In fours one of digits alone may hold a card's number by chance, which is then right to find.
    return grouped(number, (4,) * 9, draw(st.sampled_from(["", " "] if right else [""])))


ssns = st.builds(
    "{:03d}-{:02d}-{:04d}".format,
    st.integers(1, 899).filter(lambda area: area not in (666, 78, 219, 457)),
    st.integers(1, 99),
    st.integers(1, 9999),
)

BASE64 = ALNUM + "-_"
KEYS = {
    "AKIA{}": text(string.ascii_uppercase + "234567", 16),
    "ghp_{}": text(ALNUM, 36),
    "github_pat_{}": text(ALNUM + "_", 82),
    "glpat-{}": text(ALNUM + "_", 20),
    "xoxb-{}": st.builds("{}-{}-{}".format, text(DIGITS, 11), text(DIGITS, 12), text(ALNUM, 24)),
    "AIza{}": text(BASE64, 35),
    "sk_live_{}": text(ALNUM, 24),
    "rk_test_{}": text(ALNUM, 30),
    "sk-{}": text(ALNUM, 48),
    "sk-proj-{}": text(BASE64, 80),
    "sk-ant-api03-{}": text(BASE64, 93),
    "hf_{}": text(LETTERS, 34),
    "npm_{}": text(ALNUM, 36),
    "SG.{}": st.builds("{}.{}".format, text(BASE64, 22), text(BASE64, 43)),
    "dop_v1_{}": text("0123456789abcdef", 64),
    "eyJ{}": st.builds("{}.eyJ{}.{}".format, text(BASE64, 17), text(BASE64, 40), text(BASE64, 43)),
}
MIXED = re.compile("[A-Za-z][0-9]|[0-9][A-Za-z]")
keys = (
    st.sampled_from(list(KEYS))
    .flatmap(lambda form: KEYS[form].map(form.format))
    .filter(lambda key: "EXAMPLE" not in key and (key[:3] != "sk-" or MIXED.search(key)))
)
private_keys = st.builds(
    "-----BEGIN {0}PRIVATE KEY-----\n{1}\n-----END {0}PRIVATE KEY-----".format,
    st.sampled_from(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]),
    st.lists(text(ALNUM + "+/", 64), min_size=1, max_size=30).map("\n".join),
)
passwords = text(ALNUM + "!$*+._~-", 4, 20)
logins = st.builds("{}:{}".format, text(LETTERS, 1, 12), passwords)

RIGHT = {
    "email": emails,
    "phone": phones,
    "ip": ips,
    "card": cards(),
    "iban": ibans(),
    "us-ssn": ssns,
    "key": keys,
    "private-key": private_keys,
}
NEARLY = st.one_of(
    cards(right=False),
    ibans(right=False),
    st.sampled_from(
        [
            *("000-12-3456", "666-12-3456", "912-34-5678", "123-00-4567", "123-45-0000"),
            *("v194.12.33.4", "version 194.12.33.4", "194.12.33.4-1ubuntu2", "194.12.33.4.5"),
            *("10.1.2.3", "192.168.17.4", "127.0.0.1", "192.0.2.44", "256.12.13.14", "1.2.3.4"),
            *("2001:db8::17", "fe80::1", "12:34:56", "std::vector", "2024:11:05", "::1"),
            *("2024-11-05", "05.11.2024", "1999-2003", "1.234.567,89", "3.14159265", "12345678901"),
            *("ann@example.org", "me@host", "@decorator.name", "icon@2x.png", "a @ b.com"),
            *("sk-fading-circle-spinner-large", "AKIAIOSFODNN7EXAMPLE", "ghp_short", "eyJub3Q"),
            *("https://host.org/?page=2&sort=name", "http://host.org:8080/", "TODO: fix"),
            *("555-0123", "+1 202-555-0143", "+44 7700 900123", "978-3-16-148410-0"),
        ]
    ),
    st.ip_addresses(v=4).filter(lambda one: not one.is_global).map(str),
    st.ip_addresses(v=6).filter(lambda one: not one.is_global).map(str),
)
