"""Fetch questions with function declarations from the Berkeley Function Calling Leaderboard.

    python recipes/function-calls/fetch.py

Patil, S. et al. (2025), The Berkeley Function Calling Leaderboard, ICML 2025; package bfcl-eval,
Apache-2.0. Each row of data/train.jsonl, val.jsonl and test.jsonl is a question, the functions that
may be called, the call that answers it (or none), and all that the leaderboard accepts. The
declarations are those of the leaderboard, their types in JSON Schema's words.

A model should call functions that it has never seen: no function is declared in two of the files.
The column `functions` is the group that a row's functions are in. Through functions that are
declared beside the wanted one most rows would hang together. Functions therefore join in the order
of how often they are declared together, as long as a group stays small, and a row keeps the
functions of one group: that of the wanted one. Val and test have many small groups.
"""

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from bantam.errors import BadInput, JobFailed
from bantam.kinds import declarations, schema
from bantam.sources import resolve

SOURCE = "pypi:bfcl-eval==2026.3.23"
CALLS = ("simple_python", "multiple", "live_simple", "live_multiple")
NO_CALLS = ("irrelevance", "live_irrelevance")
NO_CALL_SHARE = 0.2  # of the rows
LARGEST_GROUP = 80  # rows
LONGEST = 4000  # bytes of a question and its declarations: about 1,000 tokens
LONGEST_LEARNED = 1200  # of a training row: the longer 40% would cost two thirds of the time
LARGEST_JUDGED = 40  # rows of a group in val or test: more would count one function too often
JUDGED = {"test": (320, 80), "val": (120, 30)}  # how many rows with a call, and without
LEFT_OUT = ""  # among the accepted values: the parameter need not be given
DATA = Path(__file__).parent / "data"

Json = dict[str, Any]


class Row(NamedTuple):
    text: str
    tools: list[Json]
    output: list[Json]
    accepted: list[Json]
    functions: str = ""


class Unusable(Exception):
    """Why a row is left out."""


def main() -> None:
    folder = resolve(SOURCE).path / "bfcl_eval/data"
    lost: Counter[str] = Counter()
    asked = list(usable(entries(folder, CALLS), lost))
    idle = list(usable(entries(folder, NO_CALLS), lost))
    chosen = asked + few(idle, round(len(asked) * NO_CALL_SHARE / (1 - NO_CALL_SHARE)))
    grouped = with_groups(chosen)
    report(chosen, grouped, lost, len(idle))
    rows = split(grouped)
    rows["train"] = [row for row in rows["train"] if size(row.text, row.tools) <= LONGEST_LEARNED]
    for name, some in rows.items():
        write(DATA / f"{name}.jsonl", some)


def entries(folder: Path, categories: Sequence[str]) -> Iterator[Json]:
    """The leaderboard's rows, with what it accepts under `ground_truth`."""
    for category in categories:
        name = f"BFCL_v4_{category}.json"
        answers = folder / "possible_answer" / name
        accepted = {one["id"]: one["ground_truth"] for one in lines(answers)}
        for entry in lines(folder / name):
            yield entry | {"ground_truth": accepted.get(entry["id"], [])}


def lines(path: Path) -> list[Json]:
    if not path.exists():  # categories without calls have no answers
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def usable(found: Iterable[Json], lost: Counter[str]) -> Iterator[Row]:
    seen = set()
    for entry in found:
        try:
            row = as_row(entry)
        except Unusable as reason:
            lost[str(reason)] += 1
            continue
        key = json.dumps([row.text, row.tools])
        if key in seen:
            lost["asked twice"] += 1
        else:
            seen.add(key)
            yield row


def as_row(entry: Json) -> Row:
    (messages,) = entry["question"]
    if [one["role"] for one in messages] != ["user"]:
        raise Unusable("more than one message")
    text = messages[0]["content"].strip()
    try:
        tools = declarations.tools(entry["function"], entry["id"])
    except BadInput:
        raise Unusable("no declarations, or parameters that are no schema") from None
    if size(text, tools) > LONGEST:
        raise Unusable("too long")
    accepted = entry["ground_truth"]
    output = [expected(one, tools) for one in accepted]
    if schema.mistake(declarations.of_tools(tools, len(output)), output):
        raise Unusable("the accepted call breaks its declaration")
    return Row(text, tools, output, accepted)


def size(text: str, tools: list[Json]) -> int:
    """The bytes of a question and its declarations."""
    return len(f"{text}{declarations.declared(tools)}".encode())


def expected(accepted: Json, tools: list[Json]) -> Json:
    """The call made of the first accepted values; what may be left out before all is left out."""
    ((name, parameters),) = accepted.items()
    declared = next(one["function"] for one in tools if one["function"]["name"] == name)
    required = declared["parameters"].get("required", [])
    arguments = {}
    for parameter, values in parameters.items():
        given = [value for value in values if value != LEFT_OUT]
        if given and (values[0] != LEFT_OUT or parameter in required):
            arguments[parameter] = first(given[0])
    return {"name": name, "arguments": arguments}


