"""A decoder-only transformer of the Llama shape (Touvron et al. 2023, arXiv 2302.13971).

Pre-norm residual blocks; RMSNorm (Zhang & Sennrich 2019), rotary positions (Su et al. 2021),
grouped-query attention (Ainslie et al. 2023), SwiGLU (Shazeer 2020), tied or untied embeddings.
Attribute names mirror Hugging Face's weight names, so that loading and saving need no table.

Batches are padded on the right. Attention is causal, so a real token never sees the padding that
follows it, and no attention mask is needed. Rows that begin alike can share their beginning: it is
computed once, and every row attends to it. All tokens go through the linear layers as one list,
[start + batch * tokens, width], the shared ones first; only attention tells them apart.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT = 256  # tokens


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


@dataclass(frozen=True)
class Layout:
    """How a list of tokens is to be read: `start` shared ones, then `batch` rows of `tokens`."""

    start: int
    batch: int
    tokens: int
    cos: Tensor  # of the rotation angles, [start + batch * tokens, 1, head_size]
    sin: Tensor


def rotary(
    positions: Tensor, head_size: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation angles, each [tokens, 1, head_size], made in float32.

    The first half of the sines is negative, as `rotate` wants them.
    """
    exponent = torch.arange(0, head_size, 2, device=positions.device).float() / head_size
    angles = positions.float()[:, None, None] * theta**-exponent  # [tokens, 1, head_size / 2]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [tokens, heads, head_size]; the two halves of a head are the pairs that turn."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last tokens on all: q and y [batch, heads, tokens, size], k and v
    [batch, kv_heads, start + tokens, size]."""
    batch, heads, tokens, size = q.shape
    kv_heads, seen = k.shape[1], k.shape[2]
    future = torch.full((tokens, seen), -torch.inf, device=q.device, dtype=q.dtype)
    future = future.triu(seen - tokens + 1)
    if q.device.type != "cpu" or seen > SHORT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=future, enable_gqa=True)
    # PyTorch's fused CPU kernel is about five times slower backwards on short texts than two
    # plain products. The query heads that share a key head are stacked along the token axis.
    shared = heads // kv_heads
    q = q.reshape(batch * kv_heads, shared * tokens, size)
    k, v = k.reshape(-1, seen, size), v.reshape(-1, seen, size)
    scores = torch.baddbmm(future.repeat(shared, 1), q, k.transpose(1, 2), alpha=size**-0.5)
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

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        split = (x.shape[0], -1, self.head_size)
        q = rotate(self.q_proj(x).view(split), layout.cos, layout.sin)  # [all, heads, head_size]
        k = rotate(self.k_proj(x).view(split), layout.cos, layout.sin)
        v = self.v_proj(x).view(split)
        rows = (layout.batch, layout.tokens, -1, self.head_size)
        n = layout.start
        qs, ks, vs = (part[n:].view(rows).transpose(1, 2) for part in (q, k, v))
        if n:
            q0, k0, v0 = (part[:n].transpose(0, 1)[None] for part in (q, k, v))
            shared = (layout.batch, -1, -1, -1)
            ks = torch.cat([k0.expand(shared), ks], dim=2)  # [batch, kv_heads, n + tokens, size]
            vs = torch.cat([v0.expand(shared), vs], dim=2)
            y0 = attend(q0, k0, v0).transpose(1, 2).reshape(n, -1)
        y = attend(qs, ks, vs).transpose(1, 2).reshape(x.shape[0] - n, -1)
        out: Tensor = self.o_proj(torch.cat([y0, y]) if n else y)
        return out


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

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), layout)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Body(nn.Module):
    """Everything below the output head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, ids: Tensor, start: Tensor | None) -> Tensor:
        n, (batch, tokens) = 0 if start is None else len(start), ids.shape
        every = ids.flatten() if start is None else torch.cat([start, ids.flatten()])
        x = self.embed_tokens(every)  # [n + batch * tokens, width]
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        places = torch.arange(n + tokens, device=ids.device)
        positions = torch.cat([places[:n], places[n:].repeat(batch)])
        turned = rotary(positions, self.config.head_size, self.config.rope_theta, x.dtype)
        layout = Layout(n, batch, tokens, *turned)
        for layer in self.layers:
            x = layer(x, layout)
        states: Tensor = self.norm(x[n:])
        return states.view(batch, tokens, -1)


class Decoder(nn.Module):
    """ids [batch, tokens] to logits [batch, tokens, vocabulary]; `states` stops before the head.

    With `start` [tokens], ids are what follows it in every row.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def states(self, ids: Tensor, start: Tensor | None = None) -> Tensor:
        """Hidden states after the final norm, [batch, tokens, width]."""
        states: Tensor = self.model(ids, start)
        return states

    def forward(self, ids: Tensor, start: Tensor | None = None) -> Tensor:
        logits: Tensor = self.lm_head(self.states(ids, start))
        return logits
