"""The job of a model that completes text: documents to tokens, a model from scratch or a base that
goes on reading, the verdict.

As in `pipeline`, a stage is keyed by what it is made from, and what was decided stands in
recipe.lock.json before the first step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam import __version__, curated, licences, recipe_documents, runs, sources
from bantam.errors import BadInput
from bantam.job import read_lock, run_stage, told_of
from bantam.model_files import gguf_in
from bantam.progress import bar, say

if TYPE_CHECKING:
    from bantam.formats.tokenizer import Tokenizer

BITS = "Q8_0"
PROVED = 40  # held-out documents that the packed file is proved on


@dataclass(frozen=True)
class Job:
    """A recipe of documents on its way."""

    made: recipe_documents.Recipe
    folder: Path
    rivals: dict[str, Path]  # models by their names in the recipe
    base: sources.Source | None = None  # what training goes on with
    processes: int = 1  # that train together

    @property
    def base_file(self) -> Path | None:
        return None if self.base is None else sources.model_file(self.base)

    @property
    def unread(self) -> list[str]:
        """Sources that are read not even once, so nothing is learned of them nor judged by them."""
        named = self.made.documents.sources.items()
        return [name for name, source in named if source.weight == 0]

    def judged(self) -> tuple[list[str], list[str]]:
        """Held-out texts: those that choose among checkpoints, and those that judge."""
        return curated.judged(self.folder, self.made.documents.seed, self.unread)

    def learned(self, most: int) -> list[str]:
        """Training texts by chance, up to `most` bytes."""
        seed = self.made.documents.seed
        return curated.drawn(self.folder, "train", most, seed, without=self.unread)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from bantam.corpus import vocabulary

        return vocabulary.load(self.folder / "tokens/tokenizer")


def make(path: Path, folder: Path, processes: int = 1, ray: str | None = None) -> dict[str, Any]:
    """Run every stage of a recipe of documents and return the verdict.

    `processes` train together, each on its share of every batch; `ray` is the address of a cluster
    that cleans the documents. BadInput before anything is spent, JobFailed when a stage fails; what
    was finished is kept and taken up by the next call.
    """
    from bantam import curation
    from bantam.pack import gguf_file

    made = recipe_documents.load(path)
    here = path.parent
    named = [name for name in made.judge.rivals if name not in recipe_documents.RIVALS]
    found = {name: sources.resolve(name, relative_to=here) for name in named}
    rivals = {name: gguf_in(source) for name, source in found.items()}
    base = sources.resolve(made.base.model, relative_to=here) if made.continues else None
    if base is not None:
        gguf_file.check_base(sources.model_file(base))
    for source in (*found.values(), *([base] if base else [])):
        if licences.bound(source.licence):
            say(f"note: {source.name} may be used only under the {source.licence}")
    curation.text(path, folder, ray=ray)
    with runs.alone(folder):
        job = Job(made, folder, rivals, base, processes)
        tokens_key = _tokens(job)
        train_key = _train(job, tokens_key)
        pack_key = _pack(job, _model(job, train_key))
        verdict = _judge(job, pack_key)
        _report(job)
    return verdict


def _tokens(job: Job) -> str:
    """A vocabulary, and the documents as tokens."""
    text_key = runs.manifest(job.folder / "text")["key"]
    size = job.made.train.vocabulary
    key = runs.key_of("tokens", 2, text_key, size, *([job.base.sha256] if job.base else []))

    def build(folder: Path) -> int:
        import numpy as np

        from bantam.corpus import shards, vocabulary
        from bantam.formats.tokenizer import Tokenizer

        choosing, judging = job.judged()
        count = curated.size(job.folder, "train", job.unread)
        if count < curated.LEAST and job.base is None:
            raise BadInput(
                f"{count:,} bytes of text are too few to learn a language from",
                f"give {curated.LEAST:,} at least: more files, or fewer rules "
                f"({job.folder / 'text'} tells what they took)",
            )
        if (held := len(choosing) + len(judging)) < curated.FEWEST:
            raise BadInput(
                f"{held} documents are held out, {curated.FEWEST} are needed",
                "raise documents.val (it is a share of the documents), or give more of them",
            )
        if job.base_file is not None:
            made = Tokenizer.of(job.base_file)
        else:
            say("  learning a vocabulary")
            learned = job.learned(vocabulary.READ)
            made = vocabulary.learn(learned, size or vocabulary.size_for(count))
        made.save(folder / "tokenizer")
        read = [partial(curated.texts, path, "train") for path in curated.files(job.folder)]
        with bar("tokens") as advance:
            corpus = shards.write(
                folder / "train", read, made, told=lambda done, whole: advance(done, whole, "")
            )
        for name, texts in (("choosing", choosing), ("judging", judging)):
            shards.write(folder / name, [partial(list, texts)], made, workers=1)
        np.save(folder / "order.npy", _order(job))
        told = {
            "vocabulary": made.vocab_size,
            "documents": len(corpus),
            "tokens": corpus.tokens,
            "bytes": corpus.bytes,
            "held_out_bytes_a_token": vocabulary.bytes_a_token(made, judging),
        }
        runs.write_json(folder / "tokens.json", told)
        return corpus.tokens

    run_stage(job, "tokens", key, build)
    told = json.loads((job.folder / "tokens/tokens.json").read_text(encoding="utf-8"))
    say(
        f"  {told['documents']:,} documents, {told['tokens']:,} tokens of a vocabulary of "
        f"{told['vocabulary']:,}, {told['held_out_bytes_a_token']:.2f} bytes a token"
    )
    return key


def _order(job: Job) -> Any:
    """The documents' numbers in the order of a first reading, as `documents.mix` has it."""
    import numpy as np
    import polars as pl

    ids = [
        frame.filter((pl.col("split") == "train") & (pl.col("text") != ""))["id"]
        for frame in (
            pl.read_parquet(path, columns=["id", "text", "split"])
            for path in curated.files(job.folder)
        )
    ]
    numbered = pl.DataFrame({"id": pl.concat(ids)}).with_row_index("number")
    order = pl.read_parquet(job.folder / "text/order.parquet", columns=["id"])
    numbers = order.join(numbered, on="id", how="inner", maintain_order="left")["number"]
    return numbers.to_numpy().astype(np.int64)


