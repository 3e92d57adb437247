"""The losses of strict interchange training: the host is pulled to compute a program at chosen places and nowhere else.

    behaviour     the program's answer
    interchange   one variable's subspace at its node comes from another input, and everything else (all other parts, and
                  what real parts write outside their subspaces) from unrelated inputs: the program's counterfactual answer
    unchanged     the same without a variable taken: the program's own answer
    codes         what each part writes, decoys included, is the code of its variable's value and nothing beside it
    looks         a head attends to the position that its variable comes from, until it leaks no more than `LEAK`

The first three are strict interchange training. The last two lead there faster: without `looks` a head that looks by
place alone stays on a plateau; where only the subspaces were held to their codes, what parts wrote beside them grew a
hundredfold to outvote each other, and interchange stayed at chance. `codes` also keeps decoys as large as real parts.

Rows of one batch take different variables, so that one run trains all of them. Interchange and unchanged answer are what
`verify` measures, by the same hooks, and as there everything else is resampled at once: where some of it stayed, decoys
learned to help, and what the circuit did without them was a compromise. Codes and looks are asked for in that run too, as
the variable that was taken makes them: where they were not, the answer followed by roads that the program does not know
(a head that copied a flag instead of looking for it), and the edges of the truth carried nothing.

Logits are scored word by word, since several words may be right, all alike, and since zero has a meaning, as on hosts
that are compiled:

    loss(logits) = sum over words of (logit - LOGIT * votes)^2 / 10

So a negative vote takes back a part of what the others give. Where wrong words had only to be below zero, they sank so far
that nothing else was to be seen in the norm of the logits. But no linear readout gives zero for every wrong word where more
values than dimensions are read: there, words without a positive vote count softplus(logit) instead.

What it does not do: judge. `verify` does, on other inputs.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mainspring.organisms.hooked import Record, replaced, written
from mainspring.organisms.trained_in.alignment import Alignment, Seat
from mainspring.organisms.trained_in.pool import Pool, Wanted
from mainspring.organisms.trained_in.teaching import Watch, coded, taught, watching

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

LEAK, LOGIT = 0.01, 8.0

__all__ = ["Weights", "interchange_loss", "score"]


@dataclass(frozen=True)
class Weights:
    """How much each loss counts, beside behaviour, which counts 1."""

    interchange: float = 1.0
    codes: float = 1.0
    looks: float = 0.3

    @classmethod
    def behaviour(cls) -> "Weights":
        """For a twin that only behaves alike."""
        return cls(0.0, 0.0, 0.0)


def interchange_loss(
    model: "Module", alignment: Alignment, pool: Pool, weights: Weights, batch: int, generator: "Generator", share: float = 0.0
) -> "tuple[Tensor, dict[str, float]]":
    """The loss of one batch and its parts. `share` of what parts give on is taught.

    Meanwhile nothing is interchanged but the codes that the answer is read from, so that every output gets its weight.
    """
    import torch

    rows, ids, wanted = pool.batch(batch, generator)
    order = torch.arange(batch).roll(1)
    others = [rows[i] for i in order.tolist()]

    def choice(names: Sequence[str]) -> "tuple[list[str | None], dict[str, Tensor]]":
        """Of each row, the variable that it takes from the row before it, or none; of each variable, the rows."""
        chosen = torch.randint(len(names) + 1, (batch,), generator=generator)
        return [[*names, None][i] for i in chosen.tolist()], {name: chosen == i for i, name in enumerate(names)}

    votes, handed = wanted.votes, wanted
    surely: dict[str, Tensor] = {}
    if share:
        names, surely = choice(pool.answers)
        votes = pool.mixed(rows, others, names)
        mixed = {v: torch.where(at[:, None], wanted.labels[v][order], wanted.labels[v]) for v, at in surely.items()}
        handed = replace(wanted, labels={**wanted.labels, **mixed})
    teach = taught(model, alignment, handed, share, generator, surely) if weights.codes else nullcontext()
    with watching(model) as watch, teach:
        clean = watch.record(model(ids).logits[:, -1])
    losses = {"behaviour": score(clean.logits, votes, pool.crowded)}
    if weights.codes:
        losses["codes"] = weights.codes * _codes(model, alignment.seats, clean, wanted)
    if weights.looks and wanted.looks:
        losses["looks"] = weights.looks * _looks(alignment.seats, watch, wanted)
    if weights.interchange and not share:
        names, taken = choice(pool.varying)
        circuit = (*alignment.real, *alignment.backups)
        strict = pool.taken(rows, others, names)
        with watching(model) as watch:
            logits = _intervened(model, alignment, ids, clean, wanted, order, taken, generator)
        losses["interchange"] = weights.interchange * score(logits, strict.votes, pool.crowded)
        if weights.codes:
            losses["codes_taken"] = weights.codes * _codes(model, circuit, watch.record(logits), strict)
        if weights.looks and strict.looks:
            losses["looks_taken"] = weights.looks * _looks(circuit, watch, strict)
    return torch.stack(list(losses.values())).sum(), {name: loss.item() for name, loss in losses.items()}


def score(logits: "Tensor", votes: "Tensor", crowded: bool = False) -> "Tensor":
    """How far the logits [b, vocabulary] are from what the votes ask for; `crowded`: wrong ones need only be below zero."""
    import torch

    away = 0.1 * (logits - LOGIT * votes).square()
    if crowded:
        away = torch.where(votes > 0, away, torch.nn.functional.softplus(logits))
    return away.sum(1).mean()


def _codes(model: "Module", seats: "Sequence[Seat]", run: Record, wanted: Wanted) -> "Tensor":
    import torch

    losses: list[Tensor] = []
    for node, codes in coded(seats, wanted).items():
        wrong = (written(model, run, *node) - codes).square().sum(-1)
        losses.append(wrong.mean() + wrong[:, -1].mean())  # the last position once more: there the answer is read
    return torch.stack(losses).sum()


def _looks(seats: "Sequence[Seat]", watch: Watch, wanted: Wanted) -> "Tensor":
    """How far the heads are from looking where their variables say; nothing once a look leaks less than `LEAK`.

    A backup may look anywhere while it is silent.
    """
    import torch

    losses: list[Tensor] = []
    for seat in seats:
        if seat.node not in wanted.looks:
            continue
        layer, head = seat.node
        seen = watch.patterns[layer][:, head].gather(2, wanted.looks[seat.node][:, :, None])[:, :, 0]
        # What a sliding layer cannot see is no one's fault.
        missed = (-(seen + 1e-6).log() - LEAK).clamp(min=0) * (seen > 0)
        losses.append((missed * wanted.silent[seat.part.writes][:, None] if seat.backup else missed).mean())
    return torch.stack(losses).sum()


def _intervened(
    model: "Module",
    alignment: Alignment,
    ids: "Tensor",
    clean: Record,
    wanted: Wanted,
    order: "Tensor",
    taken: "dict[str, Tensor]",
    generator: "Generator",
) -> "Tensor":
    """The last logits with variables taken (`taken`: which rows) from `order` and everything else resampled."""
    import torch

    batch = len(ids)
    real = {seat.node for seat in alignment.real}
    backups = {seat.node: seat.part.writes for seat in alignment.backups}
    parts: dict[tuple[int, int | None], Tensor] = {}
    added: dict[tuple[int, bool], Tensor] = {}
    for layer in range(alignment.layout.layers):
        for head in (*range(alignment.layout.heads), None):
            node = (layer, head)
            other = torch.randperm(batch, generator=generator)
            if node not in real:
                value = clean.part(*node)[other].detach()
                if node in backups:  # resampled too, but silent: an answer that leans on one is not the program's
                    value = value * ~wanted.silent[backups[node]][other][:, None, None]
                parts[node] = value
                continue
            own = written(model, clean, *node)
            change = (own[other] - own).detach()
            seats = [seat for seat in alignment.real if seat.node == node]
            for seat in seats:
                change = change - change @ seat.basis.T @ seat.basis
            for seat in seats:
                if seat.part.writes in taken:
                    other_value = (own[order] - own) * taken[seat.part.writes][:, None, None]
                    change = change + other_value @ seat.basis.T @ seat.basis
            at = (layer, head is None)
            added[at] = added[at] + change if at in added else change
    return replaced(model, ids, parts, added, gradients=True)
