"""Sequences that ask often for what ruling out alone gives: one in twenty facts of ordinary ones.

What it does not do: change a sequence. It draws many and keeps some.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from mainspring.tasks.algebra import SYMBOLS, Sequences, draw

__all__ = ["draw_ruling_out", "ruled_out"]


def ruled_out(facts: Tensor) -> Tensor:
    """[row, fact] whether `cancel` is the first rule that gives the z of facts [row, fact, 3]: what `coverage` says, for all at once."""
    x, y, z = facts.unbind(-1)
    earlier = torch.ones(facts.shape[1], facts.shape[1], dtype=torch.bool).tril(-1)
    said = _equal(z, z) & ((_equal(x, x) & _equal(y, y)) | (_equal(x, y) & _equal(y, x))) & earlier
    shown = (_one(y) & (x == z)[..., None]) | (_one(x) & (y == z)[..., None])
    identities = _any(earlier.expand(len(facts), -1, -1), shown)
    neutral = (identities & (_one(x) | _one(y))).any(-1)
    beside = (_equal(x, x) | _equal(y, y)) & earlier
    left = _any(beside, _one(x) | _one(y) | _one(z)) & ~_any(beside, _one(z))
    return (left.sum(-1) == 1) & (left & _one(z)).any(-1) & ~neutral & ~said.any(-1)


def draw_ruling_out(count: int, facts: int, generator: Generator, among: int) -> Sequences:
    """Of `among` times as many taught sequences those with the most facts that ruling out alone gives."""
    given = draw(among * count, facts, generator)
    best = (ruled_out(given.facts).sum(1) + torch.rand(len(given), generator=generator)).topk(count).indices
    return Sequences(given.world[best], given.symbol[best], given.facts[best])


def _one(symbols: Tensor) -> Tensor:
    """[row, fact, symbol]"""
    return one_hot(symbols, len(SYMBOLS)).bool()


def _equal(of: Tensor, earlier: Tensor) -> Tensor:
    """[row, fact, fact] whether a symbol of the one is a symbol of the other."""
    return of[:, :, None] == earlier[:, None]


def _any(pairs: Tensor, what: Tensor) -> Tensor:
    """[row, fact, symbol] whether any fact [row, fact, fact] has the symbol [row, fact, symbol]."""
    return pairs.float() @ what.float() > 0
