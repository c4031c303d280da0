import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import SGDClassifier

from bantam.errors import BadInput
from bantam.judge import tagger as module
from bantam.judge.plain import Plain
from bantam.judge.tagger import has_spans, tagger

NAMES = ["Anna", "Bert", "Cleo", "Dora", "Emil", "Fritz", "Greta", "Hugo"]
TOWNS = ["Aachen", "Bonn", "Celle", "Dresden", "Essen", "New Ulm", "Bad Ems"]
FRAMES = ["{} went to {}.", "in {1} lives {0}, a baker", "It rains; nobody came.", "{}: “hi {}”"]


def notes(seed: int, rows: int, form=None) -> tuple[list[str], list[str]]:
    """Sentences about people and towns, known by what stands beside them."""
    rng = np.random.default_rng(seed)
    texts, outputs = [], []
    for _ in range(rows):
        name, town = str(rng.choice(NAMES)), str(rng.choice(TOWNS))
        text = str(rng.choice(FRAMES)).format(name, town)
        spans = [
            {"start": text.index(word), "end": text.index(word) + len(word), "label": label}
            for word, label in ((name, "person"), (town, "place"))
            if word in text
        ]
        spans.sort(key=lambda span: span["start"])
        texts.append(text)
        outputs.append(json.dumps({"entities": spans} if form is None else form(text, spans)))
    return texts, outputs


def exact(expected, answers) -> float:
    return float(
        np.mean([json.loads(a) == json.loads(b) for a, b in zip(expected, answers, strict=True)])
    )


@pytest.fixture(scope="module")
def fitted() -> Plain:
    return tagger(*notes(0, 120), *notes(1, 40), exact)


def test_spans_are_learnt(fitted: Plain) -> None:
    texts, outputs = notes(2, 60)
    assert exact(outputs, fitted.answer(texts)) > 0.95
    assert fitted.validation_score > 0.9
    assert fitted.choice["rows"] == 160
    json.dumps(fitted.choice)


def test_names_that_were_never_seen_are_known_by_their_neighbours(fitted: Plain) -> None:
    (answer,) = fitted.answer(["Zacharias went to Bonn."])
    assert json.loads(answer)["entities"][0] == {"start": 0, "end": 9, "label": "person"}


def test_outputs_keep_the_form_of_the_training_outputs() -> None:
    def form(text, spans):
        items = [
            {
                "type": span["label"],
                "text": text[span["start"] : span["end"]],
                "sure": True,
                "start": span["start"],
                "end": span["end"],
            }
            for span in spans
        ]
        return {"v": 1, "found": {"spans": items, "n": None}} if items else {"v": 0}

    rival = tagger(*notes(0, 120, form), *notes(1, 40, form), exact)
    texts, outputs = notes(2, 40, form)
    answers = rival.answer(texts)
    assert exact(outputs, answers) > 0.95
    right = [a for a, b in zip(answers, outputs, strict=True) if json.loads(a) == json.loads(b)]
    assert set(right) <= set(outputs)  # the order of keys too


def test_a_bare_list_is_a_form_too() -> None:
    rival = tagger(*notes(0, 80, lambda _, s: s), *notes(1, 40, lambda _, s: s), exact)
    assert json.loads(rival.answer(["It rains; nobody came."])[0]) == []
    assert rival.validation_score > 0.9


def test_the_model_is_scikit_learns_with_the_tag_before() -> None:
    texts, outputs = notes(0, 60)
    form = module._form([json.loads(output) for output in outputs])
    tokens = module._tokens(texts, [module._spans(output, form) for output in outputs])
    model = module._Model(tokens, 1e-5, True)
    flat = [tag for tags in tokens.tags for tag in tags]
    before = [tag for tags in tokens.tags for tag in ["O", *tags[:-1]]]
    hasher = FeatureHasher(2**18, input_type="string", alternate_sign=False, dtype=np.float32)
    words = [[text[a:b] for a, b in p] for text, p in zip(texts, tokens.places, strict=True)]
    x = hasher.transform([found for each in words for found in module._features(each)])
    hot = np.array([[tag == one for one in sorted(set(flat))] for tag in before], dtype=np.float32)
    plain = SGDClassifier(
        loss="log_loss", alpha=1e-5, average=True, max_iter=12, tol=None, random_state=0
    ).fit(hstack([x, csr_matrix(hot)], format="csr"), flat)
    ours = x @ model.weights + model.bias + hot @ model.after
    theirs = plain.decision_function(hstack([x, csr_matrix(hot)], format="csr"))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_tags_follow_each_other_lawfully() -> None:
    tags = ["B-x", "B-y", "I-x", "I-y", "O"]
    legal = module._legal(tags)
    allowed = {(a, b) for a in tags for b in tags if legal[tags.index(a), tags.index(b)]}
    forbidden = {("O", "I-x"), ("O", "I-y"), ("B-x", "I-y"), ("B-y", "I-x")}
    forbidden |= {("I-x", "I-y"), ("I-y", "I-x")}
    assert allowed == {(a, b) for a in tags for b in tags} - forbidden


