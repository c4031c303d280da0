"""Outputs that are JSON: read from cells, written in one way, held against a schema.

Functions take and give frames as `clean` does; a row that does not fit gets a reason.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

import polars as pl

from bantam.errors import BadInput
from bantam.text.clean import KEPT, mark

NESTED = 64  # lists and objects within each other; deeper, readers elsewhere give up
MOST_UNFIT = 0.1  # of the rows; beyond, the column is not what it seems to be
NAMED = 3  # rows in an error
LEAST_JSON = 0.9  # of the cells of a column that holds it
LOOKED_AT = 1000  # cells
BROKEN = "output breaks the schema"

Check = Callable[[Any], str | None]  # what is wrong with a value


def parse(text: str) -> Any:
    """The value of a JSON text. ValueError tells why it is none, or none that can be used."""
    try:
        value = _decode(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("is not JSON") from None
    if text.count("[") + text.count("{") > NESTED and _deeper(value, NESTED):
        raise ValueError("is nested too deeply")
    return value


def written(value: Any) -> str:
    """The one way in which a value is written; half a surrogate pair, no character, becomes ?."""
    text = _encode(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def outputs(frame: pl.DataFrame, schema: dict[str, Any] | None = None) -> pl.DataFrame:
    """Outputs as `written`; rows whose output is no JSON or breaks the schema are marked.

    Without a schema all must be objects or all lists. BadInput: they are not, the schema is none,
    or more than a tenth of the rows do not fit.
    """
    frame = _settled(frame, "output", _schema_check(schema) if schema else _anything)
    _check_unfit(frame)
    if schema is None:
        _check_alike(frame)
    return _same_spelling(frame)


def calls(frame: pl.DataFrame) -> pl.DataFrame:
    """`output`, `tools` and `accepted` as `written`; rows where one of them is none are marked.

    Calls are {"name": ..., "arguments": {...}}; those of chat APIs, in an object of their own and
    with their arguments as JSON text, become such. BadInput: more than a tenth are none.
    """
    empty = pl.col("tools").fill_null("").str.strip_chars() == ""
    frame = mark(frame, empty, "no tools")
    frame = _settled(frame, "output", _calls_check, _plain_calls)
    frame = _settled(frame, "tools", _tools_check, _as_list)
    frame = _settled(frame, "accepted", _accepted_check, _as_list)
    _check_unfit(frame)
    return _same_spelling(frame)


def seen(cells: pl.Series) -> Literal["json", "functions"] | None:
    """What nearly all of these texts hold: JSON objects or lists of them, among these declarations
    of functions, or neither."""
    if _share_begun(cells) <= LEAST_JSON:
        return None
    read = [_objects(cell) for cell in cells.head(LOOKED_AT)]
    parsed = [found for found in read if found is not None]
    if len(parsed) <= LEAST_JSON * len(read) or not any(parsed):
        return None
    declared = all(map(_is_function, (one for found in parsed for one in found)))
    return "functions" if declared else "json"


def _share_begun(cells: pl.Series) -> float:
    """The share of cells that begin as JSON does: most columns need no closer look."""
    begun = cells.filter(cells.str.contains(r"^[\[{]"))
    return len(begun) / max(1, len(cells))


def broken(cells: pl.Series) -> list[str]:
    """The texts that are no JSON, if more than half hold it, though too few for `seen`."""
    if _share_begun(cells) <= 0.5:
        return []
    read = [(cell, _objects(cell)) for cell in cells.head(LOOKED_AT)]
    others = [cell for cell, found in read if found is None]
    most, least = (1 - LEAST_JSON) * len(read), 0.5 * len(read)
    return others if most <= len(others) < least else []


def _objects(cell: str) -> list[dict[str, Any]] | None:
    """The objects of a cell that holds one or a list of them."""
    try:
        found = _as_list(parse(cell))
    except ValueError:
        return None
    return found if isinstance(found, list) and _tools_check(found) is None else None


def _is_function(one: dict[str, Any]) -> bool:
    if isinstance(one.get("function"), dict):
        return "name" in one["function"]
    return "name" in one and "parameters" in one


def unfit(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows that `outputs` or `calls` marked: file, row, reason."""
    ours = pl.any_horizontal(
        pl.col("reason").str.starts_with(f"{name} ") for name in ("output", "tools", "accepted")
    )
    return frame.filter(ours).select("file", "row", "reason")


def _settled(
    frame: pl.DataFrame,
    column: str,
    check: Check,
    change: Callable[[Any], Any] = lambda value: value,
) -> pl.DataFrame:
    cells, reasons = [], []
    for cell, reason in frame.select(column, "reason").iter_rows():
        if reason is None and not (cell and cell.strip()):
            cell = None
        elif reason is None:
            try:
                value = change(parse(cell))
                cell, wrong = written(value), check(value)
            except ValueError as error:
                wrong = str(error)
            reason = f"{column} {wrong}" if wrong else None
        cells.append(cell)
        reasons.append(reason)
    return frame.with_columns(
        pl.Series(column, cells, pl.String), pl.Series("reason", reasons, pl.String)
    )


