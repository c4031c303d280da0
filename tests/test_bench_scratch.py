"""The sums that benchmarks/scratch.py and less.py draw from their runs; nothing is trained here."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from bantam import recipe_documents
from bantam.judge import pairs

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = ("apart", "corpora", "grammar_pairs", "less", "scratch")


@pytest.fixture(scope="module", autouse=True)
def benchmarks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield
    for name in (*MODULES, "debian_index"):
        sys.modules.pop(name, None)


@pytest.fixture
def scratch() -> ModuleType:
    import scratch

    return scratch


@pytest.fixture
def less() -> ModuleType:
    import less

    return less


def run(side: str, losses: list[float], **change: Any) -> dict[str, Any]:
    """A run that was judged after each thousand tokens, which took it ten seconds."""
    curve = [[1000 * n, 10.0 * n, loss] for n, loss in enumerate(losses, 1)]
    made = {"side": side, "threads": 1, "seed": 0, "tokens": 1000 * len(losses), "curve": curve}
    more = {"seconds": curve[-1][1] + 1, "tokens_per_second": 100.0, "start": 2.0}
    told = {"grammar": 0.5, "kept": 2.0, "gigabytes": 1.0, "bytes_per_token": 3.5}
    return made | more | told | change


def cells(table: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(row) for row in rows}) == 1
    return rows


class Machine:
    """A child that learns by a rule: the loss is what the side's tokens make of it."""

    def __init__(self, worth: dict[str, float]) -> None:
        self.worth, self.asked = worth, list[dict[str, Any]]()

    def __call__(self, _: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(asked)
        if asked["side"] == "data":
            return {}
        if asked.get("measure") == "pace":
            quick = {"sdpa": 200.0, "eager": 300.0, "sdpa, compiled": 400.0, "compiled": 500.0}
            pace = quick[asked["way"]]
            start = 1000.0 if "compiled" in asked["way"] else 0.0
            return {"tokens_per_second": pace, "start": start, "share_of_peak": 0.4}
        off = abs(asked["rate"] - 2e-3) * 100 if "rate" in asked else 0.0
        if asked.get("schedule") == "cosine":
            off -= 0.01
        tokens, worth = asked["tokens"], self.worth[asked["side"]] - 0.001 * asked["seed"]
        half, end = (4 + off - worth * part * tokens / 1e5 for part in (0.3, 1.0))
        curve = [[tokens / 2, tokens / 200, half], [tokens, tokens / 100, end]]
        more = {"seconds": tokens / 100, "tokens_per_second": 100.0, "start": 0.0}
        return {"curve": curve, "grammar": 0.6, "gigabytes": 1.0, **more}


@pytest.fixture
def machine(scratch: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    import apart

    made = Machine({"bantam": 4.0, "bantam with AdamW": 2.0, "trainer": 1.0, "GPT-2 loop": 0.9})
    monkeypatch.setattr(apart, "child", made)
    monkeypatch.setattr(scratch, "FOLDER", tmp_path)
    return made


def test_time_to_quality_is_that_of_the_shortest_run_that_reaches_it(
    scratch: ModuleType, machine: Machine
) -> None:
    wanted = scratch.Wanted(scratch.SIDES, [1, 2], [0, 1], [1e-3, 2e-3])
    runs = list(scratch.qualities(wanted, "7M", 120_000))
    assert len(runs) == 4 * 2 * 2
    assert {run["rate"] for run in runs if "rate" in run} == {2e-3}
    theirs = [run for run in runs if run["side"] == scratch.TRAINER]
    assert {(run["schedule"], run["tokens"]) for run in theirs} == {("cosine", 120_000)}
    assert {run["way"] for run in runs} == {"eager"}  # compiling takes longer than it saves
    # A quarter and a half of Trainer's tokens, but for the hundredth that its cosine saves.
    wanted_tokens = {scratch.OURS: 40_000, scratch.ADAMW: 80_000, scratch.LOOP: 180_000}
    for side, tokens in wanted_tokens.items():
        own = [run for run in runs if run["side"] == side]
        assert {run["tokens"] for run in own} == {tokens}
        assert {run["reached"] for run in own} == {tokens / 100}
    ours = next(run for run in runs if run["side"] == scratch.OURS)
    assert ours["target"] < 4 and "rate" not in ours

    searched = [asked for asked in machine.asked if asked.get("timed") is False]
    assert all(asked["threads"] == 2 and asked["seed"] == 0 for asked in searched)
    before = len(machine.asked)
    assert list(scratch.qualities(wanted, "7M", 120_000)) == runs
    assert len(machine.asked) == before

    rows = cells(scratch.quality_table(runs))
    assert len(rows) == 2 + 4 * 2
    told = {row[1].split(" (")[0]: row for row in rows[2:6]}
    assert told["bantam"][2:4] == ["400 (400 to 400)", "3.00 (3.00 to 3.00)"]
    assert told["trainer"][3] == "1.00 (1.00 to 1.00)"
    assert "cosine, eager" in told["trainer"][1] or "eager" in told["trainer"][1]


def test_a_seed_that_misses_the_loss_runs_longer(scratch: ModuleType, machine: Machine) -> None:
    plain = machine.worth["bantam"]
    kept = machine.__call__

    def unlucky(script: str, asked: dict[str, Any]) -> dict[str, Any]:
        machine.worth["bantam"] = plain / 2 if asked.get("seed") == 1 else plain
        return kept(script, asked)

    import apart

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "child", unlucky)
        wanted = scratch.Wanted([scratch.OURS, scratch.TRAINER], [1], [0, 1], [2e-3])
        runs = list(scratch.qualities(wanted, "7M", 120_000))
    tokens = {run["seed"]: run["tokens"] for run in runs if run["side"] == scratch.OURS}
    assert tokens == {0: 40_000, 1: 80_000}


def test_what_never_reaches_the_loss_is_told(scratch: ModuleType, machine: Machine) -> None:
    machine.worth["GPT-2 loop"] = 0.1
    wanted = scratch.Wanted([scratch.LOOP, scratch.TRAINER], [1], [0], [2e-3])
    runs = list(scratch.qualities(wanted, "7M", 120_000))
    assert [run["reached"] for run in runs] == [None, 1200.0]
    assert cells(scratch.quality_table(runs))[3][2] == "missed"


@pytest.mark.parametrize("enough", range(-1, 11))
def test_the_shortest_length_is_found_by_halving(scratch: ModuleType, enough: int) -> None:
    asked = []

    def go(place: int) -> dict[str, Any]:
        asked.append(place)
        return run("bantam", [1.0 if place >= enough else 3.0])

    assert scratch.shortest(go, 2.0) == min(max(enough, 0), len(scratch.LENGTHS) - 1)
    assert len(asked) <= 4


def test_a_run_counts_as_a_whole(scratch: ModuleType) -> None:
    assert scratch.reached(run("bantam", [3.0, 2.0]), 2.0)["reached"] == 21.0
    assert scratch.reached(run("bantam", [3.0, 2.0, 2.5]), 2.0)["reached"] is None
    assert scratch.final(run("bantam", [3.0, 2.0, 2.5])) == 2.5


def test_paces_are_held_against_trainer_in_its_quickest_way(
    scratch: ModuleType, machine: Machine
) -> None:
    wanted = scratch.Wanted(scratch.SIDES, [1, 2], [0, 1], [])
    runs = list(scratch.paces(wanted, ["3M"], 8, 5.0))
    assert {run["side"] for run in runs} == set(scratch.PACED)
    rows = cells(scratch.pace_table(runs))
    assert len(rows) == 2 + 2 * 3
    told = {row[2]: row for row in rows[2:]}
    assert set(told) == {f"{side} ({scratch.WAYS[side][-1]})" for side in scratch.PACED}
    assert told["bantam (compiled)"][4] == "1.25 (1.25 to 1.25)"


def test_passes_over_few_tokens(scratch: ModuleType, machine: Machine) -> None:
    wanted = scratch.Wanted(scratch.SIDES, [1, 2], [0], [1e-3, 2e-3])
    runs = list(scratch.samples(wanted, "3M", 30_000, [1, 4]))
    assert [run["tokens"] for run in runs] == [30_000, 120_000] * 4
    assert all(run["unique"] == 30_000 and run["threads"] == 2 for run in runs)
    rows = cells(scratch.sample_table(runs))
    assert rows[0][1:] == ["1 passes", "4 passes"]
    assert rows[2] == ["bantam (compiled)", "2.800 (2.800 to 2.800)", "-0.800 (-0.800 to -0.800)"]


def test_finished_runs_are_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import apart

    script = tmp_path / "echo.py"
    script.write_text(
        "import json, os, sys\nasked = json.loads(sys.argv[1])\nprint('said')\n"
        "print(json.dumps({'out': asked['n'] + 1, 'threads_seen': os.environ['OMP_NUM_THREADS'],"
        " 'cold': 'bench-compiled-' in os.environ.get('TORCHINDUCTOR_CACHE_DIR', '')}))\n"
    )
    first = apart.run_of(str(script), tmp_path / "log", {"n": 1, "threads": 2})
    assert (first["out"], first["threads_seen"], first["cold"]) == (2, "2", True)
    script.write_text("raise SystemExit(3)")
    assert apart.run_of(str(script), tmp_path / "log", {"n": 1, "threads": 2}) == first
    assert len((tmp_path / "log" / "runs.jsonl").read_text().splitlines()) == 1
    hurried = {"n": 1, "threads": 2, "timed": False}  # its caches may have been warm
    assert apart.made_before([first | hurried], {"n": 1, "threads": 2}) is None
    assert apart.made_before([first | hurried], hurried) == first | hurried
    with pytest.raises(Exception, match="exit status 3"):
        apart.run_of(str(script), tmp_path / "log", {"n": 2})
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == first


def test_the_share_of_the_tokens_that_was_enough(less: ModuleType) -> None:
    curve = run("bantam", [3.0, 2.0, 1.0, 0.5])
    assert less.crossing(curve, 1.5) == pytest.approx(2500 / 4000)
    assert less.crossing(curve, 3.5) == pytest.approx(1000 / 4000)
    assert less.crossing(curve, 0.4) is None


def test_less_is_told_seed_by_seed(less: ModuleType) -> None:
    runs = []
    for seed in (0, 1):
        runs.append(run("bantam", [3.0, 2.0], seed=seed, corpus="raw", share=1.0))
        runs.append(run("bantam", [2.5, 1.5], seed=seed, corpus="curated", share=1.0))
        runs.append(run("bantam", [1.9 + 0.2 * seed], seed=seed, corpus="curated", share=0.5))
        runs.append(run("bantam", [2.5, 2.1], seed=seed, corpus="scored", share=1.0))
    told = less.table(runs)
    table, _, sentence = told.rpartition("\n\n")
    rows = cells(table)
    assert [row[0] for row in rows[2:]] == ["raw", "curated", "curated", "scored"]
    assert [row[-1] for row in rows[2:]] == ["", "2 of 2", "1 of 2", "0 of 2"]
    assert "'curated' meets the raw one's final loss after 0.75 (0.75 to 0.75)" in sentence
    assert "'scored' meets the raw one's final loss never" in sentence
    without = [run("bantam", [1.7], seed=s, corpus="without c4", kept=2.5) for s in (0, 1)]
    rows = cells(
        less.ablation_table(
            [r for r in runs if r["share"] == 1.0 and r["corpus"] != "scored"] + without
        )
    )
    assert [row[2].split()[0] for row in rows[2:]] == ["+0.500", "+0.000", "+0.200"]
    assert rows[4][4].startswith("+0.500")


@pytest.mark.parametrize("without", [None, *range(10)])
def test_each_step_has_a_recipe_without_it(
    less: ModuleType, tmp_path: Path, without: int | None
) -> None:
    steps = list(less.STEPS)
    assert len(steps) == 10
    step = None if without is None else steps[without]
    (tmp_path / "recipe.toml").write_text(less.recipe_of(step), "utf-8")
    made = recipe_documents.load(tmp_path / "recipe.toml").documents
    assert set(made.sources) == set(less.SOURCES)
    assert (made.languages == []) == (step == "languages")
    assert (made.boilerplate is None) == (step == "boilerplate")
    assert (made.redact.kinds == []) == (step == "redaction")
    assert made.markup == (step != "markup")
    as_it_comes = step == "own thresholds"
    wanted = None if step == "gopher" else 0.8 if as_it_comes else 0.6
    assert made.gopher.min_alphabetic == wanted
    assert made.repetition.max_5_grams == (
        None if step == "repetition" else 0.15 if as_it_comes else 0.26
    )
    assert made.score is None


def test_a_score_is_learned_from_the_pages_that_are_not_judged(
    less: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(less, "GOOD", tmp_path / "good")
    pages = pl.DataFrame({"path": list("abcdefgh"), "id": list("12345678"), "text": ["…"] * 8})
    shown = less.shown(pages)
    assert 0 < shown.sum() < 8
    less.show(pages.filter(shown))
    (tmp_path / "recipe.toml").write_text(less.recipe_of(None, scored=True), "utf-8")
    made = recipe_documents.load(tmp_path / "recipe.toml").documents
    assert made.score is not None and made.score.keep == less.KEPT
    (good,) = made.score.good
    assert {file.stem for file in Path(good).glob("*.txt")} == set(pages.filter(shown)["id"])


NOUNS = "water house garden river story letter morning winter animal window village mountain"
VERBS = "carries follows watches remembers changes finds leaves paints opens answers needs brings"
LIKE = "green quiet early heavy simple narrow bright honest strange careful modern patient"


def prose(n: int) -> str:
    """A text that no rule has anything against, unlike all others."""
    draw = random.Random(n)
    nouns, verbs, like = (words.split() for words in (NOUNS, VERBS, LIKE))
    lines = []
    for _ in range(9):
        one, two, three = draw.sample(nouns, 3)
        sentence = f"{draw.choice(['The', 'That', 'One'])} {draw.choice(like)} {one}"
        sentence += f" {draw.choice(verbs)} {draw.choice(['the', 'a', 'this'])} {two}"
        sentence += f" {draw.choice(['and', 'that', 'when it'])} {draw.choice(verbs)} the {three}."
        lines.append(sentence)
    return "\n".join(lines)


def test_what_judges_is_in_no_corpus(
    less: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "messy"
    for name in less.SOURCES:
        (folder / name).mkdir(parents=True)
        for n in range(40):
            (folder / name / f"{n}.txt").write_text(prose(n + 1000 * len(name)), "utf-8")
    for n in range(40):  # copies of each
        (folder / "mails" / f"copy-{n}.txt").write_text(prose(n + 7000) + "\nOnce more.", "utf-8")
    monkeypatch.setattr(less, "FOLDER", tmp_path / "less")
    monkeypatch.setattr(less, "SHARES", (1.0,))
    held = less.held_out(folder)
    judged = held.filter("judged")
    assert 0 < len(judged) < 40
    raw, kept = less.corpus_of("raw", folder), less.corpus_of("curated", folder)
    assert len(raw) == 160
    assert set(held["id"]) <= set(raw["id"])
    less.write("raw", raw, judged, held)
    less.write("curated", kept, judged, held)
    import polars as pl

    learned = pl.read_parquet(tmp_path / "less" / "raw" / "train.parquet")
    assert len(learned) == len(raw) - len(held)
    bodies = [text.split("\n")[0] for text in judged["text"]]
    assert not set(bodies) & {text.split("\n")[0] for text in learned["text"]}
    again = less.corpus_of("without duplicates", folder)
    assert len(again) > len(kept)


def test_pairs_of_our_own_are_pairs(tmp_path: Path) -> None:
    import grammar_pairs

    made = list(grammar_pairs.pairs())
    assert made == list(grammar_pairs.pairs())
    assert len(made) == grammar_pairs.EACH * len(grammar_pairs.PHENOMENA) > 500
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, made)), "utf-8")
    read = pairs.read(tmp_path / "pairs.jsonl")
    assert len({pair.good for pair in read}) == len(read)
    assert not {pair.good for pair in read} & {pair.bad for pair in read}
    for pair in read:  # they differ in few words
        good, bad = (set(sentence.split()) for sentence in pair[:2])
        assert len(good ^ bad) <= 4, pair


def test_a_model_that_counts_forms_does_not_pass() -> None:
    """Words alone, without their order or company, tell little: forms are right and wrong alike."""
    import grammar_pairs

    made = [pairs.Pair(**one) for one in grammar_pairs.pairs(each=200)]
    for one in pairs.judge(made, lambda sentences: [-len(sentence) for sentence in sentences]):
        if "number" in one.phenomenon or one.phenomenon in ("there is", "reflexive"):
            assert 0.2 < one.accuracy < 0.8, one
