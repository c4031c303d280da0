import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from bantam.errors import BadInput
from bantam.judge import linear
from bantam.judge.linear import majority, probe, tfidf
from bantam.kinds import multi_hot, several

LABELS = ["praise", "complaint", "question"]
TELLING = {
    "praise": ["lovely", "great", "sturdy"],
    "complaint": ["broken", "awful", "late"],
    "question": ["where", "how", "which"],
}
FILLER = ["the", "box", "came", "with", "a", "cable", "and", "this", "phone", "on", "monday"]


def messages(seed: int, rows: int) -> tuple[list[str], list[str]]:
    """Short messages with one telling word in four of five, so that nobody can get them all."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(rows):
        label = str(rng.choice(LABELS))
        words = list(rng.choice(FILLER, size=5))
        if rng.random() < 0.8:
            words.insert(int(rng.integers(5)), str(rng.choice(TELLING[label])))
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


@pytest.fixture(scope="module")
def fitted() -> linear.Fitted:
    return tfidf(*messages(0, 200), *messages(1, 100), LABELS, seed=0)


def accuracy(rival: linear.Fitted, inputs, expected) -> float:
    answers = rival.predict(inputs).argmax(axis=1)
    return float(np.mean([LABELS[a] == e for a, e in zip(answers, expected, strict=True)]))


def test_majority_answers_with_the_shares() -> None:
    rival = majority(["b", "b", "a"], ["b", "c"], ["a", "b", "c", "never"])
    assert rival.choice == {"label": "b"}
    assert rival.validation_score == 0.5
    assert rival.predict(["x", "y"]).tolist() == [[0.2, 0.6, 0.2, 0.0]] * 2


def several_messages(seed: int, rows: int) -> tuple[list[str], list[str]]:
    """Messages with a telling word for each of none to three labels."""
    rng = np.random.default_rng(seed)
    texts, sets = [], []
    for _ in range(rows):
        held = [label for label in LABELS if rng.random() < 0.4]
        words = list(rng.choice(FILLER, size=4)) + [rng.choice(TELLING[label]) for label in held]
        rng.shuffle(words)
        texts.append(" ".join(words))
        sets.append(several.joined(held))
    return texts, sets


def test_majority_of_sets() -> None:
    rival = majority(["a|b", "a", "a|b"], ["", "b"], ["a", "b", "c"], multi=True)
    assert rival.choice == {"label": "a|b"}
    assert rival.predict(["x"]).tolist() == [pytest.approx([0.6, 0.6, 0.0])]
    assert (rival.predict(["x"]) >= rival.thresholds).tolist() == [[True, True, False]]
    empty = majority(["", "", "a"], ["b"], ["a", "b"], multi=True)
    assert not (empty.predict(["x"]) >= empty.thresholds).any()


def test_tfidf_gives_sets() -> None:
    train, val = several_messages(0, 200), several_messages(1, 80)
    rival = tfidf(*train, *val, LABELS, seed=0, multi=True)
    texts, sets = several_messages(2, 200)
    wanted, shares = multi_hot.of(sets, LABELS), rival.predict(texts)
    given = shares >= rival.thresholds
    assert (wanted == given).all(axis=1).mean() > 0.8
    assert rival.validation_score > 0.8
    # Each label by itself: what the others are takes nothing from it.
    assert shares[wanted.all(axis=1)].min() > 0.3
    assert rival.bytes > 4 * 3 * len(FILLER)


def test_a_probe_is_one_regression_a_label() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(260, 5))
    truth = states[:, :3] + 0.5 * rng.normal(size=(260, 3)) > 0.3
    sets = [several.joined(np.array(LABELS)[row]) for row in truth]
    rival = probe(states[:160], sets[:160], states[160:], sets[160:], LABELS, multi=True)
    for n in range(3):
        alone = make_pipeline(
            StandardScaler(), LogisticRegression(C=rival.choice["C"], max_iter=2000)
        ).fit(states, truth[:, n])
        plain = alone.predict_proba(states)[:, 1]
        np.testing.assert_allclose(rival.predict(states)[:, n], plain, atol=1e-4)
    assert rival.bytes == 4 * (3 * 6 + 2 * 5)


def test_tfidf_learns_what_can_be_learnt(fitted: linear.Fitted) -> None:
    texts, expected = messages(2, 500)
    assert accuracy(fitted, texts, expected) > 0.8  # 0.8 with the word, and a third of the rest
    assert fitted.choice["rows"] == 300
    probabilities = fitted.predict(texts)
    assert probabilities.shape == (500, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(500))
    np.testing.assert_allclose(fitted.predict(texts[:1])[0], probabilities[0])


def test_tfidf_columns_follow_the_labels_given(fitted: linear.Fitted) -> None:
    other = tfidf(*messages(0, 200), *messages(1, 100), LABELS[::-1], seed=0)
    texts, _ = messages(2, 50)
    np.testing.assert_allclose(other.predict(texts)[:, ::-1], fitted.predict(texts), atol=1e-3)


def test_tfidf_chooses_the_least_log_loss_on_validation(fitted: linear.Fitted) -> None:
    train, train_labels = messages(0, 200)
    val, val_labels = messages(1, 100)

    def loss(features: str, sublinear: bool, strength: float) -> float:
        word = TfidfVectorizer(
            ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=sublinear
        )
        char = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=sublinear)
        parts = [part for name, part in (("word", word), ("char", char)) if name in features]
        model = make_pipeline(make_union(*parts), LogisticRegression(C=strength, max_iter=2000))
        model.fit(train, train_labels)
        return log_loss(val_labels, model.predict_proba(val), labels=model.classes_)

    chosen = loss(fitted.choice["features"], fitted.choice["sublinear"], fitted.choice["C"])
    for features in ("word", "char", "word+char"):
        assert chosen <= loss(features, False, 3.0) + 1e-3
    for factor in (1 / 30, 1 / 3, 3, 30):
        strength = factor * fitted.choice["C"]
        assert chosen <= loss(fitted.choice["features"], fitted.choice["sublinear"], strength)


def test_tfidf_finds_what_only_letters_or_only_word_order_tell() -> None:
    rng = np.random.default_rng(3)

    def made_up_words(rows: int) -> tuple[list[str], list[str]]:
        labels = [LABELS[int(i)] for i in rng.integers(2, size=rows)]
        endings = ["ing" if label == "praise" else "ed" for label in labels]
        return ["".join(rng.choice(list("bdfglmn"), size=5)) + end for end in endings], labels

    def ordered_words(rows: int) -> tuple[list[str], list[str]]:
        labels = [LABELS[int(i)] for i in rng.integers(2, size=rows)]
        return ["man bites dog" if x == "praise" else "dog bites man" for x in labels], labels

    for example, block in ((made_up_words, "char"), (ordered_words, "word")):
        rival = tfidf(*example(80), *example(40), LABELS, seed=0)
        assert block in rival.choice["features"]
        assert accuracy(rival, *example(40)) == 1.0


def test_shares_are_as_good_as_so_many_rows_of_each_label() -> None:
    """Ten raters a row against each row written ten times, each time with one rater's label."""
    chance = np.random.default_rng(3)
    x = chance.normal(size=(60, 4))
    votes = np.stack([chance.multinomial(10, chance.dirichlet([1, 1, 1])) for _ in x])
    softly = linear._regression(x, votes.argmax(axis=1), votes / 10, 0.5)
    rows, columns = np.nonzero(votes)
    repeats = votes[rows, columns]
    # The loss is a sum over rows: ten times as many of them need a tenth of C.
    plainly = LogisticRegression(C=0.05, max_iter=2000)
    plainly.fit(np.repeat(x[rows], repeats, axis=0), np.repeat(columns, repeats))
    assert np.abs(softly.predict_proba(x) - plainly.predict_proba(x)).max() < 1e-3


