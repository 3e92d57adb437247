"""What the copy organism does, where its heads look, and what it does when heads are put at a mean or at another text's value.

Every function takes the model and batches of `mainspring.tasks.copying`; what is written here is written on sites alone, so that the
organism does not measure itself with the methods that are scored on it.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.edits import Edits
from mainspring.sites import at
from mainspring.tasks.copying import CONCEPTS, Batch, Kind, draw, lists

if TYPE_CHECKING:
    from mainspring.models.model import Model
    from mainspring.organisms.copy.teach import Lesson

__all__ = [
    "ablated",
    "accuracy",
    "batches",
    "carried",
    "effects",
    "last_of_topic",
    "looking",
    "previous",
    "repeated_mass",
    "strongest",
    "with_mean",
]

Heads = Sequence[tuple[int, int]]


def batches(kind: Kind, seed: int, count: int = 32, times: int = 4) -> list[Batch]:
    """Some batches of one kind, of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [draw(kind, count, generator) for _ in range(times)]


def with_mean(heads: Heads) -> Edits:
    """Heads at their mean over all tokens of the batch."""
    return Edits(at.layers[layer].attn.z(head=head).ablate("mean") for layer, head in heads)


def accuracy(model: "Model", given: Iterable[Batch], edits: Any = None) -> float:
    """The share of the wanted tokens that are the likeliest."""
    right: list[float] = []
    for batch in given:
        logits = model.run(batch.ids, edits=edits, read=at.logits)[at.logits]
        right += (logits[:, :-1].argmax(-1).cpu() == batch.ids[:, 1:])[batch.wanted[:, 1:]].float().tolist()
    return fmean(right)


def ablated(model: "Model", heads: Heads, given: Iterable[Batch]) -> float:
    """Accuracy with heads at their mean."""
    return accuracy(model, given, with_mean(heads))


def looking(model: "Model", given: Iterable[Batch], shift: int = 0) -> Tensor:
    """[layer, head] attention, from the token before each wanted one, to `shift` places behind its source."""
    site, total, seen = at.layers[:].attn.pattern, 0.0, 0
    for batch in given:
        pattern = model.run(batch.ids, read=site)[site].float().cpu()  # [layer, row, head, query, key]
        row, place = torch.nonzero(batch.source >= 0, as_tuple=True)
        found = pattern.movedim(2, 1)[:, :, row, place - 1, batch.source[row, place] + shift]  # [layer, head, wanted]
        total, seen = total + found.sum(-1), seen + len(row)
    return torch.as_tensor(total) / seen


def previous(model: "Model", given: Iterable[Batch], back: int = 1) -> Tensor:
    """[layer, head] attention to the token one (or two) before, over all tokens that have one."""
    site = at.layers[:].attn.pattern
    found = [model.run(batch.ids, read=site)[site].float().cpu().diagonal(-back, -2, -1).mean((1, -1)) for batch in given]
    return torch.stack(found).mean(0)


def effects(model: "Model", given: "Iterable[Lesson]") -> Tensor:
    """[layer, head] what a head carries: by how much the logit of another row's answer rises over that of the row's own when the head's
    output in front of every wanted token is the other row's. Zeros for the first layer. All rows of a batch want tokens at the same places.
    """
    heads, seen = model.atlas.place(at.layers[0].attn.z).sizes["head"], 0
    total = torch.zeros(model.n_layers, heads)
    for batch in given:
        places = (batch.wanted[0].nonzero()[:, 0] - 1).tolist()
        told = batch.ids[:, [place + 1 for place in places], None]
        other = told.roll(1, 0)
        trace = model.run(batch.ids.roll(1, 0), read=at.layers[:].attn.z)

        def gap(edits: Any = None, ids: Tensor = batch.ids, places: list[int] = places, pair: Any = (other, told)) -> float:
            logits = model.run(ids, edits=edits, read=at.logits)[at.logits][:, places].cpu()
            return float((logits.gather(2, pair[0]) - logits.gather(2, pair[1])).mean())

        plain, seen = gap(), seen + 1
        for layer, head in product(range(1, model.n_layers), range(heads)):
            total[layer, head] += gap(at.layers[layer].attn.z(head=head, pos=places).patch(trace)) - plain
    return total / seen


