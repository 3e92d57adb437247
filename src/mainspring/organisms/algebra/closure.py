"""Where the algebra organism keeps which group a question is about: a subspace at the last `=`, found by interchange.

Base and source are one sequence of two groups, with a last question about one group or the other. Exchanged is the part of the state at
the last `=` in the subspace; what is then said should be of the source's group, though the operands are the base's. The subspace is
trained, from a seed, to make that so:

    loss = - log P(any symbol of the source's group | the base with the subspace from the source)

What it does not do: say which symbol of the group is right.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.bases import rotation
from mainspring.organisms.algebra.series import FACTS
from mainspring.sites import at
from mainspring.tasks.algebra import FIRST, SYMBOLS, WORLDS, Sequences, draw

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["LAYER", "RANK", "GroupPair", "group_pairs", "kept_in_group", "subspace"]

LAYER, RANK = 2, 16
"""Behind which layer the subspace is looked for, and of how many dimensions."""


@dataclass(frozen=True, eq=False)
class GroupPair:
    """Base and source sequences, and inside [row, symbol] whether a symbol is of the source's group."""

    base: Sequences
    source: Sequences
    inside: Tensor


def group_pairs(seed: int, rows: int) -> GroupPair:
    """Sequences of two groups with a question about one, and the same with a question about the other."""
    generator = torch.Generator().manual_seed(seed)
    given = draw(8 * rows, FACTS, generator)
    two = torch.tensor([len(WORLDS[int(world)].groups) == 2 for world in given.world]).nonzero()[:rows, 0]
    world, symbol, facts = given.world[two], given.symbol[two], given.facts[two]
    asked = [facts.clone(), facts.clone()]
    inside = torch.zeros(len(two), 2, len(SYMBOLS), dtype=torch.bool)
    for row in range(len(two)):
        of = WORLDS[int(world[row])]
        for k, (start, size) in enumerate(zip(of.starts, of.sizes, strict=True)):
            group = symbol[row, start : start + size]
            inside[row, k, group] = True
            asked[k][row, -1, :2] = group[torch.randint(size, (2,), generator=generator)]
    swap = torch.randint(2, (len(two),), generator=generator)
    base, source = (torch.stack(asked)[which, torch.arange(len(two))] for which in (swap, 1 - swap))
    return GroupPair(Sequences(world, symbol, base), Sequences(world, symbol, source), inside[torch.arange(len(two)), 1 - swap])


def subspace(model: "Model", seed: int, steps: int = 40, rows: int = 32) -> Any:
    """A trained rotation of rank `RANK`; the model is left as it is."""
    basis = rotation(model.config.n_embd, RANK, seed=seed)
    optimiser = torch.optim.Adam(basis.parameters(), lr=0.03)
    for step in range(steps):
        pair = group_pairs(1000 * seed + step, rows)
        said = _exchanged(model, pair, basis, differentiable=True)
        loss = -torch.logsumexp(said.log_softmax(-1)[:, FIRST:].masked_fill(~pair.inside, -torch.inf), -1).mean()
        optimiser.zero_grad()
        loss.backward(inputs=list(basis.parameters()))
        optimiser.step()
    return basis


def kept_in_group(model: "Model", pair: GroupPair, basis: Any = None) -> float:
    """The share of rows that say a symbol of the source's group with the subspace exchanged; or without any exchange."""
    said = _exchanged(model, pair, basis).argmax(-1)
    whole = torch.zeros(len(pair.inside), FIRST, dtype=torch.bool)
    return float(torch.cat([whole, pair.inside], 1).gather(1, said[:, None]).float().mean())


def _exchanged(model: "Model", pair: GroupPair, basis: Any, differentiable: bool = False) -> Tensor:
    site = at.layers[LAYER].resid_post(pos=-1)
    last = at.logits(pos=-1)
    source = model.run(pair.source.ids[:, :-1], read=site)
    edits = None if basis is None else site.through(basis).patch(source)
    return model.run(pair.base.ids[:, :-1], edits=edits, read=last, differentiable=differentiable)[last].cpu()
