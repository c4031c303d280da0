"""Shapes from a number of parameters, and weights that have learned nothing."""

import pytest
import torch

from bantam.errors import BadInput
from bantam.nets import fresh
from bantam.nets.load import config_of, save


@pytest.mark.parametrize("wanted", [1e6, 3e6, 7e6, 15e6, 30e6, 135e6, 1e9])
def test_shapes_have_about_as_many_parameters(wanted: float) -> None:
    vocabulary = 2048 if wanted < 2e6 else 8192
    shape = fresh.shape(int(wanted), vocabulary)
    assert fresh.count(shape) == pytest.approx(wanted, rel=0.25)
    with torch.device("meta"):
        made = fresh.Decoder(shape)
    assert fresh.count(shape) == sum(p.numel() for p in made.parameters())
    assert shape.width % 32 == shape.hidden_width % 32 == 0
    assert shape.n_heads * shape.head_size == shape.width


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match="the nearest has"):
        fresh.shape(100_000, 32_768)
    with pytest.raises(BadInput, match="blocks of 32"):
        fresh.config(512, 64, 100)


def test_a_fresh_decoder_knows_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    shape = fresh.config(512, 64, 64)
    made, same = fresh.fresh(shape, 1), fresh.fresh(shape, 1)
    ids = torch.randint(0, 512, (1, 20), generator=torch.Generator().manual_seed(0))
    states = made.states(ids)
    embedded = made.model.norm(made.model.embed_tokens(ids))
    torch.testing.assert_close(states, embedded)  # no block has changed anything
    assert all(
        torch.equal(one, other)
        for one, other in zip(made.parameters(), same.parameters(), strict=True)
    )
    save(made, tmp_path)
    assert config_of(tmp_path) == shape
