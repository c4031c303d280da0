"""Chat templates: messages to segments, in a sandbox with limits.

A template comes with a model from anywhere, so it may be hostile: it gets a short list of filters
and methods, an amount of time, and no value may grow beyond a limit. Messages come from users, so
their text stays apart from the template's (`marked`), and only the template's is trusted.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jinja2
from jinja2 import filters, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from markupsafe import Markup

from bantam.errors import BadInput
from bantam.formats import marked
from bantam.formats.marked import Marked
from bantam.formats.tokenizer import Segment

_SECONDS = 2.0
_MAX_TEMPLATE = 256 << 10  # characters
_MAX_WEIGHT = 8 << 20  # characters and items in one value
_MAX_BITS = 4096  # of a whole number
_CONVERSION = r"%%|%(\(\w+\))?[-+ 0#]*\d{0,2}(\.\d{0,2})?[a-zA-Z]"  # of "%", none of them wide
_MEND = "use the model's own, unaltered template, or another model"


def render(
    template: str | None,
    messages: list[dict[str, Any]],
    *,
    tools: list[dict[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
) -> list[Segment]:
    """The prompt for `messages` (each with "role" and "content") as segments.

    What came from messages or tools is untrusted, except for the roles, which are checked, and for
    white space around a text. The joined segments equal what transformers' `apply_chat_template`
    gives; a template writes `bos_token` itself where it wants one. Without a template the prompt is
    "Role:", a line end, the content and an empty line for each message, then "Assistant:" and a
    line end. Raises BadInput for a template that fails, refuses the messages, or passes a limit.
    """
    for message in messages:
        role = message.get("role")
        if not (isinstance(role, str) and re.fullmatch(r"[A-Za-z_-]{1,40}", role)):
            raise BadInput(
                f"a chat message has the role {role!r}",
                'use "system", "user", "assistant" or "tool"',
            )
    if template is None:
        return _plain(messages, add_generation_prompt)
    if len(template) > _MAX_TEMPLATE:
        raise BadInput(f"the chat template has {len(template)} characters", _MEND)
    try:
        with _deadline(_SECONDS):
            text = _compiled(template).render(
                messages=[
                    {k: v if k == "role" else _from_user(v) for k, v in message.items()}
                    for message in messages
                ],
                tools=_from_user(tools),
                add_generation_prompt=add_generation_prompt,
                bos_token=bos_token,
                eos_token=eos_token,
            )
    except _OutOfTime:
        raise BadInput(f"the chat template took over {_SECONDS:g} seconds", _MEND) from None
    except _Refused as error:
        raise BadInput(
            f"the chat template refuses these messages: {error}", "change them"
        ) from None
    # A template may fail with any error; RecursionError and MemoryError are among them.
    except Exception as error:
        raise BadInput(
            f"the chat template failed: {type(error).__name__}: {error}", _MEND
        ) from error
    return marked.segments(text)


def _plain(messages: list[dict[str, Any]], add_generation_prompt: bool) -> list[Segment]:
    pieces: list[str] = []
    for message in messages:
        content = Marked.from_user(str(message.get("content") or ""))
        pieces += [message["role"].capitalize(), ":\n", content, "\n\n"]
    return marked.segments(marked.join("", [*pieces, "Assistant:\n" * add_generation_prompt]))


def _from_user(value: Any) -> Any:
    if isinstance(value, str):
        return Marked.from_user(value)
    if isinstance(value, dict):
        return {_from_user(key): _from_user(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_from_user(each) for each in value]
    return value


class _OutOfTime(BaseException):
    """Not an Exception, so that nothing on the way takes it for one of the template's errors."""


class _Refused(jinja2.TemplateError):
    """The template called `raise_exception`."""


# Whose code is watched: that of templates, jinja2, json and this room. In foreign code that happens
# to run (a garbage collector's callback) the exception would be lost.
_MODULES = (jinja2.__file__, json.__file__, __file__)
_WATCHED = ("<template>", *(str(Path(module).parent) for module in _MODULES))


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Stop the block with _OutOfTime; looked at before every line of Python that it runs."""
    end = time.monotonic() + seconds

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith(_WATCHED):
            return None
        # Not at other events: one of them is the closing of a generator, which swallows exceptions.
        if event == "line" and time.monotonic() > end:
            raise _OutOfTime
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


_CONTAINERS: tuple[Any, ...] = (
    *(list, tuple, set),
    *(type({}.keys()), type({}.values()), type({}.items())),
)


def _has_user_text(*values: Any) -> bool:
    """Whether untrusted text is in `values`. Raises when one of them is over the limit.

    As every value a template makes passes through here, no step can start from a large one.
    """
    found = False
    weight = 0
    left = list(values)
    while left:
        value = left.pop()
        weight += 1
        if isinstance(value, str):
            weight += len(value)
            found = found or (isinstance(value, Marked) and 0 in value.marks)
        elif isinstance(value, dict):
            left += value.keys()
            left += value.values()
        elif isinstance(value, _CONTAINERS):
            left += value
        elif isinstance(value, Namespace):
            left += object.__getattribute__(value, "_Namespace__attrs").values()
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise SecurityError(f"a number has more than {_MAX_BITS} bits")
        if weight > _MAX_WEIGHT:
            raise SecurityError(f"a value has more than {_MAX_WEIGHT} characters or items")
    return found


def _made_from(result: Any, *origins: Any) -> Any:
    """`result`, untrusted as a whole when it is plain text made from a user's."""
    if isinstance(result, Markup):
        result = str(result)
    _has_user_text(result)
    if isinstance(result, str) and not isinstance(result, Marked) and _has_user_text(*origins):
        return marked.untrusted(result)
    return result