def test_of_overlapping_spans_the_longer_is_learned() -> None:
    spans = [{"start": 0, "end": 3, "label": "a"}, {"start": 2, "end": 9, "label": "b"}]
    form = module._form([spans])
    assert module._spans(json.dumps(spans), form) == [(2, 9, "b")]


@pytest.mark.parametrize(
    ("outputs", "held"),
    [
        (['{"a": [{"start": 0, "end": 1, "label": "x"}]}', '{"a": []}'], True),
        (['[{"start": 0, "end": 1, "type": "x", "text": "y"}]'], True),
        (['{"a": []}', "{}"], False),
        (['{"a": [{"start": 0, "end": 1}]}'], False),
        (['{"a": [{"start": 0.5, "end": 1, "label": "x"}]}'], False),
        (['{"a": [{"start": true, "end": false, "label": "x"}]}'], False),
        (['{"a": [{"start": 0, "end": 1, "label": "x"}]}', '{"a": [1]}'], False),
        (["no JSON", "3", "null", '"x"'], False),
    ],
)
def test_has_spans(outputs, held) -> None:
    assert has_spans(outputs) is held


def test_what_cannot_be_fitted_says_so() -> None:
    with pytest.raises(BadInput, match="no list of spans"):
        tagger(["a"], ["{}"], ["a"], ["{}"], exact)
    with pytest.raises(BadInput, match="no validation rows"):
        tagger(["a"], ["{}"], [], [], exact)


def test_rows_with_nothing_to_learn_are_answered() -> None:
    output = '[{"start": 5, "end": 5, "label": "x"}]'
    assert tagger([""], [output], [""], [output], exact).answer(["", "a b"]) == ["[]", "[]"]
    one = '[{"start": 0, "end": 1, "label": "x"}]'
    answers = tagger(["a"], [one], ["b"], [one], exact).answer(["c", ""])
    assert answers == [one, "[]"]


def test_many_tokens_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOKENS", 200)
    assert tagger(*notes(0, 200), *notes(1, 10), exact).choice["rows"] < 80


def test_halves_of_letters_are_borne() -> None:
    one = '[{"start": 0, "end": 1, "label": "x"}]'
    rival = tagger(["\ud800 a", "b"], [one, "[]"], ["\ud800", "b"], [one, "[]"], exact)
    assert rival.answer(["\ud800", ""])[1] == "[]"


def spans_are_right(text: str, answer: str) -> None:
    for span in json.loads(answer)["entities"]:
        assert 0 <= span["start"] < span["end"] <= len(text)
        assert (
            span.get("text", text[span["start"] : span["end"]]) == text[span["start"] : span["end"]]
        )


@given(st.lists(st.text() | st.sampled_from(notes(3, 20)[0]), max_size=4))
@settings(deadline=None, max_examples=100)
def test_any_text_is_answered(fitted: Plain, texts: list[str]) -> None:
    answers = fitted.answer(texts)
    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers, strict=True):
        spans_are_right(text, answer)


span = st.fixed_dictionaries(
    {
        "start": st.integers(-3, 20),
        "end": st.integers(-3, 20),
        "label": st.text(max_size=2),
        "text": st.text(max_size=3),
    }
)


@given(
    st.lists(st.tuples(st.text(max_size=15), st.lists(span, max_size=3)), min_size=1, max_size=4)
)
@settings(deadline=None, max_examples=40)
def test_any_spans_are_learned_from(rows) -> None:
    texts = [text for text, _ in rows]
    outputs = [json.dumps({"entities": spans}) for _, spans in rows]
    if not has_spans(outputs):
        return
    rival = tagger(texts, outputs, texts, outputs, exact)
    for text, answer in zip(texts, rival.answer(texts), strict=True):
        spans_are_right(text, answer)
