"""One run of benchmarks/tune.py, in a process of its own: a wish as JSON in, what came out as JSON.

The rival is set up as its expert would: adapters on all linear layers, loss at the answer only and
logits only there, batches of like length padded no further than needed, bfloat16, fused AdamW, no
checkpoints. Texts are padded on the right, so that no attention mask is needed and PyTorch takes
its quickest path.

Answers that are written are trained by TRL's SFTTrainer from the same token ids, with its
completion-only loss. Its batches are worked through in parts, by gradient accumulation, since none
of its ways to compute holds a whole batch of long texts. Rows are not packed: without flash
attention packed rows cost the attention of one long row, and little is padding by like length.
On a CPU TRL's own loss makes logits of every token, so the trial also has one at the answers only.
"""

import gc
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bantam import labelled, recipe, sources
from bantam.job import Job
from bantam.kinds import Example
from bantam.nets import decoder as nets
from bantam.nets import load
from bantam.nets.choose import pad, shared_start
from bantam.nets.decoder import Decoder
from bantam.train import budget, device, loop, stage, validation
from bantam.train.order import batches
from bantam.train.plan import Plan
from bantam.train.speed import matrix_peak
from tune import BATCH, DEMO, JOBS, NO_MEMORY, Bench, Mark, Run, curve_of, folder_of

CPU = torch.device("cpu")
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
TRIAL_STEPS = 6  # the first is not counted
WRITTEN_TRIAL = 2  # batches, after some of the longest rows, which are not counted
OWN_LOSS, AT_ANSWERS = "TRL's loss", "loss at the answers"
WAYS = {  # how the rival can compute: weights, autocast, attention
    f"{weights}{' autocast' * autocast} {attention}": (weights, autocast, attention)
    for weights, autocast in (
        ("bfloat16", False),
        ("bfloat16", True),
        ("float32", True),
        ("float32", False),
    )
    for attention in ("sdpa", "eager")
}

Judge = validation.Labels | validation.Written


class Way(NamedTuple):
    """How the rival computes. `at_once` are rows; 0: the whole batch."""

    weights: str
    autocast: bool
    attention: str
    at_once: int = 0
    own_loss: bool = False

    @classmethod
    def of(cls, name: str) -> "Way":
        """The way of a name in WAYS, alone or as `written_way` makes it."""
        compute, *more = name.split(", ")
        if not more:
            return cls(*WAYS[compute])
        return cls(*WAYS[compute], int(more[0].split()[0]), more[1] == OWN_LOSS)


def written_way(compute: str, at_once: int, loss: str = AT_ANSWERS) -> str:
    return f"{compute}, {at_once} rows at once, {loss}"


def bench(asked: Run) -> Bench:
    return JOBS[asked.get("job", DEMO)]


def base_of(asked: Run) -> Path:
    return folder_of(asked) / "base"


def job(asked: Run) -> Job:
    """The recipe, as far as tuning goes."""
    file = RECIPES / asked.get("job", DEMO) / "recipe.toml"
    made = recipe.load(file)
    names = [made.base.model, *made.data.examples]
    for files in (made.data.val, made.data.test):
        names += files if isinstance(files, list) else []
    found = {name: sources.resolve(name, relative_to=file.parent) for name in names}
    return Job(made, folder_of(asked), found)


def data(asked: Run) -> Run:
    """Split the rows and write the base as a Hugging Face folder, once."""
    made, base = job(asked), base_of(asked)
    labelled.stage(made)
    if not (base / "tokenizer.json").exists():  # written last
        load.save(load.load(made.base), base, made.tokenizer.bos_id, made.tokenizer.eos_id)
        made.tokenizer.save(base)
    return {}


def plan_of(asked: Run) -> Plan:
    """What both sides have in common. All steps are taken, however the scores go."""
    steps = asked.get("steps", TRIAL_STEPS)
    return Plan(
        method="lora",
        precision=device.pick_precision(CPU),
        threads=asked["threads"],
        steps=steps,
        batch_size=asked.get("batch", BATCH),
        learning_rate=asked.get("rate", budget.LORA_RATE),
        warmup_steps=max(1, round(0.06 * steps)),
        evaluate_every=ceil(steps / asked.get("evaluations", bench(asked).evaluations)),
        seed=asked.get("seed", 0),
        patience=steps,
    )


