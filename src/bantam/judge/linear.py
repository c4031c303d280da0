"""The simple rivals: the commonest label, TF-IDF with logistic regression, and a linear probe.

Each is set as an expert would set it. Settings are chosen on the validation rows by log loss, which
wavers less than accuracy on a few hundred rows. The rival is then fitted again on training and
validation rows together, which our own model is not: the advantage is left to the rival.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import hstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from bantam.errors import BadInput
from bantam.judge.metrics import log_loss

MOST_ROWS = 50_000  # of training rows that TF-IDF sees: keeps its memory and its minutes bounded
TFIDF_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # C: the inverse of regularisation
PROBE_STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Punctuation counts as a word: "!" and "?" tell much about a text.
ANALYSERS: dict[str, dict[str, Any]] = {
    "word": {"ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"},
    "char": {"ngram_range": (2, 5), "analyzer": "char_wb"},
}


@dataclass(frozen=True)
class Fitted:
    """A rival ready to answer.

    `predict` gives probabilities `[rows, labels]` for a list of texts (majority, tfidf) or an array
    of states `[rows, width]` (probe). `validation_score` is accuracy before the last fit, which
    includes the validation rows. `bytes` is the size if stored: 4 a number and the vocabulary.
    """

    name: str
    choice: dict[str, Any]
    validation_score: float
    predict: Callable[[Any], NDArray[np.float64]]
    bytes: int


def majority(
    train_labels: Sequence[str], val_labels: Sequence[str], labels: Sequence[str]
) -> Fitted:
    """Answers every text with the shares of the labels, the commonest label first."""
    seen = [*train_labels, *val_labels]
    shares = np.array([seen.count(label) for label in labels]) / len(seen)
    commonest = labels[int(shares.argmax())]
    return Fitted(
        name="majority",
        choice={"label": commonest},
        validation_score=float(np.mean([label == commonest for label in val_labels])),
        predict=lambda texts: np.tile(shares, (len(texts), 1)),
        bytes=4 * len(labels),
    )


def tfidf(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    val_texts: Sequence[str],
    val_labels: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
) -> Fitted:
    """TF-IDF over words (1-2) and letters within words (2-5), and logistic regression.

    Chosen on validation: words, letters or both; plain or sublinear counts; the regularisation. Of
    more than `MOST_ROWS` training rows a sample by `seed` is used; `choice["rows"]` says how many
    rows the last fit saw.

    Raises BadInput if there is one label only, no validation row, or no text that is not blank.
    """
    y, y_val = _numbers(train_labels, val_labels, labels)
    texts = list(train_texts)
    if len(texts) > MOST_ROWS:
        sample = np.random.default_rng(seed).choice(len(texts), MOST_ROWS, replace=False)
        texts, y = [texts[i] for i in sample], y[sample]
    if not any(text.strip() for text in texts):
        raise BadInput("every training text is blank", "name the column that holds the text")

    counts = []
    for settings in ANALYSERS.values():
        counter = CountVectorizer(**settings)
        counts.append((counter.fit_transform(texts), counter.transform(val_texts)))
    tried = []
    for sublinear in (False, True):
        features = {}
        for name, (of_train, of_val) in zip(ANALYSERS, counts, strict=True):
            weigh = TfidfTransformer(sublinear_tf=sublinear).fit(of_train)
            features[name] = weigh.transform(of_train), weigh.transform(of_val)
        words, letters = features["word"], features["char"]
        features["word+char"] = tuple(
            hstack(pair, format="csr") for pair in zip(words, letters, strict=True)
        )
        for name, (x, x_val) in features.items():
            tried.append(
                (*_tune(x, y, x_val, y_val, len(labels), TFIDF_STRENGTHS), name, sublinear)
            )
    _, strength, score, chosen, sublinear = min(tried)

    vectorisers = [
        (name, TfidfVectorizer(**ANALYSERS[name], sublinear_tf=sublinear))
        for name in chosen.split("+")
    ]
    model = make_pipeline(FeatureUnion(vectorisers), _regression(strength))
    model.fit([*texts, *val_texts], np.concatenate([y, y_val]))
    numbers = model[-1].coef_.size + model[-1].intercept_.size
    vocabulary = 0
    for _, vectoriser in vectorisers:
        numbers += vectoriser.idf_.size
        vocabulary += sum(len(term.encode()) for term in vectoriser.vocabulary_)
    return Fitted(
        name="tfidf",
        choice={
            "features": chosen,
            "sublinear": sublinear,
            "C": strength,
            "rows": len(texts) + len(val_texts),
        },
        validation_score=score,
        predict=lambda texts: _probabilities(model, texts, len(labels)),
        bytes=4 * numbers + vocabulary,
    )


def probe(
    train_states: NDArray[np.floating[Any]],
    train_labels: Sequence[str],
    val_states: NDArray[np.floating[Any]],
    val_labels: Sequence[str],
    labels: Sequence[str],
) -> Fitted:
    """Logistic regression on a frozen base's states `[rows, width]`, standardised.

    The regularisation is chosen on validation. `bytes` leaves out the base, which it needs.

    Raises BadInput if there is one label only or no validation row.
    """
    y, y_val = _numbers(train_labels, val_labels, labels)
    scale = StandardScaler().fit(train_states)
    x, x_val = scale.transform(train_states), scale.transform(val_states)
    _, strength, score = _tune(x, y, x_val, y_val, len(labels), PROBE_STRENGTHS)

    model = make_pipeline(StandardScaler(), _regression(strength))
    model.fit(np.concatenate([train_states, val_states]), np.concatenate([y, y_val]))
    numbers = model[-1].coef_.size + model[-1].intercept_.size + 2 * train_states.shape[1]
    return Fitted(
        name="probe",
        choice={"C": strength, "rows": len(y) + len(y_val)},
        validation_score=score,
        predict=lambda states: _probabilities(model, states, len(labels)),
        bytes=4 * numbers,
    )


def _numbers(
    train_labels: Sequence[str], val_labels: Sequence[str], labels: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels as columns of the probabilities."""
    if len(set(train_labels)) < 2:
        raise BadInput("the training rows hold one label only", "give examples of another label")
    if not val_labels:
        raise BadInput("there are no validation rows", "give more examples")
    place = {label: index for index, label in enumerate(labels)}
    return (
        np.array([place[label] for label in train_labels]),
        np.array([place[label] for label in val_labels]),
    )


def _regression(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=2000)


def _probabilities(model: Any, inputs: Any, width: int) -> NDArray[np.float64]:
    """`[rows, labels]`; a label that training did not have gets 0."""
    found = model.predict_proba(inputs)
    probabilities = np.zeros((len(found), width))
    probabilities[:, model.classes_] = found
    return probabilities


def _tune(
    x: Any,
    y: NDArray[np.int64],
    x_val: Any,
    y_val: NDArray[np.int64],
    width: int,
    strengths: Sequence[float],
) -> tuple[float, float, float]:
    """Log loss, C and accuracy on validation of the best C; `strengths` ascend, and as the loss has
    one valley along them the walk ends where it rises."""
    best = (np.inf, strengths[0], 0.0)
    for strength in strengths:
        probabilities = _probabilities(_regression(strength).fit(x, y), x_val, width)
        loss = log_loss(y_val, probabilities)
        if loss >= best[0]:
            break
        best = loss, strength, float(np.mean(probabilities.argmax(axis=1) == y_val))
    return best