def _train(job: Job, tokens_key: str) -> str:
    """A plan within the budget, and the training that follows it."""
    wanted = job.made.train
    kept = job.made.documents.order
    key = runs.key_of("train", 1, tokens_key, wanted.model_dump(exclude={"vocabulary"}), kept)

    def build(folder: Path) -> int:
        from bantam.train import document_stage, several

        tokens = job.folder / "tokens"
        asked = _asked(job, key, _unique(tokens))
        runs.write_json(folder / "plan.json", asdict(asked.plan))
        document_stage.write(asked, folder / several.ASKED)  # also for a torchrun from outside
        if job.processes > 1:
            several.start(folder, job.processes)
        with bar("train") as advance:
            return document_stage.train(asked, folder, advance)

    seconds = None if wanted.tokens else wanted.budget or recipe_documents.BUDGET
    run_stage(job, "train", key, build, resumes=True, predicted_seconds=seconds)
    return key


def _asked(job: Job, key: str, unique: int) -> Any:
    """All that the training is to do, with `unique` tokens to read."""
    from bantam.train import document_stage

    shape, plan = _planned(job, key, unique)
    kept = job.made.documents.order != "shuffled"
    return document_stage.Asked(shape, plan, job.folder / "tokens", kept, key, job.base_file)


def _unique(tokens: Path) -> int:
    """The tokens of the documents that are read at all."""
    import numpy as np

    from bantam.corpus import shards

    order = np.unique(np.load(tokens / "order.npy"))
    return int(shards.read(tokens / "train").lengths[order].sum())


def _planned(job: Job, key: str, unique: int) -> Any:
    """Shape and plan: those in the lock if they were made for this very run, else new ones."""
    from bantam.nets import fresh
    from bantam.train import document_stage, pretrain_plan
    from bantam.train.pretrain import Plan

    lock = read_lock(job.folder)
    if lock.get("plan_key") == key:
        return document_stage.shape_of(lock["shape"]), Plan(**lock["plan"])
    wanted = job.made.train
    seconds = None if wanted.tokens else wanted.budget or recipe_documents.BUDGET
    if seconds is not None:
        say("  timing a few steps to plan the training")
    wish = pretrain_plan.Wish(
        seconds=seconds,
        tokens=wanted.tokens,
        parameters=wanted.parameters,
        depth=wanted.depth,
        width=wanted.width,
        context=wanted.context,
        batch_tokens=wanted.batch,
        learning_rate=wanted.learning_rate,
        weight_decay=wanted.weight_decay,
        threads=wanted.threads,
        processes=job.processes,
        seed=wanted.seed,
        base=job.base_file,
    )
    shape, plan = pretrain_plan.plan(wish, job.tokenizer.vocab_size, unique)
    lock |= {"plan": asdict(plan), "shape": asdict(shape), "plan_key": key}
    lock["base"] = None if job.base is None else told_of({job.base.name: job.base})
    runs.write_json(job.folder / "recipe.lock.json", lock | {"version": __version__})
    first = f"{plan.pair_steps} steps that learn what follows each token, then "
    say(
        f"  plan: {fresh.count(shape):,} parameters ({shape.n_layers} layers of "
        f"{shape.width}), {first if plan.pair_steps else ''}{plan.steps} steps of "
        f"{plan.rows * plan.context:,} tokens "
        f"({plan.tokens / unique:.1f} passes), {plan.threads} "
        f"thread{'s' * (plan.threads > 1)}, {plan.precision}"
    )
    return shape, plan


