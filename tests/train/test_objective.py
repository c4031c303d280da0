"""The loss of the answers against transformers, the whole vocabulary, one text at a time."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.kinds import Answer, Example
from bantam.nets.choose import shared_start
from bantam.nets.decoder import Decoder
from bantam.nets.lora import add_lora
from bantam.train.objective import answer_loss, shared_prompt
from bantam.train.validation import Written
from tiny_nets import decoder, hugging_face, texts, twin

BEGIN, *ENDS = texts(97, 6, 9, 4, 21, 13)
TWO, FOUR = (5, 80), (3, 60, 5, 17)


def examples() -> list[Example]:
    """Four texts with a common beginning, with one, two or three answers of several candidates."""
    rows = [BEGIN + end for end in ENDS]
    last = [len(row) - 1 for row in rows]
    return [
        Example(rows[0], [Answer(last[0], TWO, 1)]),
        Example(rows[1], [Answer(last[1] - 1, FOUR, 2), Answer(last[1], TWO, 0)], 2.5),
        Example(rows[2], [Answer(last[2], FOUR, 0)]),
        Example(rows[3], [Answer(last[3] - p, FOUR if p else TWO, p % 2) for p in (4, 2, 0)]),
    ]


def plain_loss(theirs: torch.nn.Module, batch: list[Example]) -> Tensor:
    """Each text by itself; all logits, those of other tokens put out; the sum over its answers."""
    losses = []
    for ids, answers, weight in batch:
        logits = theirs(torch.tensor([ids])).logits[0]
        for position, candidates, target, _ in answers:
            others = torch.ones(logits.shape[-1], dtype=torch.bool)
            others[list(candidates)] = False
            masked = logits[position].masked_fill(others, -torch.inf)
            losses.append(weight * F.cross_entropy(masked, torch.tensor(candidates[target])))
    return torch.stack(losses).sum() / len(batch)


@pytest.mark.parametrize("targets", [[(0, 2), (), (1,), (0, 1, 2)], [(), (), (), ()]])
def test_several_targets_are_binary_cross_entropy_each(targets: list[tuple[int, ...]]) -> None:
    """Against transformers: each candidate's logit less that of the last."""
    ours = decoder()
    theirs = twin(ours)
    rows = [BEGIN + end for end in ENDS]
    batch = [
        Example(row, [Answer(len(row) - 1, FOUR, target)], 1.0 + number)
        for number, (row, target) in enumerate(zip(rows, targets, strict=True))
    ]
    losses = []
    for ids, ((position, candidates, target, _),), weight in batch:
        logits = theirs(torch.tensor([ids])).logits[0, position]
        for number, candidate in enumerate(candidates[:-1]):
            apart = logits[candidate] - logits[candidates[-1]]
            wanted = torch.tensor(1.0 if number in target else 0.0)
            losses.append(weight * F.binary_cross_entropy_with_logits(apart, wanted))
    agree(ours, theirs, answer_loss(ours, batch, BEGIN), torch.stack(losses).sum() / len(batch))


def test_shares_are_learned_as_a_distribution() -> None:
    """Against transformers: minus the log-probabilities of the candidates, weighed by shares."""
    ours = decoder()
    theirs = twin(ours)
    shares = [(0.7, 0.1, 0.0, 0.2), (0.25, 0.25, 0.25, 0.25), (), (0.0, 1.0, 0.0, 0.0)]
    rows = [BEGIN + end for end in ENDS]
    batch = [
        Example(row, [Answer(len(row) - 1, FOUR, 3, some)], 1.0 + number)
        for number, (row, some) in enumerate(zip(rows, shares, strict=True))
    ]
    losses = []
    for ids, ((position, candidates, target, some),), weight in batch:
        logs = theirs(torch.tensor([ids])).logits[0, position, list(candidates)].log_softmax(0)
        losses += [-weight * share * logs[n] for n, share in enumerate(some)]
        if not some:
            assert isinstance(target, int)
            losses.append(-weight * logs[target])
    agree(ours, theirs, answer_loss(ours, batch, BEGIN), torch.stack(losses).sum() / len(batch))


