"""The simple rivals: the commonest label, TF-IDF with logistic regression, and a linear probe.

Each is set as an expert would set it. Settings are chosen on the validation rows by log loss, which
wavers less than accuracy on a few hundred rows. The rival is then fitted again on training and
validation rows together, which our own model is not: the advantage is left to the rival.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.sparse import hstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from bantam.engine import cores
from bantam.errors import BadInput
from bantam.judge.metrics import best_thresholds, log_loss
from bantam.kinds import multi_hot

# These keep the memory and the minutes of TF-IDF bounded.
MOST_ROWS = 50_000  # training rows
WORTH_PROCESSES = 1000  # training rows: with fewer, starting processes takes longer than the fits
MOST_WEIGHTS = 2_000_000  # features times labels, for words and for letters; the commonest are kept
LEAST_SHARE = 0.01  # of a label in a row: each takes the row once more
# C, the inverse of regularisation: where the search starts, and a range that it never leaves.
TFIDF_START, PROBE_START = 3.0, 0.01
STRENGTHS = (1e-5, 1e4)
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
    includes the validation rows. `thresholds` [labels] are from when on each label is given, if a
    text may have several. `bytes` is the size if stored: 4 a number and the vocabulary.
    """

    name: str
    choice: dict[str, Any]
    validation_score: float
    predict: Callable[[Any], NDArray[np.float64]]
    bytes: int
    thresholds: NDArray[np.float64] | None = None


def majority(
    train_labels: Sequence[str],
    val_labels: Sequence[str],
    labels: Sequence[str],
    *,
    multi: bool = False,
) -> Fitted:
    """Answers every text with the shares of the labels, the commonest label first; with several
    labels a text, with their commonest set."""
    seen = [*train_labels, *val_labels]
    if multi:
        shares = multi_hot.of(seen, labels).mean(axis=0)
        commonest = min(set(seen), key=lambda one: (-seen.count(one), one))
    else:
        shares = np.array([seen.count(label) for label in labels]) / len(seen)
        commonest = labels[int(shares.argmax())]
    return Fitted(
        name="majority",
        choice={"label": commonest},
        validation_score=float(np.mean([label == commonest for label in val_labels])),
        predict=lambda texts: np.tile(shares, (len(texts), 1)),
        bytes=4 * len(labels),
        thresholds=np.where(multi_hot.of([commonest], labels)[0], 0.0, np.inf) if multi else None,
    )


