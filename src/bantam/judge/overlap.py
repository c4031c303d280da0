"""How much written answers share with their references: characters, words, runs of words."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam.errors import BadInput

ROUGE = ("rouge1", "rouge2", "rougeL")
WORD = re.compile(r"[^\W_]+")


def generation(
    references: Sequence[Sequence[str]], answers: Sequence[str | None], inputs: Sequence[str]
) -> dict[str, Any]:
    """Score texts, one a row, each against its references; an answer of None is the empty text.

    - `exact_match`: the share of rows whose answer is one of its references, to the letter.
    - `chrf`: F of the characters in runs of 1 to 6, recall counted twice (Popović 2015), over all
      rows, the best reference of each. From 0 to 1, by sacrebleu.
    - `bleu`: precision of the words in runs of 1 to 4, with a penalty for answers that are short
      (Papineni et al. 2002), over all rows and references. From 0 to 1, by sacrebleu (Post 2018).
      It is 0 where no answer has four words.
    - `rouge1`, `rouge2`, `rougeL`: F of words, pairs of words, and the longest common subsequence
      of words (Lin 2004), the mean over rows, the best reference of each. By rouge-score, with
      words as below and without stemming. A row without words, for `rouge2` without pairs, has 0.
    - `length_ratio`: words of all answers over words of the references (the mean of each row).
    - `copied`: the share of the words of all answers that stand in their row's input.
    - `invented`: the share that stands neither in the input nor in any reference of the row.

    Words are runs of letters and digits of any script, in lower case; for English they are those of
    rouge-score. What is undefined (the share copied where nothing was written) is None.

    Raises BadInput for no rows, or a row without a reference.
    """
    _check(references)
    texts = [answer or "" for answer in answers]
    rows = list(zip(texts, references, inputs, strict=True))
    return {
        "exact_match": sum(text in here for text, here, _ in rows) / len(rows),
        **_corpus(references, texts),
        **_rouge(references, texts),
        **_shares(rows),
    }


def row_chrf(
    references: Sequence[Sequence[str]], answers: Sequence[str | None]
) -> NDArray[np.float64]:
    """The chrF of each row [rows], from 0 to 1, against the best of its references.

    An empty answer is right where a reference is empty: it has 1, of which sacrebleu says 0.

    Raises BadInput for no rows, or a row without a reference.
    """
    from sacrebleu.metrics.chrf import CHRF

    _check(references)
    measure = CHRF()
    scores = []
    for answer, here in zip(answers, references, strict=True):
        if not (answer or "").split() and not all(reference.split() for reference in here):
            scores.append(1.0)
        else:
            score = measure.sentence_score(answer or "", list(here)).score
            scores.append(min(1.0, score / 100))
    return np.array(scores)


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _check(references: Sequence[Sequence[str]]) -> None:
    if not references:
        raise BadInput("there are no test rows to judge", "give more examples or a test file")
    for row, here in enumerate(references, 1):
        if not here:
            raise BadInput(f"test row {row} has no reference", "give it one, or leave it out")


def _corpus(references: Sequence[Sequence[str]], texts: list[str]) -> dict[str, float]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    columns = list(zip_longest(*references))  # None where a row has fewer than the others
    chrf = CHRF().corpus_score(texts, columns)
    bleu = BLEU(force=True).corpus_score(texts, columns)  # forced not to warn of " ." at the end
    return {"chrf": min(1.0, chrf.score / 100), "bleu": min(1.0, bleu.score / 100)}


def _rouge(references: Sequence[Sequence[str]], texts: list[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    scorer = RougeScorer(ROUGE, tokenizer=SimpleNamespace(tokenize=words))
    rows = [scorer.score_multi(here, text) for here, text in zip(references, texts, strict=True)]
    return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in ROUGE}


def _shares(rows: list[tuple[str, Sequence[str], str]]) -> dict[str, float | None]:
    written = copied = invented = 0
    wanted = 0.0
    for text, here, source in rows:
        answer, known = words(text), set(words(source))
        told = [words(reference) for reference in here]
        written += len(answer)
        wanted += sum(map(len, told)) / len(told)
        copied += sum(word in known for word in answer)
        known.update(*told)
        invented += sum(word not in known for word in answer)
    return {
        "length_ratio": written / wanted if wanted else None,
        "copied": copied / written if written else None,
        "invented": invented / written if written else None,
    }
