"""Numbers that a state gives to a person. Check digits are `stdnum`'s to know.

Where check digits let so many other numbers through that those would be most of what is found,
a word that names the number must stand shortly before it.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple


class Form(NamedTuple):
    pattern: str  # not before or after letters, digits or "-"
    check: str  # the module of `stdnum` that knows the rest, "" if there is no more to know
    named: str = ""  # words, one of which must stand before


FORMS = {
    "us-ssn": (
        Form(r"\d{3}([- ])\d{2}\1\d{4}", "us.ssn"),
        Form(r"\d{9}", "us.ssn", "ssn|social security"),
    ),
    "gb-nino": (
        Form(
            r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
            r"( ?)\d\d\1\d\d\1\d\d\1[A-D]",
            "",
        ),
    ),
    "gb-nhs": (Form(r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs", "nhs"),),
    "de-steuer-id": (
        Form(r"[1-9]\d ?\d{3} ?\d{3} ?\d{3}", "de.idnr", "steuer|identifikationsnummer|idnr|tin"),
    ),
    "fr-nir": (Form(r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d", "fr.nir"),),
    "es-dni": (
        Form(r"\d{8}-?[A-Z]", "es.dni"),
        Form(r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    ),
    "it-codice-fiscale": (
        Form(r"(?i:[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])", "it.codicefiscale"),
    ),
    "nl-bsn": (Form(r"\d{4}[. ]?\d{2}[. ]?\d{3}", "nl.bsn", "bsn|burgerservice|sofi"),),
    "pl-pesel": (Form(r"\d{11}", "pl.pesel", "pesel"),),
    "se-personnummer": (
        Form(r"(?:\d\d)?\d{6}[-+]\d{4}", "se.personnummer"),
        Form(r"(?:19|20)\d{10}", "se.personnummer", "person|pnr"),
    ),
    "br-cpf": (
        Form(r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
        Form(r"\d{11}", "br.cpf", "cpf"),
    ),
    "in-aadhaar": (Form(r"[2-9]\d{3}([ -]?)\d{4}\1\d{4}", "in_.aadhaar", "aadhaar|uidai?|uid"),),
    "ca-sin": (
        Form(r"\d{3}([ -]?)\d{3}\1\d{3}", "ca.sin", "sin|nas|social insurance|assurance sociale"),
    ),
    "ch-ahv": (Form(r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ch.ssn"),),
}
NEAR = 40  # characters before a number, in which the word must stand


def find(text: str, kind: str) -> Iterator[tuple[int, int]]:
    for form in FORMS[kind]:
        for match in _compiled(form.pattern).finditer(text):
            start, end = match.span()
            if _APART.search(text[max(0, start - 1) : start] + text[end : end + 1]):
                continue
            if form.named and not _compiled(rf"(?i)\b(?:{form.named})").search(
                text, max(0, start - NEAR), start
            ):
                continue
            if not form.check or _checked(form.check).is_valid(match[0]):
                yield start, end


_compiled = cache(re.compile)
_APART = re.compile(r"[\w-]")


@cache
def _checked(module: str) -> Any:
    return import_module(f"stdnum.{module}")
