"""Asking the comics model and bending its heads, written out on sites alone.

The organism measures itself with these and not with the methods that are scored on it: positions are counted by hand from the shape of
the prompt (`<bos>`, 36 patches, text), and an edit is two additions to the scores.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.edits import Edits
from mainspring.sites import at
from mainspring.tasks.comic_strips.strips import GRID, Picture
from mainspring.tasks.comic_strips.wording import KINDS, STYLES, listing, prompt

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["IMAGE", "LENGTH", "PANELS", "answers", "bend", "look", "panel_mass", "ranked", "writers"]

Heads = Sequence[tuple[int, int]]

IMAGE = range(1, 1 + GRID * GRID)
"""Positions of the image tokens."""
PANELS = tuple(
    tuple(sorted(1 + (3 * row + r) * GRID + 2 * column + c for r in range(3) for c in range(2)))
    for row in range(2)
    for column in range(3)
)
"""Positions of the tokens of each panel of a strip, in reading order."""
LENGTH = {kind: 1 + GRID * GRID + len(prompt(kind, image=False).split()) for kind in KINDS}
"""Tokens of each kind of prompt."""


def look(heads: Heads, target: Iterable[int], delta: float = 1e4, rows: Any = None, image: Iterable[int] = IMAGE) -> Edits:
    """Boost the target's columns, suppress those of the rest of the image; `rows` is a query slice."""
    target = sorted(target)
    rest = sorted(set(image) - set(target))
    return bend(heads, [(target, delta), (rest, -delta)], rows)


def bend(heads: Heads, moves: Sequence[tuple[Sequence[int], float]], rows: Any = None) -> Edits:
    """Add to the scores of heads at key positions."""
    chosen = {} if rows is None else {"query": rows} if isinstance(rows, slice) else {"step": rows}
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    return Edits(
        at.layers[layer].attn.scores(head=which, key=list(keys), **chosen).add(amount)
        for layer, which in sorted(by_layer.items())
        for keys, amount in moves
        if keys
    )


def answers(
    model: "Model",
    pictures: Sequence[Picture],
    kind: str,
    style: str,
    panel: int = 1,
    edits: Any = None,
    words: int = 3,
    **how: Any,
) -> list[str]:
    """What the model says to one prompt about each picture."""
    inputs, images = [prompt(kind, style, panel)] * len(pictures), [picture.image for picture in pictures]
    return list(model.generate(inputs, images=images, edits=edits, max_new_tokens=words, **how).text)


def panel_mass(model: "Model", pictures: Sequence[Picture], row: int = -1, places: Sequence[Sequence[int]] = PANELS) -> Tensor:
    """[layer, head, asked, panel]: mean attention from one row of the `vqa` prompt to the positions `places` of each panel, half the
    pictures in each style.
    """
    site = at.layers[:].attn.pattern(query=row)
    found = []
    for panel in range(1, 7):
        texts = [prompt("vqa", STYLES[i % 2], panel) for i in range(len(pictures))]
        pattern = model.run(texts, images=[p.image for p in pictures], read=site)[site]
        found.append(torch.stack([pattern[..., list(columns)].sum(-1).mean(1) for columns in places], dim=-1))
    return torch.stack(found, dim=2)


def ranked(mass: Tensor) -> list[tuple[int, int]]:
    """All heads by their diagonal mass, largest first."""
    diagonal = mass.diagonal(dim1=2, dim2=3).mean(-1)
    order = diagonal.flatten().sort(descending=True, stable=True).indices.tolist()
    return [divmod(i, diagonal.shape[1]) for i in order]


def writers(model: "Model", pictures: Sequence[Picture], least: float = 0.01) -> list[tuple[int, int]]:
    """Heads that write something into the text of an `all` narration: `least` or more of the stream's norm behind the last layer."""
    texts = [f"{prompt('all')} {' '.join(listing(picture.figures))}" for picture in pictures]
    heads, stream = at.layers[:].attn.head_out, at.layers[-1].resid_post
    run = model.run(texts, images=[picture.image for picture in pictures], read=[heads, stream])
    norm = run[stream][:, IMAGE.stop :].pow(2).sum(-1).mean().sqrt()
    written = run[heads][:, :, IMAGE.stop :].pow(2).sum(-1).mean((1, 2)).sqrt() / norm
    return [(layer, head) for layer, head in (written >= least).nonzero().tolist()]
