"""A model that does not fit one device, cut over several processes (FSDP2, Zhao et al. 2023, arXiv
2304.11277; `torch.distributed.fsdp.fully_shard`).

Each process keeps its share of every weight, gradient and moment. Blocks are gathered one after
another for a pass and let go again; embedding, head and the last norm stay whole for the length of
one. The optimizers take shards as they are: AdamW sends nothing for them, Muon in each of its
products. So every process must take part in every pass, evaluations too, in every step, and in all
that is gathered. torch's modules for it are imported only where there are several processes: tuning
comes by here too.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bantam.nets.decoder import Decoder
from bantam.train import device, ranks

A_PARAMETER = 16  # bytes: it, its gradient and two moments in float32 (of Muon's it is one)
ROOM = 0.8  # of a device's memory; the rest is for what a pass keeps


def wanted(parameters: int, processes: int) -> bool:
    """Whether so many parameters do not fit the memory that one of the processes has. Those of a
    machine share its processors' memory, but have a graphics card each."""
    where = device.pick()
    return A_PARAMETER * parameters > fits(where, 1 if where.type == "cuda" else processes)


def fits(where: torch.device, processes: int = 1) -> int:
    """The bytes that a process may fill with a model."""
    return int(ROOM * device.memory(where) / processes)


def place(decoder: Decoder, shards: bool) -> None:
    """Move a decoder to the device, if asked in shards of all processes that there are."""
    if shards and ranks.size() > 1:
        shard(decoder)
    else:
        decoder.to(device.pick())


def shard(decoder: Decoder) -> None:
    """Cut the decoder over all processes: a block at a time, so none is whole on a device."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # Nothing is done in place to what a decoder gives back.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for block in decoder.model.layers:
        fully_shard(block)
    # The head is a weight without a pass of its own: it stays gathered after `states`.
    fully_shard(decoder, reshard_after_forward=False)
    register_fsdp_forward_method(decoder, "states")


def parted(decoder: nn.Module) -> bool:
    if not ranks.there():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(decoder, FSDPModule)


def let_go(decoder: nn.Module) -> None:
    """Leave what a pass without a way back has gathered."""
    if parted(decoder):
        decoder.reshard()  # type: ignore[operator]


def parts(matrix: Tensor, rows: int) -> Tensor:
    """A matrix [n, width] as [n / rows, rows, width]. Where a part would lie in two processes, each
    gets all of it first."""
    if ranks.there():
        from torch.distributed.tensor import DTensor, Replicate

        if isinstance(matrix, DTensor) and matrix.shape[0] // rows % ranks.size():
            matrix = matrix.redistribute(placements=[Replicate()])
    return matrix.reshape(-1, rows, matrix.shape[1])


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For the first process all tensors, those of shards gathered on the CPU one after another; for
    the others nothing, but they must ask too."""
    if not ranks.there():
        return dict(tensors)
    from torch.distributed.tensor import DTensor

    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor
        if isinstance(tensor, DTensor):
            value = tensor.full_tensor().detach()
            value = value.cpu() if ranks.rank() == 0 else value
        if ranks.rank() == 0:
            found[name] = value
    return found


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor as the other one lies: on its device, and if that is in shards, this
    process's share of it. Nothing is sent."""
    value = value.to(other.device)
    if not ranks.there():
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)