def test_shares_that_tell_nothing_are_not_kept() -> None:
    nothing = np.full((200, 3), 1 / 3)
    val = messages(1, 100)
    found = tfidf(*messages(0, 200), *val, LABELS, seed=0, shares=nothing)
    assert found.choice["shares"] is False
    assert accuracy(found, *val) > 0.6


def test_the_last_fit_sees_the_validation_rows_too() -> None:
    train, labels = messages(0, 60)
    val, val_labels = [*messages(1, 30)[0], *["bonjour madame"] * 10], messages(1, 30)[1]
    rival = tfidf(train, labels, val, [*val_labels, *["french"] * 10], [*LABELS, "french"], seed=0)
    assert rival.predict(["bonjour"]).argmax() == 3


def test_a_label_without_rows_gets_no_probability() -> None:
    rival = tfidf(*messages(0, 60), *messages(1, 30), ["unheard of", *LABELS], seed=0)
    assert rival.predict(["great"])[0, 0] == 0


def test_tfidf_bears_odd_texts(fitted: linear.Fitted) -> None:
    odd = ["", " ", "\0", "🙂🙂", "这个手机很好", "<|im_end|>", "x" * 10_000, "!?", "\u202e"]
    assert np.isfinite(fitted.predict(odd)).all()
    rival = tfidf([*odd, "fine"], ["a"] * 5 + ["b"] * 5, odd[:2], ["a", "b"], ["a", "b"], seed=0)
    assert np.isfinite(rival.predict(odd)).all()