def _model(job: Job, train_key: str) -> str:
    """The weights as a Hugging Face folder."""
    key = runs.key_of("model", 1, train_key)

    def build(folder: Path) -> None:
        from bantam.nets import load
        from bantam.train import document_stage, several

        followed = document_stage.read(job.folder / "train" / several.ASKED)
        decoder = document_stage.trained(followed, job.folder / "train")
        load.save(decoder, folder, job.tokenizer.bos_id, job.tokenizer.eos_id)
        job.tokenizer.save(folder)

    run_stage(job, "model", key, build)
    return key


def _pack(job: Job, model_key: str) -> str:
    """The model as one GGUF file, proved against the weights it was made from."""
    key = runs.key_of("pack", 2, model_key, BITS)

    def build(folder: Path) -> None:
        from bantam.model import COMPLETE, Model
        from bantam.nets import load
        from bantam.pack import gguf_file, proof

        decoder = load.load(job.folder / "model")
        name = job.made.task.name
        path = folder / f"{name}-{BITS}.gguf"
        lineage: dict[str, Any] = {"made_with": f"bantam-lm {__version__}", "tokens": model_key}
        more = {"general.name": name, COMPLETE: "complete"}
        if job.base is not None:
            lineage["base"] = told_of({"base": job.base})["base"]
            more["general.license"] = (job.base.licence or "unknown").lower()
            more["bantam.licence"] = job.base.licence or "unknown"
        more["bantam.lineage"] = json.dumps(lineage, ensure_ascii=False)
        gguf_file.write(path, decoder, job.tokenizer, None, more, BITS)
        said = job.judged()[0][:PROVED]
        say(f"  proving the packed file on {len(said)} documents")
        with Model(path) as packed:
            checks = proof.prove_texts(decoder, packed, said)
        runs.write_json(folder / "proof.json", checks)
        proof.hold(checks)

    run_stage(job, "pack", key, build)
    return key


def _judge(job: Job, pack_key: str) -> dict[str, Any]:
    """Bits per byte of the packed weights and of the rivals on the documents held out to judge."""
    digests = {name: runs.file_sha256(path) for name, path in job.rivals.items()}
    key = runs.key_of("judge", 2, pack_key, job.made.judge.model_dump(), digests)

    def build(folder: Path) -> None:
        import numpy as np
        import polars as pl

        from bantam.judge import completion, ngram, squeezed
        from bantam.train import document_stage

        texts = job.judged()[1]
        packed = next((job.folder / "pack").glob("*.gguf"))
        files = {"ours": packed, **job.rivals}
        if recipe_documents.BASE in job.made.judge.rivals:
            files[recipe_documents.BASE] = _packed_base(job, folder)
        bits = {}
        with bar("judge") as advance:
            wanted = ["ours", *job.made.judge.rivals]
            for done, name in enumerate(wanted):
                advance(done, len(wanted), name)
                if name == "zstd":
                    bits[name] = squeezed.bits(job.learned(squeezed.MOST), texts)
                elif name == "ngram":
                    bits[name] = ngram.bits(ngram.learn(job.learned(ngram.MOST)), texts)
                else:
                    bits[name] = document_stage.document_bits(files[name], _ids(files[name], texts))
        sizes = np.array([len(text.encode()) for text in texts])
        frame = {"bytes": sizes} | {f"bits {name}": found for name, found in bits.items()}
        pl.DataFrame(frame).write_parquet(folder / "documents.parquet")
        systems = {
            name: {
                "file": path.name,
                "sha256": runs.file_sha256(path),
                "bytes": path.stat().st_size,
            }
            for name, path in files.items()
        }
        data = {
            "text_key": runs.manifest(job.folder / "text")["key"],
            "train_seed": job.made.train.seed,
        }
        found = completion.verdict(
            job.made.task.name, bits, sizes, systems, data, job.made.documents.seed
        )
        runs.write_json(folder / "verdict.json", found)

    run_stage(job, "judge", key, build)
    verdict = json.loads((job.folder / "judge/verdict.json").read_text(encoding="utf-8"))
    assert isinstance(verdict, dict)
    return verdict


def _packed_base(job: Job, folder: Path) -> Path:
    """The base packed as ours is: only the weights differ."""
    from bantam.nets import load
    from bantam.pack import gguf_file

    path = folder / f"base-{BITS}.gguf"
    if job.base_file is not None:
        gguf_file.write(path, load.load(job.base_file), job.tokenizer, None, {}, BITS)
    return path


def _ids(model: Path, texts: list[str]) -> list[list[int]]:
    """The texts as the model's tokens, each after the token that begins a text, or ends one where
    none does."""
    from bantam.formats.tokenizer import Tokenizer

    tokenizer = Tokenizer.of(model)
    return [[tokenizer.edge, *tokenizer.encode([(text, False)])] for text in texts]


def _report(job: Job) -> None:
    """The page and the model card, from what stands in the run folder."""
    from bantam.judge import completion_page

    run = completion_page.read_run(job.folder)
    runs.write_text(job.folder / "report.html", completion_page.page(run))
    runs.write_text(job.folder / "README.md", completion_page.card(run))
