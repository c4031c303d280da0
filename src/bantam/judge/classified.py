"""A finder for fields whose few values do not stand in the text: counting words decides."""

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion
from sklearn.preprocessing import MultiLabelBinarizer

from bantam.judge.finders import NOTHING

MOST_VALUES = 60  # of a field, those that two rows at least have
STRENGTHS = ("3", "30")  # C of the regression
SURE = {"": 0.5, " or so": 0.35}  # from which probability on an item of a list is given
TERMS: dict[str, dict[str, Any]] = {
    "word": {"ngram_range": (1, 2)},
    "char": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
LEFT_OUT = ""  # stands for a field that is not there: no JSON is empty


def fitting(values: Sequence[Any]) -> bool:
    """Whether the values of a field, or the items of its lists, are few enough to tell apart."""
    lists = any(isinstance(value, list) for value in values)
    told = [value for value in values if isinstance(value, list)] if lists else values
    counts = Counter(item for value in told for item in _items(value))
    common = [item for item, count in counts.items() if count > 1]
    return (
        2 <= len(common) <= MOST_VALUES and sum(counts[c] for c in common) >= 0.9 * counts.total()
    )


def _features(texts: Sequence[str]) -> FeatureUnion:
    """TF-IDF fitted to texts: of terms that two have, or of all where they share none."""
    parts = []
    for name, terms in TERMS.items():
        for least in (2, 1):
            try:
                part = TfidfVectorizer(sublinear_tf=True, min_df=least, **terms).fit(texts)
            except ValueError:  # no such term: texts may be signs alone, or all of other words
                continue
            parts.append((name, part))
            break
    return FeatureUnion(parts)


class Classified:
    """TF-IDF over words and letters with logistic regression; of lists one for each item."""

    def __init__(self, texts: Sequence[str], values: Sequence[Any], strength: str, sure: float):
        self.lists = any(isinstance(value, list) for value in values)
        self.sure = sure
        self.features = _features(texts)
        x = self.features.transform(texts)
        model = LogisticRegression(C=float(strength), max_iter=1000)
        if self.lists:
            self.items = MultiLabelBinarizer()
            y = self.items.fit_transform([_items(v) if isinstance(v, list) else [] for v in values])
            with warnings.catch_warnings():  # an item that stands in every list, or in none
                warnings.filterwarnings("ignore", "Label .* is present", UserWarning)
                self.model: Any = OneVsRestClassifier(model).fit(x, y)
        else:
            self.model = model.fit(x, [_items(value)[0] for value in values])

    @property
    def numbers(self) -> int:
        """How many numbers and terms are held, about."""
        parts = self.model.estimators_ if self.lists else [self.model]
        weights = sum(part.coef_.size for part in parts if hasattr(part, "coef_"))
        return int(weights) + len(self.features.get_feature_names_out())

    def find(self, text: str) -> Any:
        x = self.features.transform([text])
        if not self.lists:
            (found,) = self.model.predict(x)
            return NOTHING if found == LEFT_OUT else json.loads(found)
        (shares,) = self.model.predict_proba(x)
        found = [json.loads(item) for item in self.items.classes_[np.asarray(shares) >= self.sure]]
        return sorted(found, key=str) or NOTHING


def _items(value: Any) -> list[str]:
    if isinstance(value, list):
        return [json.dumps(item) for item in value]
    return [LEFT_OUT if value is NOTHING else json.dumps(value, sort_keys=True)]
