"""Every family against transformers: the same numbers from the same files, and back."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from bantam.nets import names
from bantam.nets.choose import pad
from bantam.nets.decoder import SHORT, Cache, Decoder, balance_loss
from bantam.nets.load import load, save, shapes_of
from tiny_families import FAMILIES, VOCAB, folder
from tiny_nets import texts

# Two correct orders of the same float32 sums differ by some 1e-6 here; a wrong mask, norm, scale or
# angle by more than 0.01.
CLOSE = 1e-4
LONG = 60  # tokens: past the windows and the rotary thresholds of the tests
CPU = torch.device("cpu")

Both = tuple[Decoder, PreTrainedModel]


@pytest.fixture(params=FAMILIES)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Both:
    theirs = folder(request.param, tmp_path / "theirs")
    return load(tmp_path / "theirs"), theirs


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=CLOSE, rtol=0)


@torch.no_grad()
def test_logits(both: Both) -> None:
    ours, theirs = both
    for row in texts(VOCAB, 1, 2, 20, LONG):
        ids = torch.tensor([row])
        close(ours(ids), theirs(ids).logits)


@pytest.mark.parametrize("name", ["llama", "mistral", "phi 3, longrope", "gemma 2", "gpt 2"])
@torch.no_grad()
def test_texts_that_go_another_way_through_attention(tmp_path: Path, name: str) -> None:
    theirs = folder(name, tmp_path, max_position_embeddings=2 * SHORT)
    ids = torch.tensor(texts(VOCAB, SHORT + 40))
    close(load(tmp_path)(ids), theirs(ids).logits)


@torch.no_grad()
def test_saved_by_us(both: Both, tmp_path: Path) -> None:
    ours, theirs = both
    save(ours, tmp_path / "ours", 1, 2)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager")
    assert type(again) is type(theirs)
    for row in texts(VOCAB, 20, LONG):
        ids = torch.tensor([row])
        assert torch.equal(again(ids).logits, theirs(ids).logits)
    assert load(tmp_path / "ours").config == ours.config


@torch.no_grad()
def test_a_token_at_a_time(both: Both) -> None:
    ours, theirs = both
    ids = torch.tensor(texts(VOCAB, LONG, LONG))
    cache, past = Cache.of(ours.config), None
    for begin, end in [(0, 20), *((i, i + 1) for i in range(20, LONG))]:
        wanted = theirs(ids[:, begin:end], past_key_values=past, use_cache=True)
        past = wanted.past_key_values
        close(ours(ids[:, begin:end], cache=cache), wanted.logits)


@torch.no_grad()
def test_padding_changes_nothing(both: Both) -> None:
    ours, theirs = both
    # All past the threshold of longrope, whose angles go by the longest text of a batch.
    rows = texts(VOCAB, 30, 41, LONG)
    for row, logits in zip(rows, ours(pad(rows, CPU)), strict=True):
        close(logits[: len(row)], theirs(torch.tensor([row])).logits[0])


@torch.no_grad()
def test_documents_in_one_row_do_not_see_each_other(both: Both) -> None:
    ours, theirs = both
    documents = texts(VOCAB, 26, 30, 41)
    row = torch.tensor([[id for document in documents for id in document] + [0] * 7])
    positions = [i for document in documents for i in range(len(document))] + [-1] * 7
    logits = ours(row, positions=torch.tensor([positions]))[0]
    assert logits.isfinite().all()  # of the padding too: a NaN would reach all gradients
    for document, packed in zip(documents, logits.split([26, 30, 41, 7]), strict=False):
        close(packed, theirs(torch.tensor([document])).logits[0])


def test_gradients(both: Both) -> None:
    ours, theirs = both
    ids = torch.tensor(texts(VOCAB, 40, 40))
    F.cross_entropy(ours(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    theirs(ids, labels=ids).loss.backward()
    wanted = {name: weight.grad for name, weight in theirs.named_parameters()}
    grads = {name: weight.grad for name, weight in ours.named_parameters()}
    for name in [name for name in wanted if ".mlp.experts." in name]:
        wanted |= apart(name, wanted.pop(name), ours.config.hidden_width)
    stored = names.hugging_face(ours.config, shapes_of(ours))
    made = {each.name: each.join(lambda name: grads[name]) for each in stored}
    made = {name.replace("block_sparse_moe.gate", "mlp.gate"): grad for name, grad in made.items()}
    assert made.keys() == wanted.keys()
    for name, grad in made.items():
        torch.testing.assert_close(grad, wanted[name], atol=2e-5, rtol=1e-3)


def apart(name: str, whole: Tensor, hidden: int) -> dict[str, Tensor]:
    """The experts' tensors of transformers, which holds them stacked, as files have them."""
    block = name.split(".mlp.")[0]
    parts = {"w2": whole} if name.endswith("down_proj") else {}
    if not parts:
        parts = dict(zip(("w1", "w3"), whole.split(hidden, dim=1), strict=True))
    return {
        f"{block}.block_sparse_moe.experts.{number}.{part}.weight": each
        for part, tensor in parts.items()
        for number, each in enumerate(tensor)
    }


def test_computing_blocks_twice_changes_no_gradient(tmp_path: Path) -> None:
    folder("gemma 3", tmp_path)
    ids = torch.tensor(texts(VOCAB, 40, 40))
    grads = []
    for twice in (False, True):
        ours = load(tmp_path).requires_grad_(True)
        ours.model.recompute = twice
        ours(ids).square().mean().backward()
        grads.append([weight.grad for weight in ours.parameters()])
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("lengths", [(40, 40), (40, 3, 5)])
def test_the_loss_that_keeps_experts_busy(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    theirs = folder("mixtral", tmp_path)
    ours = load(tmp_path)
    ids = pad(texts(VOCAB, *lengths), CPU)
    real = pad([[1] * length for length in lengths], CPU)
    wanted = theirs(ids, attention_mask=real, output_router_logits=True).aux_loss
    ours(ids)
    made = balance_loss(ours, real.flatten().bool())
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=0)
    wanted.backward()
    made.backward()
    gates = [block.mlp.gate.weight.grad for block in theirs.model.layers]
    for block, grad in zip(ours.model.layers, gates, strict=True):
        torch.testing.assert_close(block.mlp.router.weight.grad, grad, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["mixtral", "phi 3", "gpt 2"])
@torch.no_grad()
def test_folders_in_several_files(tmp_path: Path, name: str) -> None:
    theirs = folder(name, tmp_path / "one")
    theirs.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    ids = torch.tensor(texts(VOCAB, 20))
    assert torch.equal(load(tmp_path / "many")(ids), load(tmp_path / "one")(ids))


@pytest.mark.parametrize(("name", "prefix"), [("gpt 2", "transformer."), ("opt", "model.")])
@torch.no_grad()
def test_files_of_the_bare_model(tmp_path: Path, name: str, prefix: str) -> None:
    """As the first ones were published: without a prefix, and GPT-2's with its masks."""
    from safetensors.torch import load_file, save_file

    theirs = folder(name, tmp_path)
    path = tmp_path / "model.safetensors"
    weights = {key.removeprefix(prefix): weight for key, weight in load_file(path).items()}
    if name == "gpt 2":
        weights |= {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.ones(1)}
    save_file(weights, path)
    ids = torch.tensor(texts(VOCAB, 20))
    close(load(tmp_path)(ids), theirs(ids).logits)
