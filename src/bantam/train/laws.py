"""The rules by which a model from scratch gets its shape and its settings, with their sources.

Every rule is of plain numbers. `loss` is what a shape is chosen by. Its constants were fitted on
models of 7M parameters and more: below that it tells which of two is better, not how good.
"""

import math

# Chinchilla's law (Hoffmann et al. 2022, arXiv 2203.15556) as refitted by Besiroglu et al. 2024
# (arXiv 2404.10102): E + A / parameters^a + B / tokens^b, in nats a token. Of four runs of our own
# training (0.4M to 3M parameters, 0.1M to 0.8M tokens of plays, one seed) A came out 1.6 times as
# large beside B as in the paper's fit: twice as many parameters are best for the same computing.
E, A, B, a, b = 1.8172, 1.6 * 482.01, 2085.43, 0.3478, 0.3658
# Reading text again is worth less and less (Muennighoff et al. 2023, arXiv 2305.16264).
WORN = 15.39  # repetitions after which 63% of what they can give is had
PASSES = 4.0  # up to which repeated text is as good as new, by the same paper
MOST_PASSES = 40.0  # beyond, nothing is learned from reading it again

RATE = 3e-3  # AdamW's, of embeddings and norms, and of all in its ablation
MATRIX_RATE = 0.02  # Muon's (Jordan et al. 2024): its steps have the same size at every width
ADAPTING = 7e-4  # AdamW's, where LoRA goes on with a base
FULL = 2e6  # tokens from which on the rates are these, where what follows each token is known
GENTLEST = 0.1  # of the rates
DECAY = 0.1  # weight decay while text is new
MOST_DECAY = 5.0  # times that: at MATRIX_RATE a hundredth of the weights a step
WARMUP = 0.02  # of the steps
COOLDOWN = 0.4  # of the steps, in which the rate falls to nothing (Haegele et al. 2024, 2405.18392)


def worth(tokens: float, unique: float) -> float:
    """How many new tokens are worth as much as `tokens` read from a text of `unique` ones."""
    if tokens <= unique:
        return tokens
    again = tokens / unique - 1
    return unique + unique * WORN * (1 - math.exp(-again / WORN))


def loss(parameters: float, tokens: float, unique: float) -> float:
    """What `parameters` would reach on `tokens` read from `unique` ones, in nats a token."""
    return float(E + A / parameters**a + B / worth(tokens, unique) ** b)


def batch_tokens(tokens: float) -> int:
    """How many tokens a step takes: a power of two, 2,048 for a million tokens.

    The batch beyond which steps are wasted grows with the square root of the tokens and not with
    the model (Zhang et al. 2024, arXiv 2410.21676).
    """
    wanted = 2048 * math.sqrt(tokens / 1e6)
    return min(1 << 19, max(2048, 1 << round(math.log2(max(1.0, wanted)))))


def gentle(tokens: float) -> float:
    """The share of the rates that is best after `train.pairs`.

    At full rate what was learned there is forgotten sooner than the context is learned. Of models
    of 1M parameters and of 0.1, 0.33 and 1 the first was best for 0.26M tokens, and the others were
    equal for 1M.
    """
    return min(1.0, max(GENTLEST, tokens / FULL))


def weight_decay(passes: float) -> float:
    """More of it where text is read often: up to 30 times more is best when data is all there is
    (Kim et al. 2025, arXiv 2509.14786). We stop at five."""
    return DECAY * min(MOST_DECAY, max(1.0, passes / PASSES))


def context(parameters: float) -> int:
    """Tokens that a model sees at once: small models gain little from more."""
    return 256 if parameters < 12e6 else 512 if parameters < 60e6 else 1024


def schedule(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """The share of the learning rate at a step (from 0): up in a line, even, down in a line."""
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (steps - step) / max(1, cooldown))
