"""How much a document reads like those that somebody calls good: a score that is learned.

A text is the shares of its words and symbols, and of the pairs of them, hashed into 2^18 places.
Each place is divided by the square root of its usual share, so that common words do not drown the
others, and a logistic regression weighs them: the texts called good against a background, both
sides counting alike. So the score of a text is the mean of weights that stand in a table, and this
table is all that is kept.

Because it is a mean, what is short has on average what is long has: length is nothing that can be
learned. (Roots of counts, or which words are there at all, do better by a hair, and tell short from
long before anything else.) The mean of few words is a matter of luck, though: the shorter a text,
the more it is taken for an ordinary one of the background, or the best scores of all would be those
of the shortest texts.

`learn` says how far the score can be believed: `auc` is how often a good text that it has not
learned from scores above one of the background. Copies of what it has learned from do not count.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix
from scipy.special import expit
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bantam.documents import duplicates, words
from bantam.documents.compiled import compiled
from bantam.documents.document import reject
from bantam.documents.folds import FOLDS, folds
from bantam.documents.words import PRIME, Hashes, Places, Words, stirred
from bantam.errors import BadInput

VERSION = 1  # of the file, and of what the table's places mean
BITS = 18  # a table of 1 MB, which a processor keeps near
MOST = 5000  # texts of each side that are learned from
LONGEST = 5000  # characters of each that are read
RAREST = 1e-5  # share below which words count as equally rare
DOUBT = 40  # words and pairs that count as saying nothing, beside those that a text has
LEAST_AUC = 0.6
LARGEST = 8 << 20  # bytes of a file of a scorer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scorer:
    """What was learned, and from how much."""

    weights: npt.NDArray[np.float32]  # (2**BITS,)
    bias: float
    auc: float  # 0.5 is chance
    error: float  # of the auc: it is within two of these
    good: int  # texts
    background: int


def learn(good: pl.Series, background: pl.Series, seed: int) -> Scorer:
    """A score of what is like the first of two columns of texts (none null), unlike the second.

    The background may be what somebody calls bad, or a sample of all documents; texts that are
    called good are left out of it. Raises BadInput when either side has too few different texts.
    """
    sides = _sides(good, background, seed)
    texts = pl.concat(sides)
    kind = np.repeat([1, 0], [len(side) for side in sides])
    cluster = np.unique(duplicates.clusters(texts).to_numpy(), return_inverse=True)[1]
    for name, side in (("called good", kind == 1), ("to hold against them", kind == 0)):
        different = len(np.unique(cluster[side]))
        if different < FOLDS:
            raise BadInput(
                f"a score cannot be learned from {different} different texts {name}",
                f"give at least {FOLDS}, better 50: name more files, or rate more documents",
            )
    part = folds(cluster, kind, seed)
    from sklearn.metrics import roc_auc_score

    found = words.split(texts)
    shares = _shares(found)
    means, biases = np.zeros(len(kind)), np.zeros(len(kind))  # of models that have not seen a text
    with threadpool_limits(1):  # the products are small
        for fold in range(FOLDS):
            asked = part == fold
            learned, bias = _fitted(shares, kind, ~asked)
            means[asked], biases[asked] = shares[asked] @ learned, bias
        usual = float(means[kind == 0].mean())  # of the background: what short texts are taken for
        raw = _trust(found) * (means - usual) + biases + usual
        slope, shift = _calibrated(raw, kind)
        learned, bias = _fitted(shares, kind, part >= 0)
    tested = [roc_auc_score(kind[part == fold], raw[part == fold]) for fold in range(FOLDS)]
    auc = float(np.mean(tested))
    counts = int(kind.sum()), int((kind == 0).sum())
    return Scorer(
        weights=(slope * (learned - usual)).astype(np.float32),
        bias=slope * (bias + usual) + shift,
        auc=auc,
        error=_error(auc, *counts),
        good=counts[0],
        background=counts[1],
    )


def scores(found: Words, scorer: Scorer) -> pl.Series:
    """The score of each text from 0 to 1, `score` (f64). It would be the probability that a text is
    good if half of all texts were."""
    means = np.zeros(len(found))
    _means(found.first, found.folded, scorer.weights, means)
    return pl.Series("score", expit(_trust(found) * means + scorer.bias))


def threshold(scores: pl.Series, share: float) -> float:
    """The score from which on this share of the documents is kept; a little more where many are
    equal, and all when there is none."""
    found = scores.quantile(1 - share, "higher")
    return 0.0 if found is None else float(found)


def mark(frame: pl.DataFrame, least: float) -> pl.DataFrame:
    """The documents with reason "score" and their `score` as value where it is below the least.
    Documents that have a reason keep it."""
    value = pl.col("score").round(4).cast(pl.String)
    return reject(frame, pl.col("score") < least, pl.lit("score"), value)


def warnings(scorer: Scorer) -> list[str]:
    """What to tell somebody before they believe the score."""
    told = f"the score told {scorer.auc:.2f} of pairs right that it had not seen"
    more = "give more that is good; where most documents are, rate some that are bad"
    if scorer.auc < LEAST_AUC:
        return [f"{told}, where chance is 0.50: it has learned next to nothing; {more}"]
    if scorer.auc - 2 * scorer.error < 0.5:
        return [f"{told}, give or take {2 * scorer.error:.2f}: that may be chance; {more}"]
    return []


def save(scorer: Scorer, path: Path) -> None:
    """Write a .npz: plain arrays, a version among them."""
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            version=VERSION,
            weights=scorer.weights,
            numbers=np.array([scorer.bias, scorer.auc, scorer.error]),
            counts=np.array([scorer.good, scorer.background], np.int64),
        )


def load(path: Path) -> Scorer:
    """What `save` wrote. Raises BadInput for a file that is no such thing."""
    mend = "have the score learned anew"
    try:
        with zipfile.ZipFile(path) as file:
            if sum(member.file_size for member in file.infolist()) > LARGEST:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as held:
            version = int(held["version"])
            if version != VERSION:
                raise BadInput(f"{path} is of format {version}, not {VERSION}", mend)
            weights, numbers, counts = held["weights"], held["numbers"], held["counts"]
        if weights.shape != (1 << BITS,) or numbers.shape != (3,) or counts.shape != (2,):
            raise ValueError("its arrays have other shapes")
        if weights.dtype != np.float32 or not (
            np.isfinite(weights).all() and np.isfinite(numbers).all()
        ):
            raise ValueError("it holds what is no weight")
        bias, auc, error = numbers.tolist()
        good, background = counts.tolist()
        return Scorer(weights, float(bias), float(auc), float(error), int(good), int(background))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is no learned score: {error}", mend) from None


def _sides(good: pl.Series, background: pl.Series, seed: int) -> list[pl.Series]:
    """What is read of both sides: different texts, at most MOST of each, by chance."""
    chance = np.random.default_rng(seed)
    liked, others = (
        pl.select(text=column.cast(pl.String).str.slice(0, LONGEST)).unique(maintain_order=True)
        for column in (good, background)
    )
    others = others.join(liked, on="text", how="anti", maintain_order="left")
    return [
        side["text"].gather(np.sort(chance.permutation(len(side))[:MOST]))
        for side in (liked, others)
    ]


def _shares(found: Words) -> csr_matrix:
    """What each place has of each text, [texts, 2**BITS]; the places of a text add up to one."""
    begins = np.concatenate([[0], np.cumsum(_grams(found))])
    places, shares = np.empty(begins[-1], np.int32), np.empty(begins[-1], np.float32)
    _share(found.first, found.folded, places, shares)
    found_in = csr_matrix((shares, places, begins), shape=(len(found), 1 << BITS))
    found_in.sum_duplicates()
    return found_in


def _grams(found: Words) -> Ints:
    """How many words, symbols and pairs each text has."""
    tokens: Ints = np.diff(found.first)
    return np.maximum(2 * tokens - 1, 0)


def _trust(found: Words) -> Floats:
    """How much of its mean each text is given: the more, the longer it is."""
    grams = _grams(found)
    return grams / (grams + DOUBT)


def _fitted(shares: csr_matrix, kind: Ints, learned: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    """The weight of each place, and the bias, from some of the texts."""
    x = shares[learned]
    scale = 1 / np.sqrt(np.asarray(x.mean(axis=0), np.float64).ravel() + RAREST)
    x.data *= scale[x.indices]
    length = float(np.sqrt(x.multiply(x).sum() / x.shape[0])) or 1.0
    x.data /= length  # texts are one long: so the strength of the penalty means the same to all
    from sklearn.linear_model import LogisticRegression  # 145 MB, which only learning takes

    model = LogisticRegression(class_weight="balanced", tol=1e-5, max_iter=300)
    model.fit(x, kind[learned])
    return model.coef_[0] * scale / length, float(model.intercept_[0])


def _calibrated(raw: Floats, kind: Ints) -> tuple[float, float]:
    """What makes a probability of what the models say of texts that they have not seen."""
    from sklearn.linear_model import LogisticRegression

    wide = float(raw.std()) or 1.0
    model = LogisticRegression(class_weight="balanced").fit(raw[:, None] / wide, kind)
    slope = float(model.coef_[0, 0]) / wide
    return (slope, float(model.intercept_[0])) if slope > 0 else (1.0, 0.0)


def _error(auc: float, good: int, background: int) -> float:
    """The standard error of an AUC (Hanley and McNeil 1982)."""
    one, other = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (good - 1) * (one - auc**2) + (background - 1) * (other - auc**2)
    return float(np.sqrt(max(spread, 0.0) / (good * background)))


@compiled
def _pair(before: np.uint64, word: np.uint64) -> np.uint64:
    return stirred(before * PRIME + word)


@compiled
def _share(
    first: Places, folded: Hashes, places: npt.NDArray[np.int32], shares: npt.NDArray[np.float32]
) -> None:
    """The place of each word, and of each pair, and its share: the words of a text have half of
    it and the pairs the other half, or their balance would tell how many they are."""
    at, shift = 0, np.uint64(64 - BITS)
    for text in range(len(first) - 1):
        count = first[text + 1] - first[text]
        for token in range(first[text], first[text + 1]):
            places[at], shares[at] = np.int32(folded[token] >> shift), 0.5 / count
            at += 1
            if token > first[text]:
                pair = _pair(folded[token - 1], folded[token])
                places[at], shares[at] = np.int32(pair >> shift), 0.5 / (count - 1)
                at += 1


@compiled
def _means(first: Places, folded: Hashes, weights: npt.NDArray[np.float32], means: Floats) -> None:
    """The mean weight of each text: half of it that of its words, half that of its pairs."""
    shift = np.uint64(64 - BITS)
    for text in range(len(first) - 1):
        of_words, of_pairs, count = 0.0, 0.0, first[text + 1] - first[text]
        for token in range(first[text], first[text + 1]):
            of_words += weights[folded[token] >> shift]
            if token > first[text]:
                of_pairs += weights[_pair(folded[token - 1], folded[token]) >> shift]
        means[text] = 0.5 * of_words / max(count, 1) + 0.5 * of_pairs / max(count - 1, 1)
