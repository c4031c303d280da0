"""What Bantam adds to its runtime: latency, cold start and memory of `run` on one core.

    python benchmarks/predict.py [MODEL]      default: runs/review-sentiment

The rival is the bare runtime (xllamacpp) in this process with the same ids, the same fixed prefix
in its cache and one token asked for; the two take turns, text by text.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import xllamacpp

import bantam
from bantam.model_files import find

ROWS = 100
TOKENS = (18, 32)  # of the text alone


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "runs/review-sentiment"
    texts = pl.read_parquet(Path(name) / "text" / "test.parquet")["input"].to_list()
    psutil.Process().cpu_affinity([0])  # ours and the rival's processes on one core
    with bantam.load(name, threads=1) as model:
        task = model.asked()
        texts = [t for t in texts if TOKENS[0] <= len(model.encode([(t, False)])) <= TOKENS[1]]
        prompts = [model.prompt(task, text) for text in texts[:ROWS]]
        bare = _bare(find(name))
        ours, theirs = [], []
        for text, prompt in zip(texts, prompts, strict=False):
            began = time.perf_counter()
            model(text)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            bare.handle_completions({"prompt": prompt, "n_predict": 1, "temperature": 0})
            theirs.append(time.perf_counter() - began)
        ours, theirs = ours[5:], theirs[5:]  # the prefix was not yet cached
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        memory = model.runtime.peak_memory_bytes
    print(f"{len(ours)} texts of {TOKENS[0]} to {TOKENS[1]} tokens, one core, one at a time")
    print(f"p50 bantam {_ms(ours)}, bare runtime {_ms(theirs)}, ratio {_spread(ratios)}")
    print(f"peak memory of the runtime's process {memory / 1e6:.0f} MB")
    cold = [_cold(name, texts[0]) for _ in range(7)]
    print(f"process start to answer (bantam run): {_spread(cold)} s")


def _bare(path: Path) -> "xllamacpp.Server":
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.verbosity = 1024, 1, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(settings)


def _cold(name: str, text: str) -> float:
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("bantam")), "run", name, text]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.1f} ms"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} (from {min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
