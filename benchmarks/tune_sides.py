"""One run of benchmarks/tune.py, in a process of its own: a wish as JSON in, what came out as JSON.

The rival is set up as its expert would: adapters on all linear layers, loss at the answer only and
logits only there, batches of like length padded no further than needed, bfloat16, fused AdamW, no
checkpoints. Texts are padded on the right, so that no attention mask is needed and PyTorch takes
its quickest path.
"""

import json
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bantam import pipeline, recipe, sources
from bantam.kinds import Example
from bantam.nets import decoder as nets
from bantam.nets import load
from bantam.nets.choose import pad, shared_start
from bantam.nets.decoder import Decoder
from bantam.train import budget, device, loop, stage, validation
from bantam.train.order import batches
from bantam.train.plan import Plan
from tune import FOLDER, Mark, Run, curve_of

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "review-sentiment" / "recipe.toml"
BASE = FOLDER / "base"
TRIAL_STEPS = 6  # the first is not counted
WAYS = {  # how the rival can compute: weights, autocast, attention
    f"{weights}{' autocast' * autocast} {attention}": (weights, autocast, attention)
    for weights, autocast in (("bfloat16", False), ("bfloat16", True), ("float32", True))
    for attention in ("sdpa", "eager")
}


def job() -> pipeline.Job:
    """The demo's recipe, as far as tuning goes."""
    made = recipe.load(RECIPE)
    names = (made.base.model, *made.data.examples)
    found = {name: sources.resolve(name, relative_to=RECIPE.parent) for name in names}
    return pipeline.Job(made, FOLDER, found)


def data(_: Run) -> Run:
    """Split the rows and write the base as a Hugging Face folder, once."""
    demo = job()
    pipeline._text(demo)
    if not (BASE / "tokenizer.json").exists():  # written last
        load.save(load.load(demo.base), BASE, demo.tokenizer.bos_id, demo.tokenizer.eos_id)
        demo.tokenizer.save(BASE)
    return {}


def plan_of(asked: Run) -> Plan:
    """What both sides have in common. All steps are taken, however the scores go."""
    steps = asked.get("steps", TRIAL_STEPS)
    return Plan(
        method="lora",
        precision=device.pick_precision(torch.device("cpu")),
        threads=asked["threads"],
        steps=steps,
        batch_size=32,
        learning_rate=asked.get("rate", budget.LEARNING_RATES["lora"]),
        warmup_steps=max(1, round(0.06 * steps)),
        evaluate_every=ceil(steps / budget.EVALUATIONS),
        seed=asked.get("seed", 0),
        patience=steps,
    )


def examples_and_judge(rows: int | None) -> tuple[list[Example], validation.Labels]:
    demo = job()
    examples = stage.examples_of(demo.task, demo.tokenizer, demo.pairs("train")[:rows])
    return examples, validation.Labels(demo.task, demo.tokenizer, demo.pairs("val")[:rows])


def bantam(asked: Run) -> Run:
    """Our side: the loop that `bantam make` runs, checkpoints and all."""
    plan = plan_of(asked)
    examples, judge = examples_and_judge(asked["rows"])
    decoder = load.load(BASE)
    marks: list[Mark] = []
    with TemporaryDirectory() as folder:
        began, cpu_began = time.perf_counter(), time.process_time()
        evaluate = partial(judged, judge, marks)
        loop.tune(decoder, examples, plan, evaluate, Path(folder), "", lambda _: None)
    cpu = time.process_time() - cpu_began - sum(mark.cpu for mark in marks)
    curve = curve_of(began, marks, plan.evaluate_every, plan.steps)
    seen = examples_seen(len(examples), plan)
    shared = len(shared_start([example.ids for example in examples]))
    tokens = seen * (mean_length(examples) - shared) + plan.steps * shared
    took = measured(seen, tokens, decoder.model.layers, curve[-1][1], cpu)
    return {"curve": curve, "rate": plan.learning_rate} | took