def test_tfidf_samples_when_there_are_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST_ROWS", 50)
    first, again, other = (
        tfidf(*messages(0, 200), *messages(1, 30), LABELS, seed=seed) for seed in (0, 0, 1)
    )
    texts, _ = messages(2, 20)
    assert first.choice["rows"] == 80
    assert (first.predict(texts) == again.predict(texts)).all()
    assert (first.predict(texts) != other.predict(texts)).any()


def test_what_cannot_be_fitted_says_so() -> None:
    texts, labels = messages(0, 10)
    with pytest.raises(BadInput, match="one label only"):
        tfidf(["a", "b"], ["praise"] * 2, texts, labels, LABELS, seed=0)
    with pytest.raises(BadInput, match="blank"):
        tfidf(["", " "], ["praise", "question"], texts, labels, LABELS, seed=0)
    with pytest.raises(BadInput, match="no validation rows"):
        probe(np.zeros((10, 2)), labels, np.zeros((0, 2)), [], LABELS)


def states(seed: int, rows: int, width: int) -> tuple[np.ndarray, list[str]]:
    """Three clouds that differ in their first two columns; the others are noise."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=rows)
    x = rng.normal(size=(rows, width))
    x[:, :2] += 2 * np.array([[1, 0], [-1, 1], [-1, -1]])[truth]
    return x, [LABELS[i] for i in truth]


def test_probe_learns_and_holds_the_noise_down() -> None:
    train, val, (test, expected) = states(0, 200, 150), states(1, 100, 150), states(2, 1000, 150)
    rival = probe(*train, *val, LABELS)
    seen = np.concatenate([train[0], val[0]]), [*train[1], *val[1]]
    loose = make_pipeline(StandardScaler(), LogisticRegression(C=1e3, max_iter=2000)).fit(*seen)
    loose_loss = log_loss(expected, loose.predict_proba(test), labels=loose.classes_)
    columns = [LABELS.index(label) for label in loose.classes_]
    our_loss = log_loss(expected, rival.predict(test)[:, columns], labels=loose.classes_)
    assert our_loss < loose_loss - 0.1
    assert accuracy(rival, test, expected) > 0.8
    assert rival.predict(test).sum(axis=1) == pytest.approx(np.ones(1000))


def test_probe_does_not_mind_the_scale_of_a_column() -> None:
    (train, labels), (val, val_labels) = states(0, 200, 20), states(1, 100, 20)
    test, _ = states(2, 50, 20)
    scale = 10.0 ** np.linspace(-4, 6, 20)
    plain = probe(train, labels, val, val_labels, LABELS)
    scaled = probe(train * scale, labels, val * scale, val_labels, LABELS)
    assert scaled.choice == plain.choice
    np.testing.assert_allclose(scaled.predict(test * scale), plain.predict(test), atol=1e-3)


def test_bytes_are_four_a_number_and_the_vocabulary() -> None:
    rival = probe(*states(0, 60, 8), *states(1, 30, 8), LABELS)
    assert rival.bytes == 4 * (8 * 3 + 3 + 8 + 8)  # weights, biases, means, deviations
    ordered = ["é a", "a é"] * 10
    words = tfidf(ordered, ["x", "y"] * 10, ordered, ["x", "y"] * 10, ["x", "y"], seed=0)
    assert words.choice["features"] == "word"
    # Four terms (é, a, é a, a é) of 2 + 1 + 4 + 4 bytes, each with a weight and an idf; one bias.
    assert words.bytes == 4 * (4 + 4 + 1) + 11