def examples_and_judge(asked: Run) -> tuple[list[Example], Judge]:
    made, rows = job(asked), asked.get("rows")
    examples = stage.examples_of(made.task, made.tokenizer, made.learned[:rows])
    if not made.writes:
        return examples, validation.Labels(made.task, made.tokenizer, made.val[:rows])
    judged = stage.examples_of(made.task, made.tokenizer, made.val[:rows])
    return examples, validation.Written(judged, by_loss=False)


def bantam(asked: Run) -> Run:
    """Our side: the loop that `bantam make` runs, checkpoints and all."""
    plan = plan_of(asked)
    examples, judge = examples_and_judge(asked)
    decoder = load.load(base_of(asked))
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
    return {"curve": curve, "rate": plan.learning_rate} | exact(marks) | took


def peft(asked: Run) -> Run:
    """The rival: PEFT and Trainer, or TRL's SFTTrainer."""
    plan, way = plan_of(asked), Way.of(asked["way"])
    examples, judge = examples_and_judge(asked)
    marks: list[Mark] = []

    def evaluate(step: int) -> None:
        if step % plan.evaluate_every == 0 or step == plan.steps:
            with torch.autocast("cpu", torch.bfloat16, enabled=way.autocast):
                judged(judge, marks, AsDecoder(model))

    trainer = trainer_of(base_of(asked), plan, examples, way, "group_by_length", evaluate)
    model = trainer.model.get_base_model()
    began, cpu_began = time.perf_counter(), time.process_time()
    trainer.train()
    cpu = time.process_time() - cpu_began - sum(mark.cpu for mark in marks)
    curve = curve_of(began, marks, plan.evaluate_every, plan.steps)
    seen = examples_seen(len(examples), plan)
    took = measured(seen, seen * mean_length(examples), model.model.layers, curve[-1][1], cpu)
    return {"curve": curve} | exact(marks) | took


def trial(asked: Run) -> Run:
    """Seconds a step of the rival in each of its ways, on batches of like length."""
    plan = plan_of(asked)
    examples, _ = examples_and_judge(asked)
    if at_once := bench(asked).at_once:
        fitting = [rows for rows in at_once if rows <= plan.batch_size]
        return written_trial(base_of(asked), plan, examples, fitting or [plan.batch_size])
    order = islice(batches([len(e.ids) for e in examples], plan.batch_size, 0), TRIAL_STEPS)
    some = [examples[i] for batch in order for i in batch]
    tried = {}
    for name in ways():
        ends = step_ends(base_of(asked), plan, some, Way.of(name))
        tried[name] = (ends[-1] - ends[0]) / (len(ends) - 1)
    return {"way": min(tried, key=tried.__getitem__), "tried": tried}


def ways() -> list[str]:
    """Those that are worth a try: where products in bfloat16 are slow, they are slow in each."""
    slow = device.pick_precision(CPU) == "float32"
    return [
        name
        for name, (weights, mixed, _) in WAYS.items()
        if not slow or (weights, mixed) == ("float32", False)
    ]


def written_trial(
    base: Path, plan: Plan, examples: Sequence[Example], at_once: Sequence[int]
) -> Run:
    """The same for written answers: first how to compute, then how many rows at once, then the
    loss. A way that has no memory for the longest rows is none."""
    tried: dict[str, float | None] = {}

    def quickest(names: Sequence[str]) -> str | None:
        for name in names:
            tried[name] = within_memory(partial(written_pace, base, plan, examples, Way.of(name)))
        paces = {name: seconds for name, seconds in tried.items() if seconds is not None}
        return min(paces, key=paces.__getitem__, default=None)

    first, *others = at_once
    best = quickest([written_way(compute, first) for compute in ways()])
    if best is None:  # with fewer rows there may be room
        first, *others = sorted(others)
        best = quickest([written_way(compute, first) for compute in ways()])
    if best is not None:
        compute = best.split(", ")[0]
        best = quickest([written_way(compute, rows) for rows in others]) or best
        best = quickest([written_way(compute, Way.of(best).at_once, OWN_LOSS)])
    return {"way": best, "tried": tried}