def peft(asked: Run) -> Run:
    """The rival: PEFT and Trainer."""
    plan = plan_of(asked)
    examples, judge = examples_and_judge(asked["rows"])
    marks: list[Mark] = []
    autocast = WAYS[asked["way"]][1]

    def evaluate(step: int) -> None:
        if step % plan.evaluate_every == 0 or step == plan.steps:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                judged(judge, marks, AsDecoder(model))

    trainer = trainer_of(plan, examples, asked["way"], "group_by_length", evaluate)
    model = trainer.model.get_base_model()
    began, cpu_began = time.perf_counter(), time.process_time()
    trainer.train()
    cpu = time.process_time() - cpu_began - sum(mark.cpu for mark in marks)
    curve = curve_of(began, marks, plan.evaluate_every, plan.steps)
    seen = examples_seen(len(examples), plan)
    tokens = seen * mean_length(examples)
    return {"curve": curve} | measured(seen, tokens, model.model.layers, curve[-1][1], cpu)


def trial(asked: Run) -> Run:
    """Seconds a step of the rival in each of its ways, on batches of like length."""
    plan = plan_of(asked)
    examples, _ = examples_and_judge(None)
    order = islice(batches([len(e.ids) for e in examples], plan.batch_size, 0), TRIAL_STEPS)
    some = [examples[i] for batch in order for i in batch]
    tried = {}
    for way in WAYS:
        ends: list[float] = []
        trainer = trainer_of(plan, some, way, "sequential", partial(note_time, ends))
        trainer.train()
        tried[way] = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {"way": min(tried, key=tried.__getitem__), "tried": tried}


def note_time(ends: list[float], _step: int) -> None:
    ends.append(time.perf_counter())


