"""Written answers: their loss against transformers, packed and padded, and how they are judged."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from bantam.judge.certainty import sigmoid
from bantam.kinds import Answer, Example
from bantam.nets import head
from bantam.nets.choose import shared_start
from bantam.nets.decoder import Decoder
from bantam.nets.generate import generate
from bantam.nets.head import vocabulary_loss
from bantam.train.objective import answer_loss
from bantam.train.validation import Written
from tiny_nets import decoder, texts, twin

BEGIN, *ENDS = texts(97, 6, 9, 14, 21, 13)
LENGTHS = (3, 1, 6, 4)  # tokens of the answers


def examples() -> list[Example]:
    """Four texts with a common beginning; the last tokens of each are its answer."""
    made = []
    for end, length in zip(ENDS, LENGTHS, strict=True):
        ids = BEGIN + end
        first = len(ids) - length
        answers = [Answer(at - 1, (), ids[at]) for at in range(first, len(ids))]
        made.append(Example(ids[:-1], answers, 0.25))
    return made


def theirs_loss(theirs: torch.nn.Module) -> torch.Tensor:
    """transformers' own loss with all but the answers masked; its mean over tokens made a sum."""
    losses = []
    for end, length in zip(ENDS, LENGTHS, strict=True):
        ids = torch.tensor([BEGIN + end])
        labels = ids.clone()
        labels[:, :-length] = -100
        losses.append(0.25 * length * theirs(ids, labels=labels).loss)
    return torch.stack(losses).sum() / len(losses)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of the blocks; the head learns in transformers and not with us."""
    return {
        name: weight.grad
        for name, weight in model.named_parameters()
        if weight.grad is not None and ("_proj" in name or name.endswith("norm.weight"))
    }


@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_of_the_answer_alone(shared: bool) -> None:
    ours = decoder(tied=False)
    theirs = twin(ours)
    batch = examples()
    loss = answer_loss(ours, batch, shared_start([e.ids for e in batch]) if shared else [])
    wanted = theirs_loss(theirs)
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    loss.backward()
    wanted.backward()
    mine = {name: grad for name, grad in gradients(ours).items() if "_proj" in name}
    his = [grad for name, grad in gradients(theirs).items() if "_proj" in name]
    assert len(mine) == len(his) == 14
    for grad, other in zip(mine.values(), his, strict=True):
        torch.testing.assert_close(grad, other, atol=1e-5, rtol=1e-3)


def test_soft_caps_and_small_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = decoder(logit_cap=5.0)
    states = torch.randn(11, ours.config.width, requires_grad=True)
    targets, weights = torch.arange(11), torch.rand(11)
    losses = F.cross_entropy(ours.logits(states), targets, reduction="none")
    (wanted,) = torch.autograd.grad((losses * weights).sum() * 3, states)
    for at_once in (1, 97 * 4, 1 << 20):
        monkeypatch.setattr(head, "PIECE", at_once)
        loss = vocabulary_loss(states, ours.lm_head.weight, targets, weights, 5.0)
        assert loss.item() == pytest.approx((losses * weights).sum().item(), rel=1e-5)
        (found,) = torch.autograd.grad(loss * 3, states)
        torch.testing.assert_close(found, wanted)


def test_packed_rows_give_the_loss_and_gradients_of_padded_ones() -> None:
    """All four texts in one row: none sees another."""
    batch = examples()
    padded, packed = decoder(tied=False), decoder(tied=False)
    loss = answer_loss(padded, batch, [])
    loss.backward()
    ids = torch.tensor([[id for example in batch for id in example.ids]])
    positions = torch.tensor([[at for example in batch for at in range(len(example.ids))]])
    states = packed.states(ids, positions=positions)[0]
    starts = np.cumsum([0, *(len(example.ids) for example in batch)])
    at = [
        (int(start) + answer.position, answer.target)
        for start, example in zip(starts, batch, strict=False)
        for answer in example.answers
    ]
    places, targets = torch.tensor(at).unbind(1)
    even = torch.full((len(at),), 0.25)
    together = vocabulary_loss(states[places], packed.lm_head.weight, targets, even)
    (together / len(batch)).backward()
    assert together.item() / len(batch) == pytest.approx(loss.item(), abs=1e-5)
    for (name, grad), other in zip(
        gradients(padded).items(), gradients(packed).values(), strict=True
    ):
        torch.testing.assert_close(grad, other, atol=1e-5, rtol=1e-3, msg=name)


def answered(model: Decoder, prompt: list[int], length: int) -> Example:
    """The example whose answer is what the model writes anyway."""
    (written,) = generate(model, [prompt], length)
    answers = [Answer(len(prompt) - 1 + at, (), token) for at, token in enumerate(written)]
    return Example(prompt + written[:-1], answers)


def test_the_score_is_how_often_the_model_writes_the_answer() -> None:
    model = decoder(seed=3)
    right = [answered(model, prompt, 5) for prompt in texts(97, 8, 12, 5)]
    changed = right[0].answers[2]._replace(target=(right[0].answers[2].target + 1) % 97)  # type: ignore[operator]
    wrong = right[0]._replace(answers=[*right[0].answers[:2], changed, *right[0].answers[3:]])
    score, loss = Written([*right, wrong], by_loss=False)(model)
    assert score == pytest.approx(3 / 4)
    total = sum(answer_loss(model, [example], []).item() for example in [*right, wrong])
    assert loss == pytest.approx(total / 20, rel=1e-5)
    by_loss = Written([*right, wrong], by_loss=True)
    assert by_loss(model) == (pytest.approx(-loss), pytest.approx(loss))


def test_how_sure_an_answer_is() -> None:
    """Platt's sigmoid, against scikit-learn's logistic regression without regularisation."""
    random = np.random.default_rng(0)
    evidence = -random.exponential(3, 5000)
    right = (random.random(5000) < expit(1.5 + 0.8 * evidence)).astype(float)
    slope, offset = sigmoid(evidence, right)
    fitted = LogisticRegression(C=np.inf).fit(evidence[:, None], right)
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=0.02)
    assert offset == pytest.approx(fitted.intercept_[0], rel=0.02)


def test_all_right_is_no_proof() -> None:
    evidence = -np.linspace(0, 1, 30)
    slope, offset = sigmoid(evidence, np.ones(30))
    assert slope >= 0
    assert 0.9 < expit(offset) < 1 - 1e-3
    assert math.isfinite(offset)
