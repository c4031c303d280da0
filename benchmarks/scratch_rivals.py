"""The rivals of benchmarks/scratch.py, as their experts would set them up on a CPU.

Trainer learns packed blocks, as transformers' own example of language modelling makes them:
documents joined, an end token between, cut to the context. In bfloat16 by autocast where that is
quicker, AdamW fused, betas and weight decay as is usual for pretraining, warm-up and a schedule to
zero; no worker processes (the data lies in memory), nothing evaluated, saved or logged.

The loop is that of most tutorials: GPT-2's decoder in plain PyTorch, random places of the tokens,
AdamW, warm-up and cosine, autocast, gradients clipped; compiled if that is quicker.
"""

import math
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bantam.nets.decoder import DecoderConfig

Ids = npt.NDArray[np.integer[Any]]
AfterStep = Callable[[int, nn.Module], bool]  # steps done and the model: whether to stop

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
WARMUP = 0.05  # of the steps
FLOOR = 0.1  # of the learning rate, where the loop's cosine ends


class Settings(NamedTuple):
    """What both rivals are told."""

    steps: int
    rows: int  # forward and backward at a time
    batches: int  # of so many rows a step
    context: int
    rate: float
    seed: int
    bfloat16: bool  # where float32 is slower
    schedule: str = "cosine"
    way: str = "sdpa"


class AsDecoder:
    """A rival's model with what a judge asks of a decoder, so that one rule judges all."""

    def __init__(self, model: Any, context: int) -> None:
        self.body, self.lm_head = model.model, model.lm_head
        self.config = SimpleNamespace(context=context, vocab_size=len(model.lm_head.weight))

    def states(
        self, ids: Tensor, start: None = None, positions: None = None, cache: None = None
    ) -> Tensor:
        assert start is None and positions is None and cache is None
        states: Tensor = self.body(input_ids=ids, use_cache=False).last_hidden_state
        return states

    def logits(self, states: Tensor, candidates: None = None) -> Tensor:
        assert candidates is None
        with torch.autocast(states.device.type, enabled=False):  # as ours
            return states.float() @ self.lm_head.weight.float().t()


# Hugging Face's Trainer


class Blocks(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Tokens cut to blocks of the context."""

    def __init__(self, ids: Ids, context: int) -> None:
        self.ids, self.context = ids, context

    def __len__(self) -> int:
        return len(self.ids) // self.context

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        block = self.ids[at * self.context : (at + 1) * self.context].astype(np.int64)
        row = torch.from_numpy(block)
        return {"input_ids": row, "labels": row}  # the model shifts them


def llama(config: DecoderConfig, seed: int, attention: str) -> Any:
    """A new model of transformers in the shape of a decoder of ours."""
    import transformers

    transformers.set_seed(seed)
    assert config.rope is not None
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(  # type: ignore[call-arg]  # it takes what is told of attention too
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.hidden_width,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_size,
            max_position_embeddings=config.context,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope.theta},
            tie_word_embeddings=config.tied,
            attn_implementation=attention,
        )
    )


def train_trainer(
    ids: Ids, config: DecoderConfig, wanted: Settings, folder: Path, after_step: AfterStep
) -> nn.Module:
    import transformers

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if after_step(state.global_step, model):
                control.should_training_stop = True

    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    attention, _, compiled = wanted.way.partition(", ")
    model = llama(config, wanted.seed, attention)
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(folder),  # nothing is written
            use_cpu=True,
            bf16=wanted.bfloat16,
            torch_compile=bool(compiled),
            max_steps=wanted.steps,
            per_device_train_batch_size=wanted.rows,
            gradient_accumulation_steps=wanted.batches,
            optim="adamw_torch_fused",
            learning_rate=wanted.rate,
            lr_scheduler_type=wanted.schedule,
            warmup_steps=warmup(wanted),
            weight_decay=WEIGHT_DECAY,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            max_grad_norm=CLIP,
            seed=wanted.seed,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Blocks(ids, wanted.context),
        callbacks=[Watch()],
    )
    trainer.train()
    return model


# The loop of most tutorials


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Body(nn.Module):
    def __init__(self, config: DecoderConfig, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.places = nn.Embedding(config.context, config.width)
        self.layers = nn.ModuleList(Block(config.width, config.n_heads) for _ in range(layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        x = self.tokens(input_ids) + self.places.weight[: input_ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return SimpleNamespace(last_hidden_state=self.norm(x))


class GPT2(nn.Module):
    """GPT-2's decoder with about as many weights as one of ours; its head is its embedding."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        c = config
        own = c.width * (2 * c.n_heads + 2 * c.n_kv_heads) * c.head_size
        own += 3 * c.width * c.hidden_width
        layers = max(1, round(c.n_layers * own / (12 * c.width**2)))
        self.model = Body(config, layers)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.lm_head.weight = self.model.tokens.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if deep else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(self.model(ids).last_hidden_state)
        return logits


def train_loop(
    ids: Ids, config: DecoderConfig, wanted: Settings, after_step: AfterStep
) -> nn.Module:
    torch.manual_seed(wanted.seed)
    draw = random.Random(wanted.seed)
    model = GPT2(config)
    forward = torch.compile(model) if wanted.way == "compiled" else model
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=wanted.rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    for step in range(wanted.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, wanted)
        optimizer.zero_grad(set_to_none=True)
        for _ in range(wanted.batches):
            places = [draw.randrange(len(ids) - wanted.context) for _ in range(wanted.rows)]
            rows = np.stack([ids[at : at + wanted.context + 1] for at in places]).astype(np.int64)
            batch = torch.from_numpy(rows)
            with torch.autocast("cpu", torch.bfloat16, enabled=wanted.bfloat16):
                logits = forward(batch[:, :-1])
                loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            (loss / wanted.batches).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        if after_step(step + 1, model):
            break
    return model


def warmup(wanted: Settings) -> int:
    return max(1, round(WARMUP * wanted.steps))


def rate_at(step: int, wanted: Settings) -> float:
    """Linear warm-up, then a cosine to a tenth; steps count from 0."""
    first = warmup(wanted)
    if step < first:
        return wanted.rate * (step + 1) / first
    way = (step - first) / max(1, wanted.steps - first)
    return wanted.rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * way)))
