"""What a step of tuning takes for a random model of about a billion parameters of each big family.

    python benchmarks/families.py                        all, on every core
    python benchmarks/families.py --only gemma3_text --threads 1

Each is written as a Hugging Face folder in bfloat16, read as a base is read, and tuned with LoRA
for a few steps of 8 texts of 64 tokens, in a process of its own. Peak memory is that of the whole
process, reading included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Shapes of about 1B parameters, after Llama 3.2 1B, Phi-3, Mixtral, Gemma 3 1B and Qwen3.
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        **{"vocab_size": 128256, "n_layers": 16, "width": 2048, "n_heads": 32, "n_kv_heads": 8},
        **{"head_size": 64, "hidden_width": 8192},
    },
    "phi3": {
        **{"vocab_size": 32064, "n_layers": 20, "width": 2048, "n_heads": 32, "n_kv_heads": 32},
        **{"head_size": 64, "hidden_width": 5632, "tied": False},
    },
    "mixtral": {
        **{"vocab_size": 32000, "n_layers": 12, "width": 1024, "n_heads": 16, "n_kv_heads": 4},
        **{"head_size": 64, "hidden_width": 3584, "n_experts": 8, "n_active": 2, "balance": 0.001},
    },
    "gemma3_text": {
        **{"vocab_size": 262144, "n_layers": 26, "width": 1152, "n_heads": 4, "n_kv_heads": 1},
        **{"head_size": 256, "hidden_width": 6912, "window": 512},
        **{"windowed": tuple(i for i in range(26) if (i + 1) % 6), "query_scale": 256**-0.5},
        **{"norms": "both", "norm_offset": 1.0, "qk_norm": "head", "activation": "gelu_tanh"},
        **{"embedding_scale": 1152**0.5},
    },
    "qwen3": {
        **{"vocab_size": 151936, "n_layers": 20, "width": 1536, "n_heads": 16, "n_kv_heads": 8},
        **{"head_size": 128, "hidden_width": 6144, "qk_norm": "head"},
    },
}
ROWS, TOKENS, STEPS = 8, 64, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SHAPES)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.child:
        print(json.dumps(measured(Path(wanted.child), wanted.threads)))
        return
    print("| family | parameters | reading, s | s a step | tokens/s | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    for family in [wanted.only] if wanted.only else SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            made(family, Path(folder))
            again = ["--child", folder, "--threads", str(wanted.threads)]
            told = subprocess.run(
                [sys.executable, __file__, *again], check=True, stdout=subprocess.PIPE, text=True
            )
        r = json.loads(told.stdout.splitlines()[-1])
        print(
            f"| {family} | {r['parameters'] / 1e9:.2f}B | {r['reading']:.0f} | {r['step']:.1f} "
            f"| {ROWS * TOKENS / r['step']:.0f} | {r['peak'] / 1e9:.1f} |",
            flush=True,
        )


def made(family: str, folder: Path) -> None:
    """Write a random model of the family."""
    import torch

    from bantam.nets import hf_config, load, names
    from bantam.nets.decoder import Decoder, DecoderConfig

    config = DecoderConfig(family=family, **SHAPES[family])
    with torch.device("meta"):
        shapes = load.shapes_of(Decoder(config))
    torch.manual_seed(0)

    def random(name: str) -> torch.Tensor:
        shape = shapes[name]
        return torch.randn(shape, dtype=torch.bfloat16) * shape[-1] ** -0.5

    stored = names.hugging_face(config, shapes)
    load.write_tensors({each.name: each.join(random) for each in stored}, folder / "m.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config.write(config)), "utf-8")


def measured(folder: Path, threads: int) -> dict[str, float]:
    """Read the model and take a few steps with it."""
    import torch

    from bantam.kinds import Answer, Example
    from bantam.nets import load
    from bantam.train import loop
    from bantam.train.plan import Plan

    torch.set_num_threads(threads)
    began = time.perf_counter()
    decoder = load.load(folder)
    reading = time.perf_counter() - began
    parameters = sum(weight.numel() for weight in decoder.parameters())
    plan = Plan("lora", "bfloat16", threads, STEPS, ROWS, 1e-4, 1, STEPS, 0)
    loop.prepare(decoder, plan)
    step = loop.step_of(decoder, plan, loop.optimizer_of(decoder, plan))
    ids = torch.randint(5, 30_000, (ROWS, TOKENS)).tolist()
    batch = [Example(row, [Answer(TOKENS - 1, (5, 6, 7), 1)]) for row in ids]
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step(batch, [], 1e-4)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"parameters": parameters, "reading": reading, "step": min(seconds), "peak": peak}


if __name__ == "__main__":
    main()
