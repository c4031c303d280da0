"""What a device says of itself, asked of cards that are not there."""

import pytest
import torch

from bantam.train import device

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("ampere", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_card_that_only_emulates_bfloat16_takes_float32(
    monkeypatch: pytest.MonkeyPatch, ampere: bool, precision: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or ampere

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert device.pick_precision(CUDA) == precision
    assert device.pick_precision(torch.device("mps")) == "float32"


def test_the_free_memory_of_a_card_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3, 5))
    assert device.free(CUDA) == 3
    assert device.free(torch.device("cpu")) > 5