def _anything(_: Any) -> None:
    return None


def _schema_check(schema: dict[str, Any]) -> Check:
    from bantam.kinds import schema as rules

    checked = rules.check(schema, "task.schema")

    def check(value: Any) -> str | None:
        wrong = rules.mistake(checked, value)
        if wrong is None:
            return None
        quoted = next(_quoted_numbers(checked, value, ""), None)
        return f"{BROKEN.removeprefix('output ')}: {quoted or wrong}"

    return check


def _quoted_numbers(schema: Any, value: Any, path: str) -> Iterator[str]:
    """The places where the schema wants a number and the value holds one as text."""
    if not isinstance(schema, dict):
        return
    if isinstance(value, dict) and isinstance(schema.get("properties"), dict):
        for key, inner in value.items():
            yield from _quoted_numbers(
                schema["properties"].get(key), inner, f"{path}.{key}" if path else key
            )
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _quoted_numbers(schema.get("items"), inner, f"{path}[{place}]")
    elif isinstance(value, str) and schema.get("type") in ("number", "integer"):
        try:
            float(value)
        except ValueError:
            return
        kind = "a number" if schema["type"] == "number" else "an integer"
        shown = json.dumps(value[:40], ensure_ascii=False)
        yield f"{path or 'it'}: {shown} is {kind} in quotes; write it without"


def _plain_calls(value: Any) -> Any:
    return [_plain_call(call) for call in value] if isinstance(value, list) else value


def _plain_call(call: Any) -> Any:
    if isinstance(call, dict) and isinstance(call.get("function"), dict):
        call = call["function"]
    if not isinstance(call, dict) or not {"name", "arguments"} <= call.keys():
        return call
    arguments = call["arguments"]
    if isinstance(arguments, str):
        arguments = parse(arguments)
    return {"name": call["name"], "arguments": arguments}


def _calls_check(value: Any) -> str | None:
    if isinstance(value, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments"), dict)
        for call in value
    ):
        return None
    return 'is no list of calls such as {"name": ..., "arguments": {...}}'


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _tools_check(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return None
    return "is no list of functions"


def _accepted_check(value: Any) -> str | None:
    if isinstance(value, list) and all(
        isinstance(call, dict)
        and len(call) == 1
        and all(
            isinstance(arguments, dict)
            and all(isinstance(values, list) for values in arguments.values())
            for arguments in call.values()
        )
        for call in value
    ):
        return None
    return "is no list of calls such as {name: {argument: [values that are right]}}"


def _check_unfit(frame: pl.DataFrame) -> None:
    bad = unfit(frame)
    read = frame.filter(KEPT).height + bad.height
    if bad.height <= MOST_UNFIT * read:
        return
    named = "; ".join(f"{file}, row {row}: {reason}" for file, row, reason in bad.head(3).rows())
    more = f" and {bad.height - NAMED} more" if bad.height > NAMED else ""
    raise BadInput(
        f"{bad.height} of {read} rows do not fit: {named}{more}",
        "mend these rows, or the schema if there is one; are data.output and task.kind right?",
    )


def _check_alike(frame: pl.DataFrame) -> None:
    """All outputs are objects, or all are lists."""
    kept = frame.filter(KEPT).select("file", "row", "output")
    first = kept.with_columns(pl.col("output").str.head(1).alias("begins")).unique(
        "begins", keep="first", maintain_order=True
    )
    bare = first.filter(~pl.col("begins").is_in(["{", "["]))
    if bare.height:
        file, row, output, _ = bare.row(0)
        raise BadInput(
            f"{file}, row {row}: the output {output[:60]} is neither an object nor a list",
            'kind = "extract" needs one such as {"name": "Ada"}; say kind = "classify" if outputs '
            'are labels, kind = "generate" if they are texts',
        )
    if first.height > 1:
        (file, row, output, _), (other_file, other_row, other, _) = first.rows()
        raise BadInput(
            f"some outputs are objects, some lists: {file}, row {row}: {output[:60]}; "
            f"{other_file}, row {other_row}: {other[:60]}",
            "write all as one of them; a single object can be a list of one",
        )


def _same_spelling(frame: pl.DataFrame) -> pl.DataFrame:
    """Outputs that differ in the order of their keys alone become the first of them."""
    first: dict[str, str] = {}
    other = {}
    for output in frame.filter(KEPT)["output"].unique(maintain_order=True):
        stays = first.setdefault(json.dumps(json.loads(output), sort_keys=True), output)
        if stays != output:
            other[output] = stays
    changed = pl.when(KEPT).then(pl.col("output").replace(other)).otherwise("output")
    return frame.with_columns(changed.alias("output")) if other else frame


def _deeper(value: Any, most: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    below = value.values() if isinstance(value, dict) else value
    return most == 0 or any(_deeper(one, most - 1) for one in below)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large")
    return number


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode
_encode = json.JSONEncoder(ensure_ascii=False).encode