def trainer_of(
    plan: Plan,
    examples: Sequence[Example],
    way: str,
    sampling: str,
    after_step: Callable[[int], None],
) -> Any:
    """A transformers.Trainer of a PEFT model, as an expert would set it up for this job."""
    import peft
    import transformers

    class AfterStep(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            after_step(state.global_step)

    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    weights, autocast, attention = WAYS[way]
    transformers.set_seed(plan.seed)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        BASE, dtype=weights, attn_implementation=attention
    )
    adapters = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", r=plan.rank, lora_alpha=plan.rank
    )
    settings = transformers.TrainingArguments(
        output_dir=str(FOLDER),  # nothing is written
        use_cpu=True,
        bf16=autocast,
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch_size,
        train_sampling_strategy=sampling,
        optim="adamw_torch_fused",
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=plan.warmup_steps,
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.clip,
        seed=plan.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    return transformers.Trainer(
        model=peft.get_peft_model(base, adapters),
        args=settings,
        train_dataset=[{"input_ids": e.ids, "answers": e.answers} for e in examples],
        data_collator=collated,
        compute_loss_func=lambda out, targets, **_: F.cross_entropy(out.logits.float(), targets),
        callbacks=[AfterStep()],
    )


def collated(batch: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Right-padded ids, where an answer is asked for (logits are made there only), the answers."""
    ids = pad([row["input_ids"] for row in batch], torch.device("cpu"))
    asked = torch.zeros(ids.shape, dtype=torch.bool)
    targets = []
    for number, row in enumerate(batch):
        for answer in sorted(row["answers"]):
            asked[number, answer.position] = True
            targets.append(answer.candidates[answer.target])
    return {"input_ids": ids, "logits_to_keep": asked, "labels": torch.tensor(targets)}


class AsDecoder:
    """A transformers model with what a judge asks of a decoder, so that one rule judges both."""

    def __init__(self, model: Any) -> None:
        self.body, self.lm_head = model.model, model.lm_head

    def states(self, ids: Tensor, start: Tensor | None) -> Tensor:
        tokens = ids.shape[1]
        if start is not None:
            ids = torch.cat([start.expand(len(ids), -1), ids], dim=1)
        states: Tensor = self.body(input_ids=ids, use_cache=False).last_hidden_state
        return states[:, -tokens:]

    def logits(self, states: Tensor, candidates: list[int]) -> Tensor:
        return states.float() @ self.lm_head.weight[candidates].float().t()


def ablation(asked: Run) -> Run:
    """Our training steps with one measure left out: the same examples once, no evaluation."""
    plan, without = plan_of(asked), asked["without"]
    examples, _ = examples_and_judge(asked["rows"])
    some = min(len(examples), plan.steps * plan.batch_size)
    examples = random.Random(plan.seed).sample(examples, some)
    lengths = [len(example.ids) for example in examples]
    start = shared_start([example.ids for example in examples])
    match without:
        case "nothing":
            pass
        case "the shared beginning":
            start = []
        case "batches of like length":
            lengths = [1] * some
        case "the head for the labels only":
            vars(loop)["answer_loss"] = partial(vocabulary_loss, everywhere=False)
        case "the head at the answer only":
            vars(loop)["answer_loss"] = partial(vocabulary_loss, everywhere=True)
        case "bfloat16":
            plan = replace(plan, precision="float32")
        case "attention by two products":
            nets.SHORT = 0
        case _:
            raise ValueError(without)
    decoder = load.load(BASE)
    loop.prepare(decoder, plan)
    take = loop.step_of(decoder, plan, start, loop.optimizer_of(decoder, plan))
    order = islice(batches(lengths, plan.batch_size, plan.seed), plan.steps)
    steps = [[examples[i] for i in batch] for batch in order]
    take(steps[0], plan.learning_rate)
    began, cpu_began = time.perf_counter(), time.process_time()
    for batch in steps:
        take(batch, plan.learning_rate)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    seen = sum(map(len, steps))
    tokens = seen * (mean_length(examples) - len(start)) + len(steps) * len(start)
    return measured(seen, tokens, decoder.model.layers, seconds, cpu)


def vocabulary_loss(
    decoder: Decoder, batch: Sequence[Example], start: list[int], everywhere: bool
) -> Tensor:
    """The usual loss: over the whole vocabulary, with logits at the answers or at every token."""
    shared = torch.tensor(start) if start else None
    rest = [example.ids[len(start) :] for example in batch]
    states = decoder.states(pad(rest, torch.device("cpu")), shared)
    found = [
        (row, answer.position - len(start), answer.candidates[answer.target])
        for row, example in enumerate(batch)
        for answer in example.answers
    ]
    rows, positions, targets = torch.tensor(found).unbind(1)
    if everywhere:
        logits = decoder.lm_head(states)[rows, positions]
    else:
        logits = decoder.lm_head(states[rows, positions])
    return F.cross_entropy(logits.float(), targets)


def judged(judge: validation.Labels, marks: list[Mark], decoder: Any) -> tuple[float, float]:
    """Score and loss of a decoder; `marks` takes when they were made."""
    began, cpu_began = time.perf_counter(), time.process_time()
    score, loss = judge(decoder)
    marks.append(Mark(began, time.perf_counter(), time.process_time() - cpu_began, score))
    return score, loss


def measured(seen: int, tokens: float, layers: nn.Module, seconds: float, cpu: float) -> Run:
    """What a run took. Tokens are those that were worked through, padding not counted."""
    kilobyte = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte
    # Forward, and backward to the inputs: frozen weights get no gradients. Adapters do not count.
    operations = 4 * in_linears(layers) * tokens
    return {
        "examples_per_second": seen / seconds,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "gigabytes": memory / 1e9,
        "share_of_peak": operations / seconds / matrix_peak(),
    }


def examples_seen(count: int, plan: Plan) -> int:
    """Examples in the plan's steps; the last batch of a pass is what is left."""
    passes, rest = divmod(plan.steps, ceil(count / plan.batch_size))
    return passes * count + min(count, rest * plan.batch_size)


def mean_length(examples: Sequence[Example]) -> float:
    return sum(len(example.ids) for example in examples) / len(examples)


def in_linears(layers: nn.Module) -> int:
    """Weights in the linear layers of a decoder's blocks, without adapters."""
    named = layers.named_parameters()
    return sum(w.numel() for name, w in named if w.ndim == 2 and "lora_" not in name)


def matrix_peak(size: int = 2048) -> float:
    """Operations a second of a bfloat16 product, the quickest of ten."""
    a, b = (torch.randn(size, size).bfloat16() for _ in range(2))
    spent = []
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(a, b)
        spent.append(time.perf_counter() - began)
    return 2 * size**3 / min(spent)


KINDS = {"data": data, "trial": trial, "bantam": bantam, "peft": peft, "ablation": ablation}

if __name__ == "__main__":
    wish = json.loads(sys.argv[1])
    torch.set_num_threads(wish["threads"])
    print(json.dumps(KINDS[wish["side"]](wish)))
