"""How much grammar a model knows: how often it finds the right one of two sentences likelier.

    python benchmarks/grammar.py MODEL...                 on pairs of our own (grammar_pairs.py)
    python benchmarks/grammar.py MODEL --pairs FILE       on those of a file

MODEL is a run, a Hugging Face folder or a .gguf. FILE has a pair a line, as JSON: `good`, `bad` and
`phenomenon`. Sentences are compared by the probability of the whole, behind what documents begin
with in training. A tie counts as wrong. Weights are computed with in float32; those of a .gguf are
its own, rounded ones.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.judge import pairs
from bantam.model_files import find
from bantam.nets.decoder import Decoder
from bantam.nets.load import load
from bantam.train import held_out
from grammar_pairs import pairs as own_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--pairs", type=Path, metavar="FILE")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    given = pairs.read(asked.pairs) if asked.pairs else ours()
    for name in asked.models:
        path = Path(name) if Path(name, "config.json").is_file() else find(name)
        decoder = load(path)
        score = partial(scored, decoder, tokenizer_of(path), decoder.config.context)
        print(f"{name}\n\n{pairs.table(pairs.judge(given, score))}\n")


def ours() -> list[pairs.Pair]:
    """The pairs of our own."""
    return [pairs.Pair(**pair) for pair in own_pairs()]


def tokenizer_of(path: Path) -> Tokenizer:
    return Tokenizer.from_folder(path) if path.is_dir() else Tokenizer.from_gguf(gguf.read(path))


def scored(
    decoder: Decoder, tokenizer: Tokenizer, context: int, sentences: Sequence[str]
) -> list[float]:
    """The logarithm of each sentence's probability, to base two, behind the token that begins
    texts, or where there is none, the one that stands between documents."""
    start = tokenizer.start or [tokenizer.eos_id or 0]
    rows = [[*start, *tokenizer.encode([(sentence, False)])] for sentence in sentences]
    return [-bits for bits in held_out.bits_of(decoder, rows, context).tolist()]


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(f"grammar.py: {error} ({error.mend})")
