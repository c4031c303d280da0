"""What files call the tensors of a decoder, and how they hold them.

A table maps the name of a module in a file to ours; several of ours are one tensor there, one after
the other. `{}` is the number of a block, `{e}` that of an expert.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bantam.nets.decoder import DecoderConfig

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Stored:
    """A tensor of a file."""

    name: str
    parts: tuple[str, ...]  # names of ours
    stacked: bool = False  # the parts along a new first axis
    transposed: bool = False
    heads: tuple[int, ...] = ()  # of each part, whose rows are interleaved head by head
    offset: float = 0.0  # what is added to ours

    def join(self, ours: Callable[[str], Tensor]) -> Tensor:
        """The file's tensor, made of ours."""
        tensors = [ours(part) for part in self.parts]
        for place, heads in enumerate(self.heads):
            tensors[place] = pair_neighbours(tensors[place], heads)
        if self.offset:
            tensors = [tensor + self.offset for tensor in tensors]
        if self.stacked:
            return torch.stack(tensors)
        whole = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        return whole.t() if self.transposed else whole

    def split(self, tensor: Tensor, shapes: Shapes) -> dict[str, Tensor]:
        """Ours, from the file's tensor."""
        if self.transposed:
            tensor = tensor.t()
        if self.stacked:
            tensors = list(tensor.unbind())
        elif len(self.parts) == 1:
            tensors = [tensor]
        else:
            tensors = list(torch.split(tensor, [shapes[part][0] for part in self.parts]))
        for place, heads in enumerate(self.heads):
            tensors[place] = pair_halves(tensors[place], heads)
        if self.offset:
            tensors = [tensor - self.offset for tensor in tensors]
        return {part: t.contiguous() for part, t in zip(self.parts, tensors, strict=True)}