def tfidf(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    val_texts: Sequence[str],
    val_labels: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    multi: bool = False,
    shares: NDArray[np.float64] | None = None,
) -> Fitted:
    """TF-IDF over words (1-2) and letters within words (2-5), and logistic regression.

    Chosen on validation: words, letters or both with plain or sublinear counts (6 fits at one C),
    then C for the best of them. Of more than `MOST_ROWS` training rows a sample by `seed` is used;
    `choice["rows"]` says how many rows the last fit saw. With `multi` there is a regression a
    label, each against the rest, and thresholds are chosen on validation. `shares` [training rows,
    labels], how much of a row's answer each label is, are learned where validation likes that more.

    Raises BadInput if there is one label only, no validation row, or no text that is not blank.
    """
    y, y_val = _numbers(train_labels, val_labels, labels, multi)
    texts = list(train_texts)
    if len(texts) > MOST_ROWS:
        sample = np.random.default_rng(seed).choice(len(texts), MOST_ROWS, replace=False)
        texts, y = [texts[i] for i in sample], y[sample]
        shares = None if shares is None else shares[sample]
    if not any(text.strip() for text in texts):
        raise BadInput("every training text is blank", "name the column that holds the text")

    most = MOST_WEIGHTS // len(labels)
    counts = {}
    for name, settings in ANALYSERS.items():
        counter = CountVectorizer(**settings, max_features=most)
        counts[name] = counter.fit_transform(texts), counter.transform(val_texts)
    ways = [
        (partial(_try, x, y, x_val, y_val, len(labels)), name, sublinear)
        for sublinear in (True, False)
        for name, (x, x_val) in _weighted(counts, sublinear).items()
    ]
    together = Parallel(n_jobs=cores() if len(texts) >= WORTH_PROCESSES else 1)
    firsts = together(delayed(attempt)(TFIDF_START) for attempt, _, _ in ways)
    first, (attempt, chosen, sublinear) = min(
        zip(firsts, ways, strict=True), key=lambda row: row[0].loss
    )
    best, shares = _with_shares(attempt, _walk(attempt, first), shares)

    vectorisers = [
        (name, TfidfVectorizer(**ANALYSERS[name], sublinear_tf=sublinear, max_features=most))
        for name in chosen.split("+")
    ]
    features = FeatureUnion(vectorisers)
    x = features.fit_transform([*texts, *val_texts])
    model = make_pipeline(features, _last_fit(x, y, y_val, len(labels), shares, best.strength))
    terms = [term for _, vectoriser in vectorisers for term in vectoriser.vocabulary_]
    numbers = _size(model[-1]) + len(terms)  # one idf a term
    return Fitted(
        name="tfidf",
        choice={
            "features": chosen,
            "sublinear": sublinear,
            "C": best.strength,
            "shares": shares is not None,
            "rows": len(texts) + len(val_texts),
        },
        validation_score=best.accuracy,
        predict=lambda texts: _probabilities(model, texts, len(labels)),
        bytes=4 * numbers + sum(len(term.encode()) for term in terms),
        thresholds=best.thresholds,
    )


def probe(
    train_states: NDArray[np.floating[Any]],
    train_labels: Sequence[str],
    val_states: NDArray[np.floating[Any]],
    val_labels: Sequence[str],
    labels: Sequence[str],
    *,
    multi: bool = False,
    shares: NDArray[np.float64] | None = None,
) -> Fitted:
    """Logistic regression on a frozen base's states `[rows, width]`, standardised.

    The regularisation is chosen on validation; `multi` and `shares` are as in `tfidf`. `bytes`
    leaves out the base, which it needs.

    Raises BadInput if there is one label only or no validation row.
    """
    y, y_val = _numbers(train_labels, val_labels, labels, multi)
    scale = StandardScaler().fit(train_states)
    x, x_val = scale.transform(train_states), scale.transform(val_states)
    attempt = partial(_try, x, y, x_val, y_val, len(labels))
    best, shares = _with_shares(attempt, _walk(attempt, attempt(PROBE_START)), shares)

    scale = StandardScaler()
    x = scale.fit_transform(np.concatenate([train_states, val_states]))
    model = make_pipeline(scale, _last_fit(x, y, y_val, len(labels), shares, best.strength))
    numbers = _size(model[-1]) + 2 * train_states.shape[1]
    return Fitted(
        name="probe",
        choice={
            "C": best.strength,
            "shares": shares is not None,
            "rows": len(y) + len(y_val),
        },
        validation_score=best.accuracy,
        predict=lambda states: _probabilities(model, states, len(labels)),
        bytes=4 * numbers,
        thresholds=best.thresholds,
    )


def _weighted(counts: dict[str, tuple[Any, Any]], sublinear: bool) -> dict[str, tuple[Any, Any]]:
    """TF-IDF from the (train, val) counts of words and of letters; and both side by side."""
    weighted = {}
    for name, (train, val) in counts.items():
        weigh = TfidfTransformer(sublinear_tf=sublinear).fit(train)
        weighted[name] = weigh.transform(train), weigh.transform(val)
    train, val = (hstack(blocks, format="csr") for blocks in zip(*weighted.values(), strict=True))
    return {**weighted, "+".join(weighted): (train, val)}


