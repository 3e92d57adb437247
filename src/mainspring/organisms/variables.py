"""The variables that a planted program is made of: small, typed, categorical, and plain data.

Every variable has one value at every position of a sequence; values are words from a finite domain.
A head computes `Previous`, `Select` and the mean inside `Aggregate`; an MLP computes `Table`, `Gate`
and the binning inside `Aggregate`; the embedding gives `Token` and `Position`.

    Previous(x, k)[p]     = x[p - k], or x[0] when there is no such position
    Select(q, k, v)[p]    = v[j] for the position j <= p whose key is related to q[p], or v[0] if none is
    Table(a, b)[p]        = rows[a[p], b[p]], or the default
    Gate(c, a, b)[p]      = a[p] if c[p] is among the words, else b[p]
    Aggregate(x)[p]       = the bin of the mean over j <= p of "x[j] is among the words"

What it does not do: real-valued variables, or attention to later positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = [
    "Aggregate",
    "Gate",
    "Output",
    "Position",
    "Previous",
    "Select",
    "Table",
    "Token",
    "Values",
    "Variable",
    "domain_of",
    "evaluate",
    "from_data",
    "inputs_of",
    "position_word",
    "to_data",
]

Values: TypeAlias = tuple[str, ...]
Which: TypeAlias = Literal["unique", "latest", "first"]


def position_word(index: int) -> str:
    """The value that `Position` has at an index; marked, so that it is never equal to a digit token."""
    return f"@{index}"


@dataclass(frozen=True)
class Token:
    """The token itself."""


@dataclass(frozen=True)
class Position:
    """The index of the position, as a word."""


@dataclass(frozen=True)
class Previous:
    """The value of `source` a fixed number of positions earlier."""

    source: str
    offset: int = 1


@dataclass(frozen=True)
class Select:
    """The value of `value` at the position whose key is related to the query.

    `match` lists the related (query word, key word) pairs; None means equality. Without a query, the first
    word of each pair is "*". `which` breaks ties; "unique" promises that there are none.
    """

    key: str
    value: str
    query: str | None = None
    match: tuple[tuple[str, str], ...] | None = None
    which: Which = "unique"


@dataclass(frozen=True)
class Table:
    """A lookup of one or several variables at the same position."""

    inputs: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], str], ...]
    default: str


@dataclass(frozen=True)
class Gate:
    """One of two variables, chosen by a third."""

    condition: str
    among: tuple[str, ...]
    then: str
    otherwise: str


@dataclass(frozen=True)
class Aggregate:
    """The mean of an indicator over all positions so far, put into bins: `bins[i]` if i cuts lie below it."""

    source: str
    among: tuple[str, ...]
    cuts: tuple[float, ...]
    bins: tuple[str, ...]


Variable: TypeAlias = Token | Position | Previous | Select | Table | Gate | Aggregate
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Token, Position, Previous, Select, Table, Gate, Aggregate)}


@dataclass(frozen=True)
class Output:
    """How a variable's value becomes an answer: each value votes, with this weight, for some tokens."""

    variable: str
    tokens: tuple[tuple[str, tuple[str, ...]], ...]
    weight: float = 1.0


def inputs_of(variable: Variable) -> tuple[tuple[str, str], ...]:
    """The variables that this one reads, each with how it reads it: q, k, v or mlp."""
    match variable:
        case Token() | Position():
            return ()
        case Previous(source=source):
            return ((source, "v"),)
        case Select(key=key, value=value, query=query):
            return (*([(query, "q")] if query else []), (key, "k"), (value, "v"))
        case Table(inputs=inputs):
            return tuple((name, "mlp") for name in inputs)
        case Gate(condition=condition, then=then, otherwise=otherwise):
            return ((condition, "mlp"), (then, "mlp"), (otherwise, "mlp"))
        case Aggregate(source=source):
            return ((source, "v"),)


def domain_of(variable: Variable, domains: Mapping[str, Values], vocabulary: Values, length: int) -> Values:
    """The words that the variable can be, in a fixed order."""
    match variable:
        case Token():
            return vocabulary
        case Position():
            return tuple(position_word(i) for i in range(length))
        case Previous(source=source):
            return domains[source]
        case Select(value=value):
            return domains[value]
        case Table(rows=rows, default=default):
            return (default, *sorted({word for _, word in rows} - {default}))
        case Gate(then=then, otherwise=otherwise):
            return tuple(dict.fromkeys((*domains[then], *domains[otherwise])))
        case Aggregate(bins=bins):
            return tuple(dict.fromkeys(bins))


def evaluate(variable: Variable, tokens: Sequence[str], given: Mapping[str, Values]) -> Values:
    """The variable's value at every position, from the values of what it reads."""
    span = range(len(tokens))
    match variable:
        case Token():
            return tuple(tokens)
        case Position():
            return tuple(position_word(p) for p in span)
        case Previous(source=source, offset=offset):
            return tuple(given[source][max(0, p - offset)] for p in span)
        case Select():
            return _select(variable, len(tokens), given)
        case Table(inputs=inputs, rows=rows, default=default):
            lookup = dict(rows)
            return tuple(lookup.get(tuple(given[name][p] for name in inputs), default) for p in span)
        case Gate(condition=condition, among=among, then=then, otherwise=otherwise):
            return tuple(given[then if given[condition][p] in among else otherwise][p] for p in span)
        case Aggregate(source=source, among=among, cuts=cuts, bins=bins):
            hits = [word in among for word in given[source]]
            means = [sum(hits[: p + 1]) / (p + 1) for p in span]
            return tuple(bins[sum(mean > cut for cut in cuts)] for mean in means)


def _select(variable: Select, length: int, given: Mapping[str, Values]) -> Values:
    keys, values = given[variable.key], given[variable.value]
    queries = given[variable.query] if variable.query else ("*",) * length
    pairs = None if variable.match is None else frozenset(variable.match)
    found: list[str] = []
    for p in range(length):
        hits = [j for j in range(p + 1) if (queries[p] == keys[j] if pairs is None else (queries[p], keys[j]) in pairs)]
        at = 0 if not hits else hits[0] if variable.which == "first" else hits[-1]
        found.append(values[at])
    return tuple(found)


def to_data(value: Any) -> Any:
    """A variable, or anything inside one, as JSON data."""
    if type(value).__name__ in _KINDS:
        fields = {name: to_data(getattr(value, name)) for name in value.__dataclass_fields__}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [to_data(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def from_data(data: Any) -> Any:
    """The inverse of `to_data`."""
    if isinstance(data, dict):
        fields: dict[str, Any] = dict(data)  # pyright: ignore[reportUnknownArgumentType]
        kind = fields.pop("kind")
        if kind not in _KINDS:
            raise ValueError(f"no kind of variable is called {kind!r}; there are {sorted(_KINDS)}")
        return _KINDS[kind](**{name: from_data(item) for name, item in fields.items()})
    if isinstance(data, list):
        return tuple(from_data(item) for item in data)  # pyright: ignore[reportUnknownVariableType]
    return data