def repeated_mass(model: "Model", given: Iterable[Batch], edits: Any = None, *, once: bool = True) -> float:
    """Of `topic` rows behind `set` (or `bag`): the mean probability of words that were said already, at the tokens that can be told."""
    found: list[float] = []
    for batch in given:
        probabilities = model.run(batch.ids, edits=edits, read=at.logits)[at.logits].softmax(-1).cpu()
        said = torch.zeros_like(probabilities)
        for place in range(2, batch.ids.shape[1]):
            rest = said.shape[1] - place
            said[:, place:].scatter_(2, batch.ids[:, place, None, None].expand(-1, rest, -1), 1.0)
        mass = (probabilities * said).sum(-1)[:, :-1]
        found += mass[batch.wanted[:, 1:] & (behind_set(batch) == once)[:, None]].tolist()
    return fmean(found)


def last_of_topic(model: "Model", given: Iterable[Batch], edits: Any = None) -> float:
    """Of `topic` rows behind `set`: how often the one word that is left is the likeliest at the end."""
    right: list[float] = []
    for batch in given:
        logits = model.run(batch.ids, edits=edits, read=at.logits)[at.logits][:, -2].cpu()
        right += (logits.argmax(-1) == batch.ids[:, -1])[behind_set(batch)].float().tolist()
    return fmean(right)


def behind_set(batch: Batch) -> Tensor:
    """[row] whether a `topic` row says every word once: then all eight differ."""
    words = batch.ids[:, 2:].sort(1).values
    return (words.diff(dim=1) != 0).all(1)


def carried(model: "Model", heads: Heads, seed: int, count: int = 128) -> dict[str, float]:
    """Concepts carried from one list into another: the heads' outputs at the last word of a source list replace those of a base list
    that is said again in the other language.

    Gives how often the base list's run then says the *source's* concept in the base's language (both tokens right, the first one given
    for the second), how often it still says its own, and how often it says the source's word as the source did.
    """
    generator = torch.Generator().manual_seed(seed)
    concepts = torch.rand(count, CONCEPTS, generator=generator).argsort(1)[:, :6]
    numbers, again = (torch.rand(count, n, generator=generator).argsort(1)[:, :3] for n in (5, 3))
    spoken, asked, other = torch.randint(2, (3, count), generator=generator)
    source = lists(concepts[:, :3], numbers, again, other, 1 - asked)
    base = lists(concepts[:, 3:], numbers, again, spoken, asked)
    wanted = lists(concepts[:, :3], numbers, again, spoken, asked).ids[:, -2:]
    trace = model.run(source.ids, read=[at.layers[layer].attn.z for layer in sorted({layer for layer, _ in heads})])
    said = {"source concept, base language": wanted, "base word": base.ids[:, -2:], "source word": source.ids[:, -2:]}
    shares: dict[str, float] = {}
    for name, word in said.items():
        ids = torch.cat([base.ids[:, :-2], word], 1)
        edits = Edits(at.layers[layer].attn.z(head=head, pos=[-3, -2]).patch(trace) for layer, head in heads)
        best = model.run(ids, edits=edits, read=at.logits)[at.logits][:, -3:-1].argmax(-1).cpu()
        shares[name] = float((best == word).all(1).float().mean())
    return shares


def strongest(table: Tensor, share: float) -> tuple[tuple[int, int], ...]:
    """The places that reach a share of the largest value, the largest first."""
    order = table.flatten().sort(descending=True, stable=True).indices.tolist()
    return tuple(divmod(i, table.shape[1]) for i in order if table.flatten()[i] >= share * table.max())