def _numbers(
    train_labels: Sequence[str], val_labels: Sequence[str], labels: Sequence[str], multi: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The labels as columns of the probabilities [rows], if `multi` as whether each applies
    [rows, labels]."""
    if len(set(train_labels)) < 2:
        raise BadInput("the training rows hold one label only", "give examples of another label")
    if not val_labels:
        raise BadInput("there are no validation rows", "give more examples")
    if multi:
        return multi_hot.of(train_labels, labels), multi_hot.of(val_labels, labels)
    place = {label: index for index, label in enumerate(labels)}
    return (
        np.array([place[label] for label in train_labels]),
        np.array([place[label] for label in val_labels]),
    )


def _regression(
    x: Any, y: NDArray[Any], shares: NDArray[np.float64] | None, strength: float
) -> Any:
    """A fitted regression, or with several labels a text one a label. With shares each row is
    learned under every label, weighed by its share."""
    one = LogisticRegression(C=strength, max_iter=2000)
    if y.ndim == 2:
        return OneVsRestClassifier(one).fit(x, y)
    if shares is None:
        return one.fit(x, y)
    rows, labels = np.nonzero(shares >= LEAST_SHARE)
    return one.fit(x[rows], labels, sample_weight=shares[rows, labels])


def _last_fit(
    x: Any,
    y: NDArray[Any],
    y_val: NDArray[Any],
    width: int,
    shares: NDArray[np.float64] | None,
    strength: float,
) -> Any:
    """The regression on training and validation rows together."""
    if shares is not None:
        shares = np.concatenate([shares, np.eye(width)[y_val]])
    return _regression(x, np.concatenate([y, y_val]), shares, strength)


def _size(fitted: Any) -> int:
    """How many numbers a fitted regression, or one a label, holds."""
    each = getattr(fitted, "estimators_", [fitted])
    # A label that all rows have, or none, has no regression but a constant.
    return sum(one.coef_.size + one.intercept_.size if hasattr(one, "coef_") else 1 for one in each)


def _probabilities(model: Any, inputs: Any, width: int) -> NDArray[np.float64]:
    """`[rows, labels]`; a label that training did not have gets 0."""
    found = model.predict_proba(inputs)
    probabilities = np.zeros((len(found), width))
    probabilities[:, model.classes_] = found
    return probabilities


@dataclass(frozen=True)
class _Trial:
    """What one C (strength) gave on validation."""

    strength: float
    loss: float
    accuracy: float
    thresholds: NDArray[np.float64] | None


def _try(
    x: Any,
    y: NDArray[Any],
    x_val: Any,
    y_val: NDArray[Any],
    width: int,
    strength: float,
    shares: NDArray[np.float64] | None = None,
) -> _Trial:
    probabilities = _probabilities(_regression(x, y, shares, strength), x_val, width)
    if y.ndim == 2:
        thresholds, accuracy = best_thresholds(probabilities, y_val)
        loss = float(multi_hot.log_loss(probabilities, y_val).mean())
        return _Trial(strength, loss, accuracy, thresholds)
    accuracy = float(np.mean(probabilities.argmax(axis=1) == y_val))
    return _Trial(strength, log_loss(y_val, probabilities), accuracy, None)


def _with_shares(
    attempt: Callable[..., _Trial], best: _Trial, shares: NDArray[np.float64] | None
) -> tuple[_Trial, NDArray[np.float64] | None]:
    """The better of the best trial without shares and with them; they are given if they helped."""
    if shares is None:
        return best, None
    softly = partial(attempt, shares=shares)
    other = _walk(softly, softly(best.strength))
    return (other, shares) if other.loss < best.loss else (best, None)


def _walk(attempt: Callable[[float], _Trial], first: _Trial) -> _Trial:
    """The C of least log loss: the loss has one valley along C, so walk down it from `first`."""
    best = first
    for factor in (3.0, 1 / 3):
        while STRENGTHS[0] < best.strength * factor < STRENGTHS[1]:
            trial = attempt(best.strength * factor)
            if trial.loss >= best.loss:
                break
            best = trial
        if best is not first:
            break
    return best