def _text(value: Any) -> str:
    """How a value is written."""
    text: str = _made_from(value if isinstance(value, str) else str(value), value)
    return text


def _join(separator: str, values: Iterable[Any]) -> str:
    pieces: list[str] = []
    length = 0
    for value in values:
        pieces.append(_text(value))
        length += len(pieces[-1]) + len(separator)
        _limit(length)
    return marked.join(separator, pieces)


def _limit(length: int) -> None:
    if length > _MAX_WEIGHT:
        raise SecurityError(f"a value would have more than {_MAX_WEIGHT} characters or items")


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    _limit(len(text) + text.count(old) * len(new))
    replaced: str = _made_from(text.replace(old, new, count), text, new)
    return replaced


def _times(left: Any, right: Any) -> Any:
    for many, number in ((left, right), (right, left)):
        if isinstance(many, str | list | tuple) and isinstance(number, int):
            _limit(len(many) * number)
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
        raise SecurityError(f"a number would have more than {_MAX_BITS} bits")
    return left**right


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        if "%" in re.sub(_CONVERSION, "", left):
            raise SecurityError("a format asks for a width")
        _has_user_text(*[right] * left.count("%"))  # by its name, each may write the same
    return left % right


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers: no HTML escapes, and characters as they are."""
    _limit((indent or 0) << 16)
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    size = width if isinstance(width, int) else len(width)
    _limit(len(text) + size * (text.count("\n") + 1))
    return filters.do_indent(text, width, first, blank)


@jinja2.pass_environment
def _join_filter(
    environment: jinja2.Environment, values: Iterable[Any], d: str = "", attribute: Any = None
) -> str:
    if attribute is not None:
        values = map(filters.make_attrgetter(environment, attribute), values)
    return _join(d, values)


def _raise_exception(message: Any) -> None:
    raise _Refused(str(message)[:1000])


def _strftime_now(format: str) -> str:
    if len(format) > 100 or re.search(r"%[^a-zA-Z%]*\d", format):
        raise SecurityError("a format of the date is too long")
    return datetime.datetime.now().strftime(format)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _made_from(function(*args, **kwargs), *args, *kwargs.values())

    return call


# The filters whose work is in proportion to what they are given; the others are left out.
_PLAIN_FILTERS = """
    abs capitalize count d default dictsort e escape first float groupby int items last length list
    lower map max min reject rejectattr reverse select selectattr sort string title trim unique
    upper wordcount
"""
_FILTERS = {name: filters.FILTERS[name] for name in _PLAIN_FILTERS.split()} | {
    "indent": _indent,
    "join": _join_filter,
    "replace": _replace,
    "safe": lambda text: text,
    "tojson": _tojson,
}
_STR_METHODS = """
    capitalize count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric isspace
    istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex
    rpartition rsplit rstrip split splitlines startswith strip swapcase title upper
"""
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_STR_METHODS.split()),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}


class _Generator(CodeGenerator):
    """Compiles `a ~ b` and literal lists, tuples and dicts to calls that are checked."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat((")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write("))")

    def _visit_checked(self, visit: Callable[..., None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.checked(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._visit_checked(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._visit_checked(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "store":
            super().visit_Tuple(node, frame)
        else:
            self._visit_checked(super().visit_Tuple, node, frame)


class _Generation(Extension):
    """`{% generation %}`, by which templates mark the assistant's text, changes nothing."""

    tags = {"generation"}  # noqa: RUF012 (so in jinja2)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "*", "**", "%"))
    concat = staticmethod(functools.partial(_join, ""))
    checked = staticmethod(_made_from)

    def __init__(self) -> None:
        # Not optimized: folding constants would do at compile time what is checked at run time.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_text,
            extensions=[_Generation, loopcontrols],
        )
        self.filters = {name: _checked(function) for name, function in _FILTERS.items()}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.binop_table |= {"*": _times, "**": _power, "%": _modulo}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return _made_from(super().call_binop(context, operator, left, right), left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return not isinstance(obj, int | float) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        return None  # str.format is no safe attribute here

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ == "join":
            return _join(owner, *args)
        if isinstance(owner, str) and __obj.__name__ == "replace":
            return _replace(owner, *args)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(__obj, Macro | LoopContext):  # their own text is the template's
            return _made_from(result)
        origins = (owner, *args, *kwargs.values())
        if isinstance(owner, str) and isinstance(result, list | tuple):  # splitlines, partition
            return [_made_from(each, *origins) for each in result]
        return _made_from(result, *origins)


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    environment = _Environment()
    if environment.parse(template).find(nodes.EvalContextModifier):
        raise SecurityError("{% autoescape %} is not allowed")
    return environment.from_string(template)
