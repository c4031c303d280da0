"""Minimal pairs of English grammar, by rules from a small lexicon of our own.

    python benchmarks/grammar_pairs.py > pairs.jsonl

The words are such as manuals use too, since small models are trained on what there is. Each pair
differs in one point. Which words stand in a pair goes by the seed; the right and the wrong form of
a verb or noun both occur elsewhere as the right one, so that no form is wrong by itself.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

EACH = 40  # pairs of a phenomenon
SEED = 0


class Noun(NamedTuple):
    one: str
    many: str


class Verb(NamedTuple):
    """read, reads, read, read."""

    bare: str
    third: str
    past: str
    participle: str


THINGS = [
    *(Noun(word, f"{word}s") for word in ("file", "program", "function", "module", "server")),
    *(Noun(word, f"{word}s") for word in ("list", "name", "value", "line", "method", "table")),
    *(Noun(word, f"{word}s") for word in ("message", "command", "window", "number", "object")),
    Noun("directory", "directories"),
    Noun("process", "processes"),
    Noun("class", "classes"),
]
PEOPLE = [
    *(Noun(word, f"{word}s") for word in ("user", "author", "reader", "writer", "developer")),
    *(Noun(word, f"{word}s") for word in ("teacher", "student", "friend", "owner")),
]
WOMEN = [Noun("woman", "women"), Noun("girl", "girls"), Noun("mother", "mothers")]
MEN = [Noun("man", "men"), Noun("boy", "boys"), Noun("father", "fathers")]

ON_THINGS = [  # what people and programs do to things
    Verb("write", "writes", "wrote", "written"),
    Verb("take", "takes", "took", "taken"),
    Verb("give", "gives", "gave", "given"),
    Verb("see", "sees", "saw", "seen"),
    Verb("choose", "chooses", "chose", "chosen"),
    Verb("know", "knows", "knew", "known"),
    Verb("show", "shows", "showed", "shown"),
]
REGULAR = [
    *(Verb(v, f"{v}s", f"{v}ed", f"{v}ed") for v in ("open", "return", "call", "need", "print")),
    *(Verb(v, f"{v}s", f"{v}d", f"{v}d") for v in ("use", "change", "remove", "close", "create")),
]
ALONE = [  # nothing can be done to anything by these
    Verb("arrive", "arrives", "arrived", "arrived"),
    Verb("happen", "happens", "happened", "happened"),
    Verb("appear", "appears", "appeared", "appeared"),
    Verb("disappear", "disappears", "disappeared", "disappeared"),
    Verb("exist", "exists", "existed", "existed"),
    Verb("sleep", "sleeps", "slept", "slept"),
    Verb("fall", "falls", "fell", "fallen"),
    Verb("go", "goes", "went", "gone"),
]
TWO_OBJECTS = ("call", "give", "show", "write")
ADJECTIVES = ["new", "old", "large", "small", "short", "long", "simple", "empty", "first", "last"]
PLACES = ["in the list", "on the server", "at the end", "in the first line", "near the window"]
VOWEL = ["error", "object", "empty list", "old file", "address", "option", "index", "image"]
CONSONANT = ["file", "number", "long list", "new name", "value", "message", "line", "table"]

Draw = Callable[[random.Random], tuple[str, str]]  # the right sentence and the wrong one


def number_of_verb(draw: random.Random) -> tuple[str, str]:
    noun, verb, thing = draw.choice(PEOPLE + THINGS), draw.choice(REGULAR), draw.choice(THINGS)
    return either(
        draw,
        lambda many: f"The {noun[many]} {verb[not many]} the {thing.one}.",
        lambda many: f"The {noun[many]} {verb[many]} the {thing.one}.",
    )


def number_of_verb_behind_another_noun(draw: random.Random) -> tuple[str, str]:
    """The noun between has the other number: the nearest noun misleads."""
    noun, other = draw.sample(THINGS, 2)
    adjective, of = draw.choice(ADJECTIVES), draw.choice(["of", "in", "for", "behind"])
    be = draw.choice([("is", "are"), ("was", "were"), ("has been", "have been")])
    return either(
        draw,
        lambda many: f"The {noun[many]} {of} the {other[not many]} {be[many]} {adjective}.",
        lambda many: f"The {noun[many]} {of} the {other[not many]} {be[not many]} {adjective}.",
    )


def number_of_verb_behind_a_clause(draw: random.Random) -> tuple[str, str]:
    noun, other, verb = draw.choice(THINGS), draw.choice(PEOPLE), draw.choice(REGULAR)
    adjective, be = draw.choice(ADJECTIVES), draw.choice([("is", "are"), ("was", "were")])
    return either(
        draw,
        lambda many: (
            f"The {noun[many]} that the {other[not many]} {verb[many]} {be[many]} {adjective}."
        ),
        lambda many: (
            f"The {noun[many]} that the {other[not many]} {verb[many]} {be[not many]} {adjective}."
        ),
    )


def there_is(draw: random.Random) -> tuple[str, str]:
    noun, place = draw.choice(THINGS + PEOPLE), draw.choice(PLACES)
    be = draw.choice([("is", "are"), ("was", "were")])
    some = draw.choice([("one", "two"), ("only one", "some"), ("a new", "many new")])
    return either(
        draw,
        lambda many: f"There {be[many]} {some[many]} {noun[many]} {place}.",
        lambda many: f"There {be[not many]} {some[many]} {noun[many]} {place}.",
    )


def determiner_and_noun(draw: random.Random) -> tuple[str, str]:
    noun, verb, person = draw.choice(THINGS), draw.choice(REGULAR), draw.choice(PEOPLE)
    these = draw.choice([("this", "these"), ("that", "those"), ("each", "many"), ("one", "two")])
    return either(
        draw,
        lambda many: f"The {person.one} {verb.past} {these[many]} {noun[many]}.",
        lambda many: f"The {person.one} {verb.past} {these[many]} {noun[not many]}.",
    )


def a_or_an(draw: random.Random) -> tuple[str, str]:
    person, verb = draw.choice(PEOPLE), draw.choice(ON_THINGS + REGULAR)
    words, right, wrong = draw.choice([(VOWEL, "an", "a"), (CONSONANT, "a", "an")])
    noun = draw.choice(words)
    begin = f"The {person.one} {verb.past}"
    return f"{begin} {right} {noun}.", f"{begin} {wrong} {noun}."


def reflexive(draw: random.Random) -> tuple[str, str]:
    """Himself, herself, itself or themselves, as who acts is."""
    kinds = {"herself": WOMEN, "himself": MEN, "itself": THINGS}
    right = draw.choice(list(kinds))
    noun = draw.choice(kinds[right])
    verb = draw.choice(ON_THINGS + REGULAR).past
    wrong = draw.choice([word for word in (*kinds, "themselves") if word != right])
    if draw.random() < 0.3:
        return f"The {noun.many} {verb} themselves.", f"The {noun.many} {verb} {right}."
    return f"The {noun.one} {verb} {right}.", f"The {noun.one} {verb} {wrong}."


def case_of_pronoun(draw: random.Random) -> tuple[str, str]:
    acts, done_to = draw.choice([("he", "him"), ("she", "her"), ("they", "them"), ("we", "us")])
    verb, noun = draw.choice(ON_THINGS + REGULAR).past, draw.choice(PEOPLE)
    if draw.random() < 0.5:
        return f"The {noun.many} {verb} {done_to}.", f"The {noun.many} {verb} {acts}."
    return (
        f"{acts.capitalize()} {verb} the {noun.many}.",
        f"{done_to.capitalize()} {verb} the {noun.many}.",
    )


def objects(draw: random.Random) -> tuple[str, str]:
    """A verb that takes an object against one that takes none."""
    person, thing = draw.choice(PEOPLE), draw.choice(THINGS)
    takes, none = draw.choice(ON_THINGS + REGULAR), draw.choice(ALONE)
    will = draw.choice(["will", "can", "did not"])
    return (
        f"The {person.one} {will} {takes.bare} the {thing.one}.",
        f"The {person.one} {will} {none.bare} the {thing.one}.",
    )


def passive(draw: random.Random) -> tuple[str, str]:
    thing, person = draw.choice(THINGS), draw.choice(PEOPLE)
    takes, none = draw.choice(ON_THINGS + REGULAR), draw.choice(ALONE)
    be = draw.choice(["was", "is", "will be"])
    return (
        f"The {thing.one} {be} {takes.participle} by the {person.one}.",
        f"The {thing.one} {be} {none.participle} by the {person.one}.",
    )


def form_of_verb(draw: random.Random) -> tuple[str, str]:
    """What follows "has", "will", "to" and "did not"."""
    person, thing, verb = draw.choice(PEOPLE), draw.choice(THINGS), draw.choice(ON_THINGS)
    before, right, wrong = draw.choice(
        [
            ("has", verb.participle, verb.bare),
            ("will", verb.bare, verb.third),
            ("can", verb.bare, verb.participle),
            ("did not", verb.bare, verb.past),
            ("wants to", verb.bare, verb.past),
        ]
    )
    begin, end = f"The {person.one} {before}", f"the {thing.one}."
    return f"{begin} {right} {end}", f"{begin} {wrong} {end}"


def ever(draw: random.Random) -> tuple[str, str]:
    """It stands only where something denies."""
    noun, verb, thing = draw.choice(PEOPLE), draw.choice(ON_THINGS), draw.choice(THINGS)
    other = draw.choice(["also", "now", "then", "often"])
    begin, end = f"The {noun.one} has", f"ever {verb.participle} the {thing.one}."
    return f"{begin} not {end}", f"{begin} {other} {end}"


def gap(draw: random.Random) -> tuple[str, str]:
    """Behind "what" the object is missing; not with verbs that may take two."""
    person, other = draw.sample(PEOPLE, 2)
    verbs = [verb for verb in ON_THINGS + REGULAR if verb.bare not in TWO_OBJECTS]
    verb, thing = draw.choice(verbs), draw.choice(THINGS)
    knows = draw.choice(["knows", "said", "shows"])
    end = f"the {other.one} {verb.past} the {thing.one}."
    return f"The {person.one} {knows} that {end}", f"The {person.one} {knows} what {end}"


def order_of_words(draw: random.Random) -> tuple[str, str]:
    person, thing = draw.choice(PEOPLE), draw.choice(THINGS)
    verb, adjective = draw.choice(ON_THINGS + REGULAR), draw.choice(ADJECTIVES[:-2])
    end = f"was {verb.participle} by the {person.one}."
    return f"The {adjective} {thing.one} {end}", f"The {thing.one} {adjective} {end}"


def either(
    draw: random.Random, right: Callable[[bool], str], wrong: Callable[[bool], str]
) -> tuple[str, str]:
    """Of one or of many, by chance."""
    many = draw.random() < 0.5
    return right(many), wrong(many)


PHENOMENA: dict[str, Draw] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        number_of_verb,
        number_of_verb_behind_another_noun,
        number_of_verb_behind_a_clause,
        there_is,
        determiner_and_noun,
        a_or_an,
        reflexive,
        case_of_pronoun,
        objects,
        passive,
        form_of_verb,
        ever,
        gap,
        order_of_words,
    )
}


def pairs(each: int = EACH, seed: int = SEED) -> Iterator[dict[str, str]]:
    """`each` different pairs of every phenomenon."""
    for name, rule in PHENOMENA.items():
        draw, seen = random.Random(f"{seed} {name}"), set()
        while len(seen) < each:
            good, bad = rule(draw)
            if good not in seen:
                seen.add(good)
                yield {"good": good, "bad": bad, "phenomenon": name}


def main() -> None:
    for pair in pairs():
        sys.stdout.write(json.dumps(pair) + "\n")


if __name__ == "__main__":
    main()
