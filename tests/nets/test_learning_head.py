"""The loss below a head that learns, against plain cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from bantam.nets import head


@pytest.mark.parametrize("piece", [97 * 3, 1, 1 << 21])
def test_loss_and_gradients_are_those_of_cross_entropy(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "PIECE", piece)
    torch.manual_seed(0)
    targets = torch.randint(0, 97, (20,))
    states, weight = torch.randn(20, 32), torch.randn(97, 32) / 5
    found = []
    for ours in (True, False):
        s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        if ours:
            loss = head.vocabulary_loss(s, w, targets)
        else:
            loss = F.cross_entropy(s @ w.t(), targets, reduction="sum")
        (loss / 7).backward()
        found.append((loss.detach(), s.grad, w.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_in_half_precision_the_gradient_points_the_same_way() -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(64, 32), (torch.randn(97, 32) / 5).requires_grad_()
    targets = torch.randint(0, 97, (64,))
    F.cross_entropy(states @ weight.t(), targets, reduction="sum").backward()
    exact, weight.grad = weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        head.vocabulary_loss(states.bfloat16(), weight, targets).backward()
    assert F.cosine_similarity(exact.flatten(), weight.grad.flatten(), dim=0) > 0.999
    assert weight.grad.dtype == torch.float32
