"""What narrows a site: indices, slices, lists, named spans and per-row positions, all as hashable values.

Text forms: ``3``, ``-1``, ``1:4``, ``:``, ``[0,2]``, ``span("subject").last``, ``rows(4,6,5)``.
"""

import json
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mainspring.errors import PositionError, SelectorError

__all__ = ["Index", "PerRow", "Slice", "Span", "as_index", "format_index", "parse_index", "span"]


@dataclass(frozen=True)
class Slice:
    """A Python slice as a hashable value."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None

    def __str__(self) -> str:
        def show(x: int | None) -> str:
            return "" if x is None else str(x)

        tail = f":{self.step}" if self.step is not None else ""
        return f"{show(self.start)}:{show(self.stop)}{tail}"

    def indices(self, length: int) -> range:
        """The indices it picks on an axis of `length`."""
        return range(*slice(self.start, self.stop, self.step).indices(length))


@dataclass(frozen=True)
class Span:
    """A named stretch of tokens; each row may place it elsewhere.

    `part` is None (the whole stretch), or an index into it: 0 the first token, -1 the last.
    """

    name: str
    part: int | None = None

    @property
    def first(self) -> "Span":
        return Span(self.name, 0)

    @property
    def last(self) -> "Span":
        return Span(self.name, -1)

    def __getitem__(self, part: int) -> "Span":
        return Span(self.name, operator.index(part))

    def __str__(self) -> str:
        tail = {None: "", 0: ".first", -1: ".last"}.get(self.part, f"[{self.part}]")
        return f"span({json.dumps(self.name)}){tail}"


def span(name: str) -> Span:
    """The tokens that the inputs call `name`; `.first`, `.last` and `[i]` pick one of them."""
    if not isinstance(name, str) or not name:
        raise PositionError(f"a span is named by a non-empty string, not {name!r}")
    return Span(name)


@dataclass(frozen=True)
class PerRow:
    """One index for each row of the batch."""

    indices: tuple[int, ...]

    def __str__(self) -> str:
        return f"rows({','.join(map(str, self.indices))})"


Index = int | Slice | tuple[int, ...] | Span | PerRow


def as_index(value: Any, key: str) -> Index:
    """The hashable form of whatever a user may write: int, slice, range, list, tensor, span, or already an index.

    A one-dimensional tensor means one index per row; a list or tuple means several indices for every row.
    """
    if isinstance(value, Slice | Span | PerRow):
        return value
    if isinstance(value, bool) or value is None:
        raise SelectorError(f"{key}={value!r} is not an index; write an int, a slice, a list or a span")
    if isinstance(value, slice):
        return Slice(*(None if x is None else operator.index(x) for x in (value.start, value.stop, value.step)))
    if isinstance(value, str):
        return parse_index(value, key)
    if hasattr(value, "ndim") and hasattr(value, "tolist"):  # a tensor or an array
        flat = value.tolist()
        if value.ndim == 0:
            return operator.index(flat)
        if value.ndim == 1 and all(isinstance(x, int) for x in flat):
            return PerRow(tuple(flat))
        raise SelectorError(f"{key}= takes a tensor of integers with one entry per row, not shape {tuple(value.shape)}")
    if isinstance(value, Iterable):
        many = tuple(operator.index(x) for x in value)
        if not many:
            raise SelectorError(f"{key}=[] selects nothing; name at least one index")
        if len(set(many)) != len(many):
            raise SelectorError(f"{key}={list(many)} names an index twice")
        return many
    try:
        return operator.index(value)
    except TypeError:
        raise SelectorError(f"{key}={value!r} is not an index; write an int, a slice, a list or a span") from None


def format_index(index: Index) -> str:
    """The text form that `parse_index` reads back."""
    if isinstance(index, tuple):
        return f"[{','.join(map(str, index))}]"
    return str(index)


_INT = r"-?\d+"
_SLICE = re.compile(rf"({_INT})?:({_INT})?(?::({_INT})?)?")
_LIST = re.compile(rf"\[\s*({_INT}(?:\s*,\s*{_INT})*)\s*,?\s*\]")
_ROWS = re.compile(rf"rows\(\s*({_INT}(?:\s*,\s*{_INT})*)\s*\)")
_SPAN = re.compile(rf'span\(("(?:[^"\\]|\\.)*")\)(?:\.(first|last)|\[({_INT})\])?')


def parse_index(text: str, key: str = "index") -> Index:
    """Read one index from its text form."""
    text = text.strip()
    if re.fullmatch(_INT, text):
        return int(text)
    if text == "*":
        return Slice()
    if match := _SLICE.fullmatch(text):
        start, stop, step = (None if x is None else int(x) for x in match.groups())
        if step == 0:
            raise SelectorError(f"{key}={text}: a slice cannot step by zero")
        return Slice(start, stop, step)
    if match := _LIST.fullmatch(text):
        return as_index([int(x) for x in match[1].split(",")], key)
    if match := _ROWS.fullmatch(text):
        return PerRow(tuple(int(x) for x in match[1].split(",")))
    if match := _SPAN.fullmatch(text):
        part = {"first": 0, "last": -1}.get(match[2] or "", None if match[3] is None else int(match[3]))
        return Span(json.loads(match[1]), part)
    raise SelectorError(f'cannot read {key}={text!r}; write 3, -1, 1:4, [0,2], rows(4,6) or span("name").last')
