"""A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019), its families as data.

What Llama, Mistral, Mixtral, Phi-3, Gemma 2 and 3, Qwen2 and 3, SmolLM, OLMo 2, GPT-2 and OPT do
differently stands in `DecoderConfig`; `families` fills it in from their files.

- RMSNorm (Zhang & Sennrich 2019) or LayerNorm, before a part of a block, behind it, or both
- rotary positions (rope.py), learned ones, or none, layer by layer
- grouped-query attention (Ainslie et al. 2023), to all or to a window of tokens (Beltagy et al.
  2020), with normed queries and keys (Henry et al. 2020) or soft-capped scores (Gemma 2)
- gated (Shazeer 2020) or plain MLPs, one or a mixture of experts (Shazeer et al. 2017)

Batches are padded on the right. Attention is causal, so a real token never sees the padding that
follows it. Rows that begin alike can share their beginning: it is computed once, and every row
attends to it. All tokens go through the linear layers as one list, [start + batch * tokens, width],
the shared ones first; only attention tells them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bantam.nets.rope import Rope, angles, rotate

SHORT = 512  # tokens

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


@dataclass(frozen=True)
class Layer:
    """Where a layer looks."""

    rope: Rope | None  # None: it knows of no positions but the order that causality gives
    window: int | None  # tokens that it sees, its own among them; None: all before


@dataclass(frozen=True)
class DecoderConfig:
    vocab_size: int
    n_layers: int
    width: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    hidden_width: int  # of the MLP
    family: str = "llama"  # whose file layout it has
    context: int = 2048
    tied: bool = True  # output head shares the embedding

    rope: Rope | None = field(default_factory=Rope)  # of all layers but these:
    without_rope: tuple[int, ...] = ()
    window: int | None = None
    windowed: tuple[int, ...] = ()  # the layers that see `window` tokens
    window_rope: Rope | None = None  # of the windowed layers, where it is another
    learned_positions: int = 0  # rows of a table of positions
    position_offset: int = 0  # the row of the first position

    norm: str = "rms"  # or "layer"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0  # 1: the weights are stored as distances from 1
    norms: str = "before"  # a block's parts, or "behind" them, or "both"

    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: str | None = None  # over each "head", or over "all" of them
    query_scale: float | None = None  # None: 1 / sqrt(head_size)
    score_cap: float | None = None  # scores are cap * tanh(score / cap)

    activation: str = "silu"
    gated: bool = True
    mlp_bias: bool = False
    n_experts: int = 0  # 0: one MLP
    n_active: int = 0  # experts a token
    balance: float = 0.0  # weight of the loss that keeps experts equally busy

    embedding_scale: float = 1.0
    logit_cap: float | None = None

    def layer(self, number: int) -> Layer:
        windowed = number in self.windowed
        rope = self.window_rope if windowed and self.window_rope else self.rope
        return Layer(
            None if number in self.without_rope else rope, self.window if windowed else None
        )


@dataclass
class Past:
    """Keys and values of what one layer has read, each [batch, kv_heads, seen, head_size]."""

    keys: Tensor | None = None
    values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is not None and self.values is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


@dataclass
class Cache:
    """What a decoder remembers of what it has read."""

    layers: list[Past]
    positions: Tensor | None = None  # of the tokens read, [1 or batch, seen]

    @classmethod
    def of(cls, config: DecoderConfig) -> "Cache":
        return cls([Past() for _ in range(config.n_layers)])


@dataclass(frozen=True)
class View:
    """How a layer is to read a list of tokens: `start` shared ones, then `batch` rows of `tokens`.

    Masks are added to scores: 0 where a token is seen, else -inf.
    """

    start: int
    batch: int
    tokens: int
    start_mask: Tensor  # [1, start, start]
    mask: Tensor  # [1 or batch, tokens, seen]
    turns: tuple[Tensor, Tensor] | None  # see rope.angles


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which keys a query sees by their positions, [batch, queries] and [batch, keys] to a mask of
    truths [batch, queries, keys]; the queries are the last of the keys.

    Position 0 begins a document; tokens of another document are not seen. Padding has position -1
    and sees only padding.
    """
    document = (keys == 0).cumsum(1)
    ours = document[:, -queries.shape[1] :]
    place = torch.arange(keys.shape[1], device=keys.device)
    seen = (ours[:, :, None] == document[:, None, :]) & (
        place[-queries.shape[1] :, None] >= place[None, :]
    )
    seen = seen & ((keys >= 0)[:, None, :] == (queries >= 0)[:, :, None])
    return seen if window is None else seen & (queries[:, :, None] - keys[:, None, :] < window)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float | None
) -> Tensor:
    """Attention of q [batch, heads, tokens, size] on k and v [batch, kv_heads, seen, size]; mask
    [1 or batch, tokens, seen] is added to the scores. Gives [batch, heads, tokens, size]."""
    batch, heads, tokens, size = q.shape
    kv_heads, seen = k.shape[1], k.shape[2]
    if cap is None and (q.device.type != "cpu" or seen > SHORT):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask[:, None], scale=scale, enable_gqa=True
        )
    # PyTorch's fused CPU kernel is slower than two plain products: backwards five times on short
    # texts, twice on 400 tokens; only their memory grows with the square. The query heads that
    # share a key head are stacked along the token axis.
    shared = heads // kv_heads
    q = q.reshape(batch * kv_heads, shared * tokens, size)
    k, v = k.reshape(-1, seen, size), v.reshape(-1, seen, size)
    stacked = mask.repeat(1, shared, 1)
    if len(mask) > 1:
        stacked = stacked.repeat_interleave(kv_heads, dim=0)
    if cap is None:
        scores = torch.baddbmm(stacked, q, k.transpose(1, 2), alpha=scale)
    else:
        scores = cap * torch.tanh(q @ k.transpose(1, 2) * (scale / cap)) + stacked
    return (scores.softmax(-1).to(v.dtype) @ v).view(batch, heads, tokens, size)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + self.offset if self.offset else self.weight
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), self.eps)


class LayerNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)


def norm_of(config: DecoderConfig, width: int | None = None) -> nn.Module:
    width = width or config.width
    if config.norm == "layer":
        return LayerNorm(width, config.norm_eps)
    return RMSNorm(width, config.norm_eps, config.norm_offset)


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        c = config
        self.head_size, self.qk_norm, self.cap = c.head_size, c.qk_norm, c.score_cap
        self.scale = c.head_size**-0.5 if c.query_scale is None else c.query_scale
        self.q_proj = nn.Linear(c.width, c.n_heads * c.head_size, bias=c.qkv_bias)
        self.k_proj = nn.Linear(c.width, c.n_kv_heads * c.head_size, bias=c.qkv_bias)
        self.v_proj = nn.Linear(c.width, c.n_kv_heads * c.head_size, bias=c.qkv_bias)
        self.o_proj = nn.Linear(c.n_heads * c.head_size, c.width, bias=c.out_bias)
        if c.qk_norm:
            heads = (c.n_heads, c.n_kv_heads) if c.qk_norm == "all" else (1, 1)
            self.q_norm = norm_of(c, heads[0] * c.head_size)
            self.k_norm = norm_of(c, heads[1] * c.head_size)

    def forward(self, x: Tensor, view: View, past: Past | None = None) -> Tensor:
        split = (x.shape[0], -1, self.head_size)
        q, k = self.q_proj(x), self.k_proj(x)
        if self.qk_norm == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.view(split), k.view(split), self.v_proj(x).view(split)  # [all, heads, size]
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if view.turns is not None:
            q, k = rotate(q, *view.turns), rotate(k, *view.turns)
        rows = (view.batch, view.tokens, -1, self.head_size)
        n = view.start
        qs, ks, vs = (part[n:].view(rows).transpose(1, 2) for part in (q, k, v))
        if past is not None:
            ks, vs = past.extend(ks, vs)
        if n:
            q0, k0, v0 = (part[:n].transpose(0, 1)[None] for part in (q, k, v))
            shared = (view.batch, -1, -1, -1)
            ks = torch.cat([k0.expand(shared), ks], dim=2)  # [batch, kv_heads, n + tokens, size]
            vs = torch.cat([v0.expand(shared), vs], dim=2)
            y0 = attend(q0, k0, v0, view.start_mask, self.scale, self.cap)
            y0 = y0.transpose(1, 2).reshape(n, -1)
        y = attend(qs, ks, vs, view.mask, self.scale, self.cap)
        y = y.transpose(1, 2).reshape(x.shape[0] - n, -1)
        out: Tensor = self.o_proj(torch.cat([y0, y]) if n else y)
        return out


