"""The rules, against plain Python on the same texts."""

from collections.abc import Callable

import plain_rules
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bantam.documents import quality, words
from bantam.documents.normalise import normalise
from bantam.recipe_documents import C4, FineWeb, Gopher, Repetition, Rules

# A small vocabulary, so that words, lines and paragraphs come again.
PIECES = ["the", "of", "and", "café", "don't", "x1", "2024", "___", "#", "...", "…", "..", ".", "!"]
PIECES += ["?", '."', "”", "{", "क्या।", "e.g.", "(see)", "Lorem ipsum", "- item", "• item", " "]
PIECES += [
    "\n",
    "\n",
    "\n\n",
    "\n\n",
    "a long line that stands here more than once, or does it not",
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=60).map(" ".join)
OFF = Rules(
    gopher=Gopher(**{key: None for key in Gopher.model_fields if key != "stop_words"}),
    repetition=Repetition(**dict.fromkeys(Repetition.model_fields)),
    c4=C4(lorem_ipsum=False, curly_brackets=False, min_sentences=None),
    fineweb=FineWeb(
        min_ended_lines=None, max_short_lines=None, max_repeated_characters=None, max_newlines=None
    ),
)


def measured(
    *texts: str, rules: Rules = OFF, languages: list[str | None] | None = None
) -> pl.DataFrame:
    column = pl.Series(texts, dtype=pl.String)
    spoken = None if languages is None else pl.Series(languages, dtype=pl.String)
    return quality.measure(words.split(column), rules, spoken)


def judged(text: str, rules: Rules) -> tuple[str | None, str | None]:
    frame = pl.DataFrame({"text": [text]}).with_columns(
        reason=pl.lit(None, pl.String), value=pl.lit(None, pl.String)
    )
    told = quality.judge(frame, measured(text, rules=rules), rules)
    return told["reason"][0], told["value"][0]


@given(st.lists(TEXTS | st.text(st.characters(codec="utf-8"), max_size=60), max_size=4))
@example(["the the the the the the", "a b c d e a b c d e a b c d e a b c d e", "a\n\na\n\na", "a"])
@example(["x y z w v " * 7, ". . . .", "one. two", "“Stop.” He went", "了。了。", "a\nb\na\nb"])
def test_measures_are_those_of_plain_python(texts: list[str]) -> None:
    plain = normalise(pl.Series(texts, dtype=pl.String))[0]
    found = measured(*plain)
    for text, row in zip(plain, found.iter_rows(named=True), strict=True):
        if text == "":
            assert row["characters"] == 0
            continue
        spaceless = row.pop("spaceless")
        expected = plain_rules.measures(text)
        assert row.keys() == expected.keys()
        for name, value in row.items():
            if spaceless and name in quality.BY_WORD:
                assert value is None
            else:
                assert value == pytest.approx(expected[name], abs=1e-12), (name, text)


GOOD = """Grapes ripen late in a year, and those who grow them have to be patient with the weather.
When rain comes in September, half of what hung there may rot within days.
So the baskets are ready early, cleaned and stacked by the door of every barn.
Children who should be at school carry water to the pickers, which nobody minds that week.
At night the carts roll down to the press; it creaks until morning.
What flows from it is cloudy and sweet, nothing like the wine that people will drink."""


def test_a_good_text_is_kept() -> None:
    assert judged(GOOD, Rules()) == (None, None)


def long(make: Callable[[int], str]) -> str:
    return " ".join(map(make, range(60)))


