"""Gaze heads: the attention heads of a vision-language model that look at the region of the image that is about to be described.

For every item the row of the last prompt token is read; a head's mass on a region is the sum of its attention over the region's image
tokens, taken raw (not renormalised over the image, or a head that ignores the image could look perfect). Averaged over the items that
ask about region k:

    A[layer, head, k, j] = mean over items asking k of the mass on region j
    diag                 = mean over k of A[k, k]
    contrast             = diag - mean of the other entries
    pearson              = correlation of the entries of A with the identity matrix

Controls: the same score with shuffled labels (the mean over `shuffles` permutations of which region each item asked about), the same score
one token earlier, and the correlation between the scores of two halves of the items. Cost: one forward pass per batch of items.

The last prompt token must be the one that predicts content: behind a constant filler word there is nothing to see. Reference: the
gaze-heads paper (2026). What this does not do: show that the heads cause anything. That is `steer.gaze`'s part.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mainspring.errors import InputError
from mainspring.find.gaze_regions import positions_of
from mainspring.measure.scores import Scores
from mainspring.methods import method
from mainspring.sites import at
from mainspring.tasks.regions import RegionItem, RegionTask

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["gaze_heads", "gaze_map", "gaze_mass"]

Kind = Literal["diag", "contrast", "pearson"]


@method(
    organism="comics",
    control="shuffled labels",
    page="gaze.md#find",
    reference="Gaze Heads: How VLMs Look at What They Describe, 2026",
)
def gaze_heads(
    model: "Model",
    task: RegionTask | Sequence[RegionItem],
    score: Kind = "diag",
    *,
    shuffles: int = 20,
    batch: int = 48,
    seed: int = 0,
) -> Scores:
    """Scores over (layer, head): how much each head looks at the region that the prompt asks about.

    Of a task its `find` split is used. All items ask about the same number of regions.
    """
    if score not in _SCORES:
        raise InputError(f"there is no gaze score {score!r}; there are {', '.join(_SCORES)}")
    items = task.split("find") if isinstance(task, RegionTask) else tuple(task)
    asked = _asked(items)
    mass = gaze_mass(model, items, rows=(-2, -1), batch=batch)
    earlier, last = mass[:, 0], mass[:, 1]
    values = _score(last, asked, score)
    generator = torch.Generator().manual_seed(seed)
    shuffled = [_score(last, asked[torch.randperm(len(asked), generator=generator)], score) for _ in range(shuffles)]
    one, other = _halves(items, asked, generator)
    controls: dict[str, Tensor | float] = {"one token earlier": _score(earlier, asked, score)}
    if shuffled:
        controls["shuffled labels"] = torch.stack(shuffled).mean(0)
    if len(one) and len(other):
        halves = torch.stack([_score(last[part], asked[part], score).flatten() for part in (one, other)])
        controls["split-half correlation"] = float(torch.corrcoef(halves)[0, 1])
    layers, heads = values.shape
    about = {"method": "gaze_heads", "score": score, "items": len(items), "regions": int(last.shape[-1]), "seed": seed}
    return Scores(
        values,
        ("layer", "head"),
        (tuple(map(str, range(layers))), tuple(map(str, range(heads)))),
        f"gaze ({score})",
        controls,
        about | ({"task": task.name} if isinstance(task, RegionTask) else {}),
    )


def gaze_map(model: "Model", task: RegionTask | Sequence[RegionItem], *, row: int = -1, batch: int = 48) -> Tensor:
    """[layer, head, asked, region]: the mean mass on each region when each is asked for. A gaze head is a bright diagonal."""
    items = task.split("find") if isinstance(task, RegionTask) else tuple(task)
    return _means(gaze_mass(model, items, rows=(row,), batch=batch)[:, 0], _asked(items))


def gaze_mass(model: "Model", items: Sequence[RegionItem], *, rows: Sequence[int] = (-1,), batch: int = 48) -> Tensor:
    """[item, row, layer, head, region]: each head's attention from the prompt's tokens `rows` to each region of the item."""
    if not items:
        raise InputError("there are no items to look at")
    if len({len(item.regions) for item in items}) > 1:
        raise InputError("all items must have the same number of regions; score those with other numbers on their own")
    found: list[Tensor] = []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        found.append(_mass_of(model, part, tuple(rows)))
    return torch.cat(found)


def _mass_of(model: "Model", items: Sequence[RegionItem], rows: tuple[int, ...]) -> Tensor:
    # a list of each row's own images: flat ones are taken as those of one row by some processors
    prompts, images = [item.prompt for item in items], [[item.image] for item in items]
    tokens = model.image_regions(prompts, images=images)
    site = at.layers[:].attn.pattern(query=rows)
    trace = model.run(prompts, images=images, read=site)
    pattern = torch.stack([trace[at.layers[layer].attn.pattern(query=rows)].float() for layer in range(model.n_layers)], dim=1)
    regions = max(len(item.regions) for item in items)
    pick = pattern.new_zeros(len(items), pattern.shape[-1], regions)
    for i, (item, row) in enumerate(zip(items, tokens, strict=True)):
        for j, region in enumerate(item.regions):
            pick[i, list(positions_of(region, row)), j] = 1.0
    return torch.einsum("blhqk,bkr->bqlhr", pattern, pick)


def _asked(items: Sequence[RegionItem]) -> Tensor:
    asked = torch.tensor([item.asked for item in items])
    if len(asked) and (missing := set(range(len(items[0].regions))) - set(asked.tolist())):
        raise InputError(f"no item asks about region {sorted(missing)[0]}; every region must be asked for at least once")
    return asked


def _means(mass: Tensor, asked: Tensor) -> Tensor:
    """[layer, head, asked, region] from [item, layer, head, region]; NaN for a region that no item of this part asks about."""
    return torch.stack([mass[asked == k].mean(0) for k in range(mass.shape[-1])], dim=-2)


def _diag(means: Tensor) -> Tensor:
    return means.diagonal(dim1=-2, dim2=-1).nanmean(-1)


def _contrast(means: Tensor) -> Tensor:
    off = ~torch.eye(means.shape[-1], dtype=torch.bool)
    return _diag(means) - means[..., off].nanmean(-1)


def _pearson(means: Tensor) -> Tensor:
    target = torch.eye(means.shape[-1]).flatten()
    target = target - target.mean()
    entries = means.flatten(-2).nan_to_num(0.0)
    entries = entries - entries.mean(-1, keepdim=True)
    return (entries * target).sum(-1) / (entries.norm(dim=-1) * target.norm()).clamp(min=1e-12)


_SCORES = {"diag": _diag, "contrast": _contrast, "pearson": _pearson}


def _score(mass: Tensor, asked: Tensor, kind: str) -> Tensor:
    """[layer, head] from the mass of items [item, layer, head, region]."""
    return _SCORES[kind](_means(mass, asked))


def _halves(items: Sequence[RegionItem], asked: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The items in two halves; what belongs to one group, an image say, stays together."""
    names = [item.group or str(i) for i, item in enumerate(items)]
    groups = sorted(set(names))
    first = {groups[i] for i in torch.randperm(len(groups), generator=generator)[: len(groups) // 2].tolist()}
    inside = torch.tensor([name in first for name in names])
    return inside.nonzero().flatten(), (~inside).nonzero().flatten()