class MLP(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        sizes = config.width, config.hidden_width
        self.gate_proj = nn.Linear(*sizes, bias=config.mlp_bias) if config.gated else None
        self.up_proj = nn.Linear(*sizes, bias=config.mlp_bias)
        self.down_proj = nn.Linear(*sizes[::-1], bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_proj is None:
            y: Tensor = self.down_proj(self.activation(self.up_proj(x)))
        else:
            y = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return y


class Experts(nn.Module):
    """A mixture of MLPs (Shazeer et al. 2017; Jiang et al. 2024, arXiv 2401.04088): each token goes
    through the `n_active` that the router gives most, weighed by what it gives them."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.n_active = config.n_active
        self.router = nn.Linear(config.width, config.n_experts, bias=False)
        self.experts = nn.ModuleList(MLP(config) for _ in range(config.n_experts))
        self.given = torch.empty(0)  # what the router gave last, [tokens, n_experts]

    def forward(self, x: Tensor) -> Tensor:
        self.given = self.router(x).float().softmax(-1)
        shares, chosen = self.given.topk(self.n_active)  # [tokens, n_active]
        shares = (shares / shares.sum(-1, keepdim=True)).to(x.dtype)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, rank = (chosen == number).nonzero(as_tuple=True)
            y = y.index_add(0, token, (expert(x[token]) * shares[token, rank, None]).to(y.dtype))
        return y


class Block(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        before, behind = config.norms != "behind", config.norms != "before"
        self.attn_norm = norm_of(config) if before else nn.Identity()
        self.attn = Attention(config)
        self.attn_post_norm = norm_of(config) if behind else nn.Identity()
        self.mlp_norm = norm_of(config) if before else nn.Identity()
        self.mlp = Experts(config) if config.n_experts else MLP(config)
        self.mlp_post_norm = norm_of(config) if behind else nn.Identity()

    def forward(self, x: Tensor, view: View, past: Past | None = None) -> Tensor:
        x = x + self.attn_post_norm(self.attn(self.attn_norm(x), view, past))
        y: Tensor = x + self.mlp_post_norm(self.mlp(self.mlp_norm(x)))
        return y


class Body(nn.Module):
    """Everything below the output head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # blocks backwards, instead of keeping what they made
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        if config.learned_positions:
            self.embed_positions = nn.Embedding(config.learned_positions, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = norm_of(config)

    def forward(
        self, ids: Tensor, start: Tensor | None, positions: Tensor | None, cache: Cache | None
    ) -> Tensor:
        n, (batch, tokens) = 0 if start is None else len(start), ids.shape
        every = ids.flatten() if start is None else torch.cat([start, ids.flatten()])
        if positions is None:
            before = 0 if cache is None or cache.positions is None else cache.positions.shape[1]
            positions = torch.arange(before, before + n + tokens, device=ids.device)[None]
        flat = positions[0] if len(positions) == 1 else positions.flatten()
        if len(positions) == 1:
            flat = torch.cat([flat[:n], flat[n:].repeat(batch)])
        flat = flat.clamp(min=0)  # [n + batch * tokens]
        x = self.embed_tokens(every)  # [n + batch * tokens, width]
        if self.config.embedding_scale != 1:
            x = x * self.config.embedding_scale
        if self.config.learned_positions:
            x = x + self.embed_positions(flat + self.config.position_offset)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        dtype = x.dtype  # CUDA's autocast has norms give float32, whatever they are given
        seen = positions
        if cache is not None:
            if cache.positions is not None:
                old = cache.positions.expand(max(len(cache.positions), len(seen)), -1)
                seen = torch.cat([old, seen.expand(len(old), -1)], dim=1)
            cache.positions = seen
        views: dict[Layer, View] = {}
        for number, block in enumerate(self.layers):
            layer = self.config.layer(number)
            if layer not in views:
                views[layer] = self.view(layer, n, batch, tokens, flat, seen, dtype)
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, views[layer], use_reentrant=False)
            else:
                x = block(x, views[layer], None if cache is None else cache.layers[number])
        states: Tensor = self.norm(x[n:]).to(dtype)
        return states.view(batch, tokens, -1)

    def view(
        self,
        layer: Layer,
        n: int,
        batch: int,
        tokens: int,
        flat: Tensor,
        seen: Tensor,
        dtype: torch.dtype,
    ) -> View:
        """`flat` are the positions of all tokens in the list, `seen` those of what rows attend to,
        [1 or batch, seen], the tokens themselves last."""
        mask = torch.zeros((), dtype=dtype, device=seen.device).masked_fill(
            ~visible(seen[:, -(n + tokens) :], seen, layer.window), -torch.inf
        )  # [1 or batch, n + tokens, seen]
        turns = None
        if layer.rope is not None:
            longest = int(seen.max()) + 1 if layer.rope.kind == "longrope" else seen.shape[1]
            turns = angles(layer.rope, flat, self.config.head_size, longest, dtype)
        return View(n, batch, tokens, mask[:, :n, :n], mask[:, n:], turns)


class Decoder(nn.Module):
    """ids [batch, tokens] to logits [batch, tokens, vocabulary]; `states` stops before the head.

    With `start` [tokens], ids are what follows it in every row. With `cache`, they are what follows
    what was read into it. `positions` [batch, tokens] tell of documents packed into a row (each
    begins with 0; none sees another) and of padding (-1); else tokens are counted.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def states(
        self,
        ids: Tensor,
        start: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, [batch, tokens, width]."""
        states: Tensor = self.model(ids, start, positions, cache)
        return states

    def logits(self, states: Tensor, candidates: list[int] | None = None) -> Tensor:
        """states [..., width] to logits [..., candidates], or of the vocabulary; in float32.

        Under autocast too: in bfloat16 a logit of 10 is only known to 0.06.
        """
        head = self.lm_head.weight if candidates is None else self.lm_head.weight[candidates]
        with torch.autocast(states.device.type, enabled=False):
            logits = states.float() @ head.float().t()
            cap = self.config.logit_cap
            return logits if cap is None else cap * torch.tanh(logits / cap)

    def forward(
        self,
        ids: Tensor,
        start: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        return self.logits(self.states(ids, start, positions, cache))


def balance_loss(decoder: Decoder, real: Tensor) -> Tensor:
    """How unequally the experts were busy in the last pass (Fedus et al. 2021, arXiv 2101.03961,
    eq. 4, over all layers together): `n_active` when all were equally, more when not.

    `real` [start + batch * tokens] is false for padding: who is busy with it does not matter.
    """
    c = decoder.config
    experts = [part for part in decoder.modules() if isinstance(part, Experts)]
    given = torch.cat([part.given[real] for part in experts])  # [all, n_experts]
    chosen = F.one_hot(given.topk(c.n_active).indices, c.n_experts).float().sum(1)
    return c.n_experts * (chosen.mean(0) * given.mean(0)).sum()
