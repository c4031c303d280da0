"""A quick model of labels, asked about each row when it has learned from other rows only.

TF-IDF over words and pairs of words with logistic regression: it is no rival, but it is the same on
every machine and reads 5,000 rows in seconds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bantam.documents.folds import FOLDS
from bantam.documents.words import WORD

LONGEST = 2000  # characters of a text that are read
MOST_TERMS, MOST_WEIGHTS = 20_000, 1_000_000  # the latter for all labels together
MOST_LEARNED = 20_000  # rows that one of the five models learns from
STRENGTH = 3.0  # C of the regression

Ints = NDArray[np.int64]
Shares = NDArray[np.float64]


def labels(texts: Sequence[str], given: Ints, fold: Ints, seed: int) -> Shares:
    """P(label) of each row, [rows, labels], from a model that has not seen the row's fold.

    `given` [rows] are the labels' numbers; all from 0 to the largest must be there.
    """
    width = int(given.max()) + 1
    x = _terms(texts, width, seed)
    found = np.zeros((len(texts), width))
    with threadpool_limits(1):  # products as small as these are quickest in one thread
        for part in range(FOLDS):
            learned, asked = _parts(fold, part, seed)
            if len(asked) and len(np.unique(given[learned])) > 1:
                model = LogisticRegression(C=STRENGTH, tol=1e-3, max_iter=200)
                model.fit(x[learned], given[learned])
                found[np.ix_(asked, model.classes_)] = model.predict_proba(x[asked])
    return found


def sets(texts: Sequence[str], given: NDArray[np.bool_], fold: Ints, seed: int) -> Shares:
    """P(the label applies) of each row and label, [rows, labels], as `labels`; `given` has the same
    shape."""
    x = _terms(texts, given.shape[1], seed)
    found = np.zeros(given.shape)
    with threadpool_limits(1):
        for part in range(FOLDS):
            learned, asked = _parts(fold, part, seed)
            for label in range(given.shape[1] if len(asked) else 0):
                y = given[learned, label]
                if y.all() or not y.any():
                    found[asked, label] = y.mean()
                    continue
                model = LogisticRegression(C=STRENGTH, solver="liblinear").fit(x[learned], y)
                found[asked, label] = model.predict_proba(x[asked])[:, 1]
    return found


def _parts(fold: Ints, part: int, seed: int) -> tuple[Ints, Ints]:
    """The rows that are learned from, at most `MOST_LEARNED`, and those that are asked about."""
    learned, asked = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
    if len(learned) > MOST_LEARNED:
        chance = np.random.default_rng(seed)
        learned = np.sort(chance.choice(learned, MOST_LEARNED, replace=False))
    return learned, asked


def _terms(texts: Sequence[str], width: int, seed: int) -> Any:
    """The texts as TF-IDF, a sparse [rows, terms]. Labels play no part in it."""
    vectoriser = TfidfVectorizer(
        tokenizer=WORD.findall,
        token_pattern=None,
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=max(1000, min(MOST_TERMS, MOST_WEIGHTS // width)),
        dtype=np.float32,
    )
    read = [text[:LONGEST] for text in texts]
    if len(read) > MOST_LEARNED:
        chance = np.random.default_rng(seed)
        vectoriser.fit([read[i] for i in chance.choice(len(read), MOST_LEARNED, replace=False)])
        return vectoriser.transform(read)
    return vectoriser.fit_transform(read)