@pytest.mark.parametrize(
    ("reason", "text", "value"),
    [
        ("gopher.min_words", "A few words only.", "4"),
        ("gopher.min_word_length", long(lambda n: f"a{n % 10} the of"), None),
        ("gopher.max_word_length", long(lambda n: f"incomprehensibility{n} of"), None),
        ("gopher.max_hashes", long(lambda n: f"the word{n} # of"), None),
        ("gopher.max_ellipses", long(lambda n: f"the word{n}… of"), None),
        (
            "gopher.max_bullet_lines",
            "\n".join(f"- the item{n} of the list" for n in range(30)),
            "1",
        ),
        (
            "gopher.max_ellipsis_lines",
            "\n".join(f"the item{n} of lists..." for n in range(30)),
            "1",
        ),
        ("gopher.min_alphabetic", long(lambda n: f"the {n} {n}{n} of word{n}"), None),
        ("gopher.min_stop_words", long(lambda n: f"word{n} goes"), "0"),
        ("repetition.max_lines", "\n".join(["the same line"] * 3 + ["of another kind"]), "0.5"),
        ("repetition.max_paragraphs", "\n\n".join(["the same"] * 3 + ["of another"]), "0.5"),
        ("repetition.max_top_2_gram", long(lambda n: f"new word {n}"), None),
        ("repetition.max_5_grams", long(lambda n: f"here we go again my friend{n % 30}"), None),
        ("c4.lorem_ipsum", f"{GOOD}\nLorem Ipsum dolor sit amet.", "1"),
        ("c4.curly_brackets", f"{GOOD}\nint main() {{ return 0; }}", "1"),
        ("c4.min_sentences", GOOD.replace(".\n", ", and "), "1"),
        ("fineweb.min_ended_lines", GOOD.replace(".\n", ",\n")[:-1], "0"),
        ("fineweb.max_short_lines", "\n".join(f"Word{n} of the." for n in range(60)), "1"),
        ("fineweb.max_repeated_characters", f"{GOOD}\n{GOOD.splitlines()[0]}", None),
        ("fineweb.max_newlines", GOOD.replace(" ", "\n"), None),
    ],
)
def test_each_rule_drops_what_it_is_for_and_can_be_switched_off(
    reason: str, text: str, value: str | None
) -> None:
    section, key = reason.split(".")
    on = {key: getattr(getattr(Rules(), section), key)}
    alone = OFF.model_copy(update={section: getattr(OFF, section).model_copy(update=on)})
    told = judged(text, alone)
    assert told[0] == reason
    assert value is None or told[1] == value
    assert judged(text, OFF) == (None, None)


def test_thresholds_are_the_papers_and_a_value_on_one_is_kept() -> None:
    fifty = "the of " * 25
    rules = OFF.model_copy(update={"gopher": OFF.gopher.model_copy(update={"min_words": 50})})
    assert judged(fifty.strip(), rules) == (None, None)
    assert judged(fifty.strip()[:-3], rules) == ("gopher.min_words", "49")


def test_the_first_rule_tells_and_an_earlier_reason_stays() -> None:
    frame = pl.DataFrame({"reason": [None, "language", None], "value": [None, "de 0.9", None]})
    told = quality.judge(frame, measured("a", "a", "", rules=Rules()), Rules())
    assert told["reason"].to_list() == ["gopher.min_words", "language", "no text"]
    assert told["value"].to_list() == ["1", "de 0.9", None]
    assert judged("Nr. 5", Rules()) == ("gopher.min_words", "2")  # its one pair of words is all


def test_stop_words_are_those_of_the_language() -> None:
    gopher = Gopher(stop_words={"en": ["the", "of"], "de": ["der", "und", "ist"]})
    rules = Rules(gopher=gopher)
    texts = ["the of The", "der und der the", "the of", "the of", "le la"]
    found = measured(*texts, rules=rules, languages=["en", "de", "fr", None, "de"])
    assert found["stop_words"].to_list() == [2, 2, None, None, 0]
    assert measured("the of und", rules=rules)["stop_words"].to_list() == [2]
    none = Rules(gopher=Gopher(stop_words={}))
    assert measured("the", rules=none)["stop_words"].to_list() == [None]


def test_texts_without_spaces_are_not_judged_by_their_words() -> None:
    text = (
        "今日は良い天気ですね。散歩に行きましょう。" * 2
        + "公園で友達に会いました。映画も見たいです。"
    )
    found = measured(text, rules=Rules())
    assert found["spaceless"].to_list() == [True]
    assert all(found[name][0] is None for name in quality.BY_WORD)
    assert judged(text, Rules(fineweb=FineWeb(max_short_lines=None))) == (None, None)
    assert judged("\n".join([text] * 5), Rules())[0] == "repetition.max_lines"


def test_a_text_that_was_written_to_be_slow_is_not() -> None:
    """A megabyte of one word, and of words that are all new: within a second or two."""
    same, new = "a " * 500_000, " ".join(map(str, range(150_000)))
    assert measured(same, new)["words"].to_list() == [500_000, 150_000]


def test_a_misspelled_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="min_word"):
        Rules.model_validate({"gopher": {"min_word": 5}})
