"""Facts of hidden groups, in symbols that mean something else in every sequence.

    , c a = f , a a = d , f c = a ...          every fact is five tokens: a separator, x, y, `=`, and z = x * y

A sequence draws a group, with probability 0.7 a second one where both together have no more elements than there are symbols, then gives
every element a symbol of its own, then draws facts: x among all elements, y in the group of x. Nothing connects two groups. Groups are
cyclic (`C3` to `C6`), Klein's (`V4`), and the smallest dihedral one (`D3`), which does not commute.

One symbol, `HELD`, never stands for an identity in taught sequences, so a rule about identities can be tested where none was seen.

What it does not do: say which facts follow from others; that is `mainspring.tasks.algebra_rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mainspring.tasks.stories import collected, orders

__all__ = ["GROUPS", "HELD", "SYMBOLS", "WORDS", "WORLDS", "Sequences", "World", "draw", "group_table", "token_ids"]

SYMBOLS = tuple("abcdefgh")
WORDS = ("<pad>", "<bos>", ",", "=", *SYMBOLS)
"""The vocabulary, in the order of its ids."""
FIRST = WORDS.index(SYMBOLS[0])
HELD = 0
"""The symbol, by number, that is no identity in taught sequences."""
GROUPS = ("C3", "C4", "V4", "C5", "C6", "D3")
MORE = 0.7


def group_table(name: str) -> list[list[int]]:
    """The multiplication table of a group; element 0 is the identity."""
    if name == "V4":
        return [[x ^ y for y in range(4)] for x in range(4)]
    n = int(name[1:])
    if name[0] == "C":
        return [[(x + y) % n for y in range(n)] for x in range(n)]
    turns = [[(x % n + (-1) ** (x // n) * (y % n)) % n for y in range(2 * n)] for x in range(2 * n)]
    return [[turns[x][y] + n * ((x // n) ^ (y // n)) for y in range(2 * n)] for x in range(2 * n)]


@dataclass(frozen=True)
class World:
    """One or two groups, their elements counted through: a partial table of products."""

    groups: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(group_table(name)) for name in self.groups)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first element of each group, which is its identity."""
        return tuple(sum(self.sizes[:k]) for k in range(len(self.groups)))

    @property
    def table(self) -> Tensor:
        """[symbols, symbols] product of two elements, -1 where they are of different groups."""
        found = torch.full((len(SYMBOLS), len(SYMBOLS)), -1)
        for start, name in zip(self.starts, self.groups, strict=True):
            own = torch.tensor(group_table(name))
            found[start : start + len(own), start : start + len(own)] = own + start
        return found

    @property
    def abelian(self) -> bool:
        return torch.equal(self.table, self.table.T)

    @property
    def chance(self) -> float:
        """How often a sequence draws this world."""
        first = sum(len(group_table(name)) for name in self.groups[:1])
        fits = [name for name in GROUPS if first + len(group_table(name)) <= len(SYMBOLS)]
        more = MORE if fits else 0.0
        return (1 - more if len(self.groups) == 1 else more / len(fits)) / len(GROUPS)


WORLDS = tuple(
    world
    for second in ((), *((name,) for name in GROUPS))
    for name in GROUPS
    if (world := World((name, *second))).size <= len(SYMBOLS)
)
_CHANCE = torch.tensor([world.chance for world in WORLDS])
_TABLE = torch.stack([world.table for world in WORLDS])
_IDENTITY = torch.tensor([[element in world.starts for element in range(len(SYMBOLS))] for world in WORLDS])
_PRODUCTS = [[(x, y, int(table[x, y])) for x, y in (table >= 0).nonzero().tolist()] for table in _TABLE]
_PAIRS = (_TABLE >= 0) / (_TABLE >= 0).sum(-1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of the same number of facts.

    world [row] index into `WORLDS`; symbol [row, element] the symbol of every element (those beyond the world's size stand for nothing);
    facts [row, fact, 3] the symbols x, y, z.
    """

    world: Tensor
    symbol: Tensor
    facts: Tensor

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def ids(self) -> Tensor:
        """[row, 1 + 5 * fact] tokens."""
        return token_ids(self.facts)

    def products(self, row: int) -> dict[tuple[int, int], int]:
        """Every true product of a row, in its symbols."""
        names = self.symbol[row].tolist()
        return {(names[x], names[y]): names[z] for x, y, z in _PRODUCTS[int(self.world[row])]}

    def identities(self, row: int) -> set[int]:
        """The symbols that stand for identities."""
        return set(self.symbol[row][_IDENTITY[self.world[row]]].tolist())


def token_ids(facts: Tensor) -> Tensor:
    """[row, 1 + 5 * fact] tokens of facts [row, fact, 3], `<bos>` in front. The `=` of fact k stands at 4 + 5 * k, its z one further."""
    x, y, z = (FIRST + facts).unbind(-1)
    told = torch.stack([torch.full_like(x, WORDS.index(",")), x, y, torch.full_like(x, WORDS.index("=")), z], -1).flatten(1)
    return torch.cat([torch.full((len(told), 1), WORDS.index("<bos>")), told], 1)


def draw(
    count: int, facts: int, generator: Generator, *, groups: Sequence[str] = GROUPS, held: bool = False, abelian: bool = False
) -> Sequences:
    """Random sequences: taught ones, or held-out ones, in which `HELD` is an identity. Only of these groups, or only of abelian ones."""
    allowed = torch.tensor([set(world.groups) <= set(groups) and (world.abelian or not abelian) for world in WORLDS])
    n = len(SYMBOLS)

    def drawn() -> tuple[dict[str, Tensor], Tensor]:
        many = count * (8 if held else 2)
        world = torch.multinomial(_CHANCE * allowed, many, replacement=True, generator=generator)
        symbol = orders(many, n, n, generator)
        strange = ((symbol == HELD) & _IDENTITY[world]).any(1)
        return {"world": world, "symbol": symbol}, strange if held else ~strange

    parts = collected(count, drawn)
    world, symbol = parts["world"], parts["symbol"]
    cells = torch.multinomial(_PAIRS[world].flatten(1), facts, replacement=True, generator=generator)
    x, y = cells // n, cells % n
    z = _TABLE[world[:, None], x, y]
    return Sequences(world, symbol, torch.stack([symbol.gather(1, part) for part in (x, y, z)], -1))
