"""A decoder-only transformer of the Llama shape (Touvron et al. 2023, arXiv 2302.13971).

Pre-norm residual blocks; RMSNorm (Zhang & Sennrich 2019), rotary positions (Su et al. 2021),
grouped-query attention (Ainslie et al. 2023), SwiGLU (Shazeer 2020), tied or untied embeddings.
Attribute names mirror Hugging Face's weight names, so that loading and saving need no table.

Batches are padded on the right. Attention is causal, so a real token never sees the padding that
follows it, and no attention mask is needed. Rows that begin alike can share their beginning: its
keys and values are computed once (`past`) and every row attends to them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT = 256  # tokens

# Keys and values of each layer for tokens that came before, each [batch, kv_heads, tokens, size].
Past = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DecoderConfig:
    vocab_size: int
    n_layers: int
    width: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    hidden_width: int  # of the SwiGLU
    context: int = 2048
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = True  # output head shares the embedding


def rotary(
    positions: Tensor, head_size: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation angles, each [tokens, head_size], computed in float32."""
    exponent = torch.arange(0, head_size, 2, device=positions.device).float() / head_size
    angles = positions.float()[:, None] * theta**-exponent  # [tokens, head_size / 2]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [batch, heads, tokens, head_size]; the two halves of a head are the pairs that turn."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last tokens on all: q and y [batch, heads, tokens, size], k and v
    [batch, kv_heads, past + tokens, size]."""
    batch, heads, tokens, size = q.shape
    kv_heads, seen = k.shape[1], k.shape[2]
    future = torch.full((tokens, seen), -torch.inf, device=q.device, dtype=q.dtype)
    future = future.triu(seen - tokens + 1)
    if q.device.type != "cpu" or seen > SHORT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=future, enable_gqa=True)
    # PyTorch's fused CPU kernel is about five times slower backwards on short texts than two
    # plain products. The query heads that share a key head are stacked along the token axis.
    shared = heads // kv_heads
    q = (q * size**-0.5).reshape(batch * kv_heads, shared * tokens, size)
    k, v = k.reshape(-1, seen, size), v.reshape(-1, seen, size)
    scores = torch.baddbmm(future.repeat(shared, 1), q, k.transpose(1, 2))
    return (scores.softmax(-1).to(v.dtype) @ v).view(batch, heads, tokens, size)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        self.head_size = config.head_size
        self.q_proj = nn.Linear(config.width, self.n_heads * self.head_size, bias=False)
        self.k_proj = nn.Linear(config.width, self.n_kv_heads * self.head_size, bias=False)
        self.v_proj = nn.Linear(config.width, self.n_kv_heads * self.head_size, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_size, config.width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, tokens, _ = x.shape
        split = (batch, tokens, -1, self.head_size)
        q = self.q_proj(x).view(split).transpose(1, 2)  # [batch, heads, tokens, head_size]
        k = self.k_proj(x).view(split).transpose(1, 2)
        v = self.v_proj(x).view(split).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            before = (batch, -1, -1, -1)
            k = torch.cat([past[0].expand(before), k], dim=2)
            v = torch.cat([past[1].expand(before), v], dim=2)
        y = attend(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)
        out: Tensor = self.o_proj(y)
        return out, (k, v)


class MLP(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.hidden_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.hidden_width, bias=False)
        self.down_proj = nn.Linear(config.hidden_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Block(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, present = self.self_attn(self.input_layernorm(x), cos, sin, past)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Body(nn.Module):
    """Everything below the output head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, ids: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        x = self.embed_tokens(ids)  # [batch, tokens, width]
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        start = past[0][0].shape[2] if past else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        cos, sin = rotary(positions, self.config.head_size, self.config.rope_theta, x.dtype)
        present: Past = []
        for number, layer in enumerate(self.layers):
            x, keys_values = layer(x, cos, sin, past[number] if past else None)
            present.append(keys_values)
        return self.norm(x), present


class Decoder(nn.Module):
    """ids [batch, tokens] to logits [batch, tokens, vocabulary]; `states` stops before the head.

    With `past`, ids are the tokens that follow it.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def states(self, ids: Tensor, past: Past | None = None) -> Tensor:
        """Hidden states after the final norm, [batch, tokens, width]."""
        states: Tensor = self.model(ids, past)[0]
        return states

    def past(self, ids: Tensor) -> Past:
        """What later tokens see of `ids` [1, tokens]: pass it on as `past`."""
        present: Past = self.model(ids)[1]
        return present

    def forward(self, ids: Tensor, past: Past | None = None) -> Tensor:
        logits: Tensor = self.lm_head(self.states(ids, past))
        return logits