def first(value: Any) -> Any:
    """In an object, and in each of a list of objects, every key has its accepted values again."""
    if isinstance(value, dict):
        return {key: some[0] for key, some in value.items() if some and some[0] != LEFT_OUT}
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return [first(one) for one in value]
    return value


def few(found: list[Row], count: int) -> list[Row]:
    """So many of the rows, chosen by their questions' hashes, in the order in which they stood."""
    order = sorted(found, key=lambda row: hashlib.sha256(row.text.encode()).digest())
    taken = {id(row) for row in order[:count]}
    return [row for row in found if id(row) in taken]


def with_groups(found: list[Row]) -> list[Row]:
    """Each row with the group of its functions, and the functions of that group alone."""
    group_of = groups(found)
    grouped = []
    for row in found:
        names = declared_names(row)
        wanted = [call["name"] for call in row.output] or names
        group = Counter(group_of[name] for name in wanted).most_common(1)[0][0]
        tools = [tool for tool in row.tools if group_of[tool["function"]["name"]] == group]
        grouped.append(row._replace(tools=tools, functions=group))
    return grouped


def groups(found: list[Row]) -> dict[str, str]:
    """The group of each function, named after one of its functions.

    One function under two names, and two spellings of one name, are always together. Others join
    while the rows of a group are not too many.
    """
    members: dict[str, set[str]] = {}
    rows: Counter[str] = Counter()  # of each group, under the names of all its functions

    def join(one: str, other: str) -> None:
        if members[one] is not members[other]:
            joined, count = members[one] | members[other], rows[one] + rows[other]
            for name in joined:
                members[name], rows[name] = joined, count

    alike: dict[str, str] = {}
    together: Counter[tuple[str, str]] = Counter()
    for row in found:
        names = declared_names(row)
        for name in names:
            members.setdefault(name, {name})
        rows[row.output[0]["name"] if row.output else names[0]] += 1
        together.update(combinations(sorted(set(names)), 2))
    for row in found:
        for tool in row.tools:
            name = tool["function"]["name"]
            for sign in signs(tool):
                join(name, alike.setdefault(sign, name))
    for one, other in sorted(together, key=lambda pair: (-together[pair], pair)):
        if rows[one] + rows[other] <= LARGEST_GROUP:
            join(one, other)
    return {name: min(group) for name, group in members.items()}


def declared_names(row: Row) -> list[str]:
    return [tool["function"]["name"] for tool in row.tools]


def signs(tool: Json) -> list[str]:
    """What two declarations of one function share: their name's letters, or all but the name."""
    rest = {key: value for key, value in tool["function"].items() if key != "name"}
    letters = re.sub(r"[^a-z0-9]", "", tool["function"]["name"].lower())
    return [f"name {letters}", json.dumps(rest, sort_keys=True)]


def split(found: list[Row]) -> dict[str, list[Row]]:
    """The rows of train, val and test: whole groups, as many as are asked for, in a fixed order."""
    members: dict[str, list[Row]] = {}
    for row in found:
        members.setdefault(row.functions, []).append(row)
    rows: dict[str, list[Row]] = {name: [] for name in ("train", "val", "test")}
    for group in sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest()):
        more = members[group]
        name = next((name for name in JUDGED if has_room(name, rows[name], more)), "train")
        rows[name] += more
    return rows


def has_room(name: str, rows: list[Row], more: list[Row]) -> bool:
    calls = sum(bool(row.output) for row in (*rows, *more))
    most_calls, most_without = JUDGED[name]
    fits = calls <= most_calls and len(rows) + len(more) - calls <= most_without
    return fits and len(more) <= LARGEST_JUDGED


def write(target: Path, found: list[Row]) -> None:
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row._asdict(), ensure_ascii=False)}\n" for row in found)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    calls = sum(bool(row.output) for row in found)
    groups = len({row.functions for row in found})
    print(f"{target}: {len(found)} rows of {groups} groups, {calls} with a call")


def report(chosen: list[Row], grouped: list[Row], lost: Counter[str], idle: int) -> None:
    calls = sum(bool(row.output) for row in grouped)
    sizes = Counter(row.functions for row in grouped)
    print(f"{calls} rows with a call, {len(grouped) - calls} of {idle} without")
    for reason, count in lost.most_common():
        print(f"  {count} left out: {reason}")
    largest = ", ".join(str(count) for _, count in sizes.most_common(5))
    print(f"  {len(sizes)} groups of functions; the largest have {largest} rows")
    pairs = list(zip(chosen, grouped, strict=True))
    shorter = [(before, after) for before, after in pairs if len(before.tools) > len(after.tools)]
    gone = sum(len(before.tools) - len(after.tools) for before, after in shorter)
    print(f"  {gone} of {sum(len(row.tools) for row in chosen)} declarations of other groups")
    print(f"  taken out of {len(shorter)} rows")
    counts = sorted(Counter(len(row.tools) for row in grouped).items())
    print("  functions a row: " + ", ".join(f"{number}: {count}" for number, count in counts))


if __name__ == "__main__":
    try:
        main()
    except (BadInput, JobFailed) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