def written_pace(base: Path, plan: Plan, examples: Sequence[Example], way: Way) -> float:
    """Seconds a batch, in parts as the way has them; the longest rows go first and do not count."""
    gc.collect()  # the way before
    lengths = [len(example.ids) for example in examples]
    longest = sorted(range(len(examples)), key=lengths.__getitem__)[-way.at_once :]
    drawn = list(islice(batches(lengths, plan.batch_size, 0), WRITTEN_TRIAL))
    some = [examples[i] for batch in (longest, *drawn) for i in batch]
    parts = replace(plan, batch_size=way.at_once, steps=len(some) // way.at_once)
    ends = step_ends(base, parts, some, way)
    return (ends[-1] - ends[0]) / len(drawn)


def within_memory(measure: Callable[[], float]) -> float | None:
    """What is measured; None where memory ran out."""
    try:
        return measure()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return None


def out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def step_ends(base: Path, plan: Plan, some: Sequence[Example], way: Way) -> list[float]:
    """When each step of the rival ended, with the examples in this order."""
    ends: list[float] = []
    trainer_of(base, plan, some, way, "sequential", partial(note_time, ends)).train()
    return ends


def note_time(ends: list[float], _step: int) -> None:
    ends.append(time.perf_counter())


def trainer_of(
    base: Path,
    plan: Plan,
    examples: Sequence[Example],
    way: Way,
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
    transformers.set_seed(plan.seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=way.weights, attn_implementation=way.attention
    )
    adapters = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", r=plan.rank, lora_alpha=plan.rank
    )
    at_once = way.at_once or plan.batch_size
    settings: dict[str, Any] = {
        "output_dir": str(base.parent),  # nothing is written
        "use_cpu": True,
        "bf16": way.autocast,
        "max_steps": plan.steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": plan.batch_size // at_once,
        "train_sampling_strategy": sampling,
        "optim": "adamw_torch_fused",
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": plan.warmup_steps,
        "weight_decay": plan.weight_decay,
        "max_grad_norm": plan.clip,
        "seed": plan.seed,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    if not examples[0].answers[0].candidates:
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        return sft_trainer(model, adapters, settings, tokenizer, examples, way, AfterStep())
    return transformers.Trainer(
        model=peft.get_peft_model(model, adapters),
        args=transformers.TrainingArguments(**settings, remove_unused_columns=False),
        train_dataset=[{"input_ids": e.ids, "answers": e.answers} for e in examples],
        data_collator=collated,
        compute_loss_func=lambda out, targets, **_: F.cross_entropy(out.logits.float(), targets),
        callbacks=[AfterStep()],
    )


def sft_trainer(
    model: Any,
    adapters: Any,
    settings: dict[str, Any],
    tokenizer: Any,
    examples: Sequence[Example],
    way: Way,
    callback: Any,
) -> Any:
    """A trl.SFTTrainer: completion-only loss, its own or, as it advises for other losses, one that
    overrides `compute_loss`."""
    trl: Any = import_module("trl")
    datasets: Any = import_module("datasets")

    class AtAnswers(trl.SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = 1
        ) -> Tensor:
            targets = inputs["labels"][:, 1:]
            asked = targets != -100
            keep = F.pad(asked, (0, 1))  # rows are padded on the right: no mask is needed
            out = model(input_ids=inputs["input_ids"], logits_to_keep=keep, use_cache=False)
            lost = F.cross_entropy(out.logits.float(), targets[asked], reduction="sum")
            loss: Tensor = lost / num_items_in_batch
            return loss

    datasets.disable_progress_bars()
    return (trl.SFTTrainer if way.own_loss else AtAnswers)(
        model=model,
        args=trl.SFTConfig(
            **settings, completion_only_loss=True, max_length=None, activation_checkpointing=False
        ),
        train_dataset=datasets.Dataset.from_list([completion(each) for each in examples]),
        processing_class=tokenizer,
        peft_config=adapters,
        callbacks=[callback],
    )


def completion(example: Example) -> dict[str, list[int]]:
    """A row of TRL's: all tokens, the last one too, and which of them are the answer."""
    answers = sorted(example.answers)
    ids = [*example.ids, int(answers[-1].target)]  # type: ignore[arg-type]
    before = len(ids) - len(answers)
    return {"input_ids": ids, "completion_mask": [0] * before + [1] * len(answers)}


def collated(batch: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Right-padded ids, where an answer is asked for (logits are made there only), the answers."""
    ids = pad([row["input_ids"] for row in batch], CPU)
    asked = torch.zeros(ids.shape, dtype=torch.bool)
    targets = []
    for number, row in enumerate(batch):
        for answer in sorted(row["answers"]):
            asked[number, answer.position] = True
            targets.append(answer.candidates[int(answer.target)])
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

    def logits(self, states: Tensor, candidates: list[int] | None = None) -> Tensor:
        weight = self.lm_head.weight
        head = weight if candidates is None else weight[candidates]
        with torch.autocast("cpu", enabled=False):  # as ours
            logits: Tensor = states.float() @ head.float().t()
        return logits


def ablation(asked: Run) -> Run:
    """Our training steps with one measure left out: the same examples once, no evaluation."""
    plan, without = plan_of(asked), asked["without"]
    examples, _ = examples_and_judge(asked)
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
    decoder = load.load(base_of(asked))
    loop.prepare(decoder, plan)
    take = loop.step_of(decoder, plan, loop.optimizer_of(decoder, plan))
    order = islice(batches(lengths, plan.batch_size, plan.seed), plan.steps)
    steps = [[examples[i] for i in batch] for batch in order]
    take(steps[0], start, plan.learning_rate)
    began, cpu_began = time.perf_counter(), time.process_time()
    for batch in steps:
        take(batch, start, plan.learning_rate)
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
    states = decoder.states(pad(rest, CPU), shared)
    found = [
        (row, answer.position - len(start), answer.candidates[int(answer.target)])  # type: ignore[arg-type]
        for row, example in enumerate(batch)
        for answer in example.answers
    ]
    rows, positions, targets = torch.tensor(found).unbind(1)
    if everywhere:
        logits = decoder.lm_head(states)[rows, positions]
    else:
        logits = decoder.lm_head(states[rows, positions])
    return F.cross_entropy(logits.float(), targets)


def judged(judge: Judge, marks: list[Mark], decoder: Any) -> tuple[float, float]:
    """Score and loss of a decoder; `marks` takes when they were made."""
    began, cpu_began = time.perf_counter(), time.process_time()
    score, loss = judge(decoder)
    met = None
    if isinstance(judge, validation.Written):
        score, met = -loss, score
    marks.append(Mark(began, time.perf_counter(), time.process_time() - cpu_began, score, met))
    return score, loss


def exact(marks: Sequence[Mark]) -> Run:
    """The share of written answers that were met exactly at the lowest loss."""
    found = max(marks, key=lambda mark: mark.score).exact
    return {} if found is None else {"exact": found}


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
        "share_of_peak": operations / seconds / matrix_peak(CPU, device.pick_precision(CPU)),
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


KINDS = {"data": data, "trial": trial, "bantam": bantam, "peft": peft, "ablation": ablation}


def bound_memory() -> None:
    """Have what needs more memory than is free fail here, before the system kills something."""
    free = int(0.95 * psutil.virtual_memory().available)
    resource.setrlimit(resource.RLIMIT_DATA, (free, free))


def made(asked: Run) -> Run:
    if "job" not in asked:
        return KINDS[asked["side"]](asked)
    bound_memory()
    try:
        return KINDS[asked["side"]](asked)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return {"failed": NO_MEMORY}


if __name__ == "__main__":
    wish = json.loads(sys.argv[1])
    torch.set_num_threads(wish["threads"])
    print(json.dumps(made(wish)))