def agree(ours: Decoder, theirs: torch.nn.Module, loss: Tensor, wanted: Tensor) -> None:
    """The losses and all their gradients."""
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    loss.backward()
    wanted.backward()
    theirs_gradients = gradients(theirs)
    ours_gradients = hugging_face(gradients(ours))
    assert ours_gradients.keys() == theirs_gradients.keys()
    for name, gradient in ours_gradients.items():
        torch.testing.assert_close(gradient, theirs_gradients[name], atol=1e-5, rtol=1e-3)


def gradients(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: w.grad for name, w in net.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("begin", [0, 3, len(BEGIN)])
def test_loss_and_gradients_are_those_of_the_plain_way(tied: bool, begin: int) -> None:
    ours = decoder(tied=tied)
    theirs = twin(ours)
    loss = answer_loss(ours, examples(), BEGIN[:begin])
    agree(ours, theirs, loss, plain_loss(theirs, examples()))


def test_the_order_of_rows_changes_nothing() -> None:
    """The mean over a batch is that of its parts: neither padding nor neighbours count."""
    ours = decoder()
    together = answer_loss(ours, examples(), BEGIN).item()
    assert answer_loss(ours, examples()[::-1], BEGIN).item() == pytest.approx(together, abs=1e-5)
    alone = [answer_loss(ours, [example], []).item() for example in examples()]
    assert sum(alone) / len(alone) == pytest.approx(together, abs=1e-5)


@pytest.mark.parametrize("begin", [0, len(BEGIN)])
def test_padding_keeps_no_expert_busy(begin: int) -> None:
    """The loss of texts of unequal lengths is the same, whatever the router does with padding."""
    ours = decoder(n_experts=4, n_active=2, balance=0.5)
    padding = ours.model.embed_tokens.weight[0]  # the id that texts are padded with
    losses = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            padding.copy_(sign * torch.arange(len(padding)))
        losses.append(answer_loss(ours, examples(), BEGIN[:begin]).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_what_follows_the_last_answer_does_not_count() -> None:
    ours = decoder()
    ids, answers, _ = examples()[0]
    longer = Example(ids + texts(97, 7, seed=5)[0], answers)
    wanted = answer_loss(ours, [examples()[0]], []).item()
    assert answer_loss(ours, [longer], []).item() == pytest.approx(wanted, abs=1e-5)


def test_the_shared_start_of_real_batches() -> None:
    start = shared_start([example.ids for example in examples()])
    assert start[: len(BEGIN)] == BEGIN


@pytest.mark.parametrize("method", ["full", "lora"])
def test_in_bfloat16_it_is_near(method: str) -> None:
    """bfloat16 keeps 8 bits: a loss of 2 nats is known to about 0.02, the logits not rounded."""

    def prepared(precision: torch.dtype) -> Decoder:
        net = copy.deepcopy(decoder())
        if method == "lora":
            net.to(precision)
            add_lora(net, 4, 0)
        return net

    exact = answer_loss(prepared(torch.float32), examples(), BEGIN)
    with torch.autocast("cpu", torch.bfloat16, enabled=method == "full"):
        near = answer_loss(prepared(torch.bfloat16), examples(), BEGIN)
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), abs=0.05)
    assert near.item() != exact.item()
    near.backward()


def test_answers_of_equal_prompts_are_learned_whole() -> None:
    """One row, or several answers to one text: what they share goes on into the answers."""
    net = decoder()
    prompt, answer = BEGIN + ENDS[0], [7, 8, 9]
    places = [Answer(len(prompt) - 1 + at, (), token) for at, token in enumerate(answer)]
    rows = [Example(prompt + answer[:-1], places)]
    rows.append(Example([*prompt, 7, 8], [*places[:-1], places[-1]._replace(target=10)]))
    for some in (rows[:1], rows):
        wanted = answer_loss(net, some, []).item()
        assert answer_loss(net, some, shared_prompt(some)).item() == pytest.approx(wanted, abs=1e-5)
        _, loss = Written(some, by_loss=True)(net)
        assert loss == pytest.approx(wanted / len(answer), abs=1e-5)