def pair_halves(weight: Tensor, n_heads: int) -> Tensor:
    """Undo GGUF's order of query and key rows.

    For some families llama.cpp turns neighbouring rows of a head as a pair, we (as Hugging Face)
    turn row i with row i + head_size / 2, so its files hold the rows of each head interleaved.
    """
    rows = weight.shape[0]
    split = weight.reshape(n_heads, rows // n_heads // 2, 2, *weight.shape[1:])
    return split.transpose(1, 2).reshape(weight.shape)


def pair_neighbours(weight: Tensor, n_heads: int) -> Tensor:
    """The inverse of `pair_halves`, for writing."""
    rows = weight.shape[0]
    split = weight.reshape(n_heads, 2, rows // n_heads // 2, *weight.shape[1:])
    return split.transpose(1, 2).reshape(weight.shape)


_OUTER = {"model.embed_tokens": "model.embed_tokens", "model.norm": "model.norm"}
_HEAD = {"lm_head": "lm_head"}
_ATTENTION = {f"self_attn.{part}": f"attn.{part}" for part in ("q_proj", "k_proj", "v_proj")}
_QK_NORM = {f"self_attn.{part}": f"attn.{part}" for part in ("q_norm", "k_norm")}
_OUT = {"self_attn.o_proj": "attn.o_proj"}
_MLP = {f"mlp.{part}": f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")}
_BEFORE = {"input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm"}
_BEHIND = {
    "post_attention_layernorm": "attn_post_norm",
    "post_feedforward_layernorm": "mlp_post_norm",
}
_BOTH = {"input_layernorm": "attn_norm", "pre_feedforward_layernorm": "mlp_norm", **_BEHIND}
_QKV = "attn.q_proj attn.k_proj attn.v_proj"


@dataclass(frozen=True)
class Table:
    """The modules of a file that has this form."""

    outer: dict[str, str]
    prefix: str  # of a block's modules
    block: dict[str, str]
    transposed: tuple[str, ...] = ()  # modules whose weights are [in, out]


def _llama(*parts: dict[str, str]) -> Table:
    block: dict[str, str] = {}
    for part in parts:
        block |= part
    return Table(_OUTER | _HEAD, "model.layers.{}.", block)


_PLAIN = _llama(_ATTENTION, _OUT, _QK_NORM, _MLP, _BEFORE)
_GEMMA = _llama(_ATTENTION, _OUT, _QK_NORM, _MLP, _BOTH)
_GPT2 = {
    "ln_1": "attn_norm",
    "attn.c_attn": _QKV,
    "attn.c_proj": "attn.o_proj",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_OPT = _ATTENTION | {
    "self_attn.out_proj": "attn.o_proj",
    "self_attn_layer_norm": "attn_norm",
    "fc1": "mlp.up_proj",
    "fc2": "mlp.down_proj",
    "final_layer_norm": "mlp_norm",
}
_EXPERTS = {
    "block_sparse_moe.gate": "mlp.router",
    "block_sparse_moe.experts.{e}.w1": "mlp.experts.{e}.gate_proj",
    "block_sparse_moe.experts.{e}.w2": "mlp.experts.{e}.down_proj",
    "block_sparse_moe.experts.{e}.w3": "mlp.experts.{e}.up_proj",
}
_FUSED = {
    "self_attn.qkv_proj": _QKV,
    "mlp.gate_up_proj": "mlp.gate_proj mlp.up_proj",
    "mlp.down_proj": "mlp.down_proj",
}

HUGGING_FACE = {
    "llama": _PLAIN,
    "mistral": _PLAIN,
    "mixtral": _llama(_ATTENTION, _OUT, _BEFORE, _EXPERTS),
    "phi3": _llama(_OUT, _BEFORE, _FUSED),
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "smollm3": _PLAIN,
    "olmo2": _llama(_ATTENTION, _OUT, _QK_NORM, _MLP, _BEHIND),
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": Table(
        {
            "transformer.wte": "model.embed_tokens",
            "transformer.wpe": "model.embed_positions",
            "transformer.ln_f": "model.norm",
            **_HEAD,
        },
        "transformer.h.{}.",
        _GPT2,
        transposed=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    ),
    "opt": Table(
        {
            "model.decoder.embed_tokens": "model.embed_tokens",
            "model.decoder.embed_positions": "model.embed_positions",
            "model.decoder.final_layer_norm": "model.norm",
            **_HEAD,
        },
        "model.decoder.layers.{}.",
        _OPT,
    ),
}

_GGUF_OUTER = {
    "token_embd": "model.embed_tokens",
    "position_embd": "model.embed_positions",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_GGUF_BLOCK = {
    "attn_norm": "attn_norm",
    "attn_q": "attn.q_proj",
    "attn_k": "attn.k_proj",
    "attn_v": "attn.v_proj",
    "attn_q_norm": "attn.q_norm",
    "attn_k_norm": "attn.k_norm",
    "attn_output": "attn.o_proj",
    "post_attention_norm": "attn_post_norm",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "mlp_post_norm",
    "ffn_gate_inp": "mlp.router",
    "ffn_gate_exps": "mlp.experts.*.gate_proj",
    "ffn_up_exps": "mlp.experts.*.up_proj",
    "ffn_down_exps": "mlp.experts.*.down_proj",
}
_GGUF_FUSED = {"phi3": {"attn_qkv": _QKV, "ffn_up": "mlp.gate_proj mlp.up_proj"}}
_GGUF_FUSED["gpt2"] = {"attn_qkv": _QKV}
_NEIGHBOURS = ("llama", "mistral", "mixtral", "smollm3")  # which interleave the rows of heads


def hugging_face(config: DecoderConfig, shapes: Shapes) -> list[Stored]:
    """The tensors of a Hugging Face file of a decoder whose own tensors have these shapes."""
    return list(_expanded(HUGGING_FACE[config.family], config, shapes))


def usual(name: str, family: str) -> str | None:
    """What a file's tensor is called today; None for one that is computed and not learned."""
    if name.endswith((".rotary_emb.inv_freq", ".attn.masked_bias")):
        return None
    if family == "gpt2":
        if name.endswith(".attn.bias"):  # a mask; the projections are attn.c_attn and attn.c_proj
            return None
        return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
    return f"model.{name}" if family == "opt" and name.startswith("decoder.") else name


def gguf(config: DecoderConfig, shapes: Shapes) -> list[Stored]:
    """The tensors of a GGUF file of a decoder whose own tensors have these shapes."""
    table = Table(_GGUF_OUTER, "blk.{}.", _GGUF_BLOCK | _GGUF_FUSED.get(config.family, {}))
    heads = {"q_proj": config.n_heads, "k_proj": config.n_kv_heads}
    found = []
    for stored in _expanded(table, config, shapes):
        module = stored.parts[0].split(".")[-2]
        if config.family in _NEIGHBOURS and module in heads:
            stored = Stored(stored.name, stored.parts, heads=(heads[module],))
        elif config.norm_offset and module.endswith("norm"):
            stored = Stored(stored.name, stored.parts, offset=config.norm_offset)
        found.append(stored)
    return found


def _expanded(table: Table, config: DecoderConfig, shapes: Shapes) -> Iterator[Stored]:
    """What the table says of this decoder; a fused tensor takes the place of its parts."""
    modules = dict(table.outer)
    for number in range(config.n_layers):
        for theirs, ours in table.block.items():
            prefix = f"model.layers.{number}."
            each = range(config.n_experts) if "{e}" in theirs else (0,)
            if "*" in ours:
                experts = (ours.replace("*", str(e)) for e in range(config.n_experts))
                ours = " ".join(experts)
            for e in each:
                name = table.prefix.format(number) + theirs.replace("{e}", str(e))
                modules[name] = " ".join(
                    prefix + part.replace("{e}", str(e)) for part in ours.split()
                )
    taken: set[str] = set()
    # Fused ones first: llama.cpp's table names their parts too.
    for theirs, ours in sorted(modules.items(), key=lambda item: -len(item[1].split())):
        stacked = ".experts." in ours and "{e}" not in theirs and " " in ours
        for suffix in ("weight", "bias"):
            parts = tuple(f"{part}.{suffix}" for part in ours.split())
            if not parts or not shapes.keys() >= set(parts) or taken & set(parts):
                continue
            taken |= set(parts)
            turned = suffix == "weight" and theirs.endswith(table.transposed or ("\0",))
            yield Stored(f"{theirs}.{suffix}", parts, stacked=stacked, transposed=turned)
    assert taken == shapes.keys(), shapes.keys() - taken
