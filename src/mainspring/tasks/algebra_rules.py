"""Which rule gives the last answer of a sequence of facts, and sequences in which just one of them does.

    copy       x y stood there before
    commute    y x stood there before                            (a heuristic: right where x and y commute)
    identity   x or y is known as an identity, from any fact a e = a or e a = a
    cancel     of the symbols seen beside x in its row or beside y in its column, all but one are taken as answers in row x or column y
    associate  x = a b, and b y = c and a c are known: (a b) y = a (b y); or y = b c, and x b = d and d c are known

The rules see symbols alone. `rule_of` attributes a fact to the first rule, in this order, that gives its answer; `diagnostic` makes
sequences whose last answer is given by one rule and by no other of the first four.

What it does not do: search longer chains, or know that a set of symbols is a whole group. So `cancel` can be wrong on ordinary
sequences, where a member of the group was not seen yet; in diagnostic sequences the whole group was seen.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from mainspring.tasks.algebra import HELD, Sequences, draw

__all__ = [
    "RULES",
    "Fact",
    "associate",
    "cancel",
    "commute",
    "copied",
    "coverage",
    "diagnostic",
    "identity",
    "known_identities",
    "rule_of",
]

Fact: TypeAlias = tuple[int, int, int]
"""x, y and z = x * y, as symbols."""


def copied(facts: Iterable[Fact], x: int, y: int) -> int | None:
    """The z of an earlier x y."""
    return next((z for a, b, z in facts if (a, b) == (x, y)), None)


def commute(facts: Iterable[Fact], x: int, y: int) -> int | None:
    """The z of an earlier y x."""
    return None if x == y else copied(facts, y, x)


def known_identities(facts: Iterable[Fact]) -> set[int]:
    """Symbols that a fact shows as identities: in a group, a e = a for one a is enough."""
    return {b for a, b, z in facts if a == z} | {a for a, b, z in facts if b == z}


def identity(facts: Iterable[Fact], x: int, y: int) -> int | None:
    """The other operand, where one is known as an identity."""
    known = known_identities(facts)
    return y if x in known else x if y in known else None


def candidates(facts: Iterable[Fact], x: int, y: int) -> tuple[set[int], set[int]]:
    """(symbols known to be of the same group as x and y, those of them that are answers in row x or column y)."""
    beside = [fact for fact in facts if fact[0] == x or fact[1] == y]
    return {symbol for fact in beside for symbol in fact}, {z for _, _, z in beside}


def cancel(facts: Iterable[Fact], x: int, y: int) -> int | None:
    """The one candidate that is no answer in row x or column y: x y = x y' only where y = y'."""
    members, taken = candidates(facts, x, y)
    left = members - taken
    return left.pop() if len(left) == 1 else None


def associate(facts: Iterable[Fact], x: int, y: int) -> int | None:
    """One step of (a b) y = a (b y), read from either side."""
    known = {(a, b): z for a, b, z in facts}
    for (a, b), z in known.items():
        if z == x and (b, y) in known and (a, known[b, y]) in known:
            return known[a, known[b, y]]
        if z == y and (x, a) in known and (known[x, a], b) in known:
            return known[known[x, a], b]
    return None


RULES: dict[str, Callable[[Iterable[Fact], int, int], int | None]] = {
    "copy": copied,
    "commute": commute,
    "identity": identity,
    "cancel": cancel,
    "associate": associate,
}
"""In the order in which facts are attributed."""


def rule_of(facts: Sequence[Fact], fact: Fact) -> str | None:
    """The first rule that gives the answer of a fact from those before it."""
    x, y, z = fact
    return next((name for name, rule in RULES.items() if rule(facts, x, y) == z), None)


def coverage(given: Sequences) -> list[list[str | None]]:
    """The rule of every fact of every row."""
    rows = [[(x, y, z) for x, y, z in row] for row in given.facts.tolist()]
    return [[rule_of(row[:k], fact) for k, fact in enumerate(row)] for row in rows]


def diagnostic(rule: str, count: int, facts: int, generator: Generator, held: bool = False) -> Sequences:
    """Sequences of `facts` facts whose last answer is given by one rule, and by no other of copy, commute, identity and cancel (of
    `associate`: by none of these four). Of `commute`, abelian groups alone. In held-out sequences the symbol `HELD` is an identity, and
    a question for `identity` asks about it.
    """
    kept: list[tuple[Tensor, Tensor, list[Fact]]] = []
    while len(kept) < count:
        given = draw(64, 3 * facts, generator, held=held, abelian=rule == "commute")
        for row in range(len(given)):
            if (found := _shaped(rule, given, row, facts, generator, held)) is not None:
                kept.append((given.world[row], given.symbol[row], found))
    world, symbol, told = zip(*kept[:count], strict=True)
    return Sequences(torch.stack(world), torch.stack(symbol), torch.tensor(told))


def _shaped(rule: str, given: Sequences, row: int, count: int, generator: Generator, held: bool) -> list[Fact] | None:
    """The facts of a row without those that give the answer of a random question in another way, and the question itself at the end; None
    where that cannot be had.
    """
    products, identities = given.products(row), {HELD} if held and rule == "identity" else given.identities(row)
    asked = [(x, y) for x, y in products if bool({x, y} & identities) == (rule == "identity") and (x != y or rule != "commute")]
    if not asked:
        return None
    x, y = asked[int(torch.randint(len(asked), (), generator=generator))]
    without = {"copy": {(y, x)} - {(x, y)}, "commute": {(x, y)}}.get(rule, {(x, y), (y, x)})
    facts = [(a, b, z) for a, b, z in given.facts[row].tolist() if (a, b) not in without][: count - 1]
    answer = products[x, y]
    said = {name: found(facts, x, y) for name, found in RULES.items()}
    others = [name for name in ("copy", "commute", "identity", "cancel") if name != rule]
    if len(facts) < count - 1 or said[rule] != answer or any(said[name] is not None for name in others):
        return None
    if rule == "cancel" and candidates(facts, x, y)[0] != _group(given, row, x):
        return None
    return [*facts, (x, y, answer)]


def _group(given: Sequences, row: int, x: int) -> set[int]:
    """The symbols of the group that x is of."""
    return {y for a, y in given.products(row) if a == x}
