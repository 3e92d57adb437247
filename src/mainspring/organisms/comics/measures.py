"""What the comics model does, measured: behaviour, where its heads look, and what it says when they are bent.

Every function takes the model and pictures, and gives shares between 0 and 1 unless it says otherwise. `this` hits count the texts whose
three words, in the order of the style, are those of the target panel.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from mainspring.edits import Edits
from mainspring.organisms.comics.probes import IMAGE, LENGTH, PANELS, answers, bend, look
from mainspring.sites import at
from mainspring.tasks.comic_strips.judge import Narration, judge_narration, panel_described, shared_words
from mainspring.tasks.comic_strips.strips import Picture
from mainspring.tasks.comic_strips.wording import STYLES, prompt

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = [
    "all_exact",
    "hits",
    "map_hits",
    "panel_exact",
    "scene_hits",
    "smallest_top",
    "staircase",
    "suppress",
    "swapped",
    "switches",
    "tours",
]

Heads = Sequence[tuple[int, int]]


def panel_exact(model: "Model", pictures: Sequence[Picture]) -> float:
    """Accuracy of `panel k`, over panels and styles."""
    right = [
        panel_described(text, picture.figures, style) == k
        for style in STYLES
        for k in range(1, 7)
        for text, picture in zip(answers(model, pictures, "vqa", style, k), pictures, strict=True)
    ]
    return fmean(right)


def all_exact(model: "Model", pictures: Sequence[Picture]) -> float:
    """Share of the segments of `all` narrations that describe their panel."""
    return fmean(n.exact for style in STYLES for n in _narrated(model, pictures, "all", style, range(1, 7)))


def hits(
    model: "Model", pictures: Sequence[Picture], heads: Heads, style: str = "plain", edits: Any = None, partly: bool = False
) -> float:
    """Hit rate of the target with `this`, steered to every panel of every picture. `edits(panel)` replaces the usual boost.

    `partly` counts the share of the three words instead. Without heads or edits this is the unsteered rate.
    """
    found: list[float] = []
    unsteered = answers(model, pictures, "this", style) if not heads and edits is None else None
    for k in range(1, 7):
        change = None if unsteered else look(heads, PANELS[k - 1]) if edits is None else edits(k)
        texts = unsteered or answers(model, pictures, "this", style, edits=change)
        for text, picture in zip(texts, pictures, strict=True):
            exact = panel_described(text, picture.figures, style) == k
            found.append(shared_words(text, picture.figures[k - 1], style) if partly else float(exact))
    return fmean(found)


def smallest_top(model: "Model", pictures: Sequence[Picture], heads: Heads, most: int, wanted: float = 0.9) -> int:
    """The smallest k up to `most` whose first k `heads` reach a hit rate; if none does, the k with the highest one."""
    found: dict[int, float] = {}
    for k in range(1, most + 1):
        found[k] = hits(model, pictures, heads[:k])
        if found[k] >= wanted:
            break
    return max(found, key=lambda k: found[k])


def map_hits(model: "Model", pictures: Sequence[Picture], heads: Heads) -> dict[str, float]:
    """Hit rates under wrong maps from panels to tokens: they must be near chance or below."""

    def shifted(k: int, by: int) -> list[int]:
        return [p + by for p in PANELS[k - 1] if p + by in IMAGE]

    def transposed(k: int) -> list[int]:
        return [1 + (p - 1) % 6 * 6 + (p - 1) // 6 for p in PANELS[k - 1]]

    wrong = {
        "transposed grid": transposed,
        "next panel": lambda k: list(PANELS[k % 6]),
        "two patch rows late": lambda k: shifted(k, 12) or list(PANELS[k % 6]),
        "one token late": lambda k: shifted(k, 1),
        "one token early": lambda k: shifted(k, -1),
    }
    return {
        name: fmean(hits(model, pictures, heads, style, lambda k, columns=columns: look(heads, columns(k))) for style in STYLES)
        for name, columns in wrong.items()
    }


def swapped(model: "Model", pictures: Sequence[Picture], heads: Heads) -> float:
    """How often steering wins over a prompt that names another panel (the next one)."""
    found: list[bool] = []
    for k in range(1, 7):
        texts = answers(model, pictures, "vqa", "plain", k % 6 + 1, edits=look(heads, PANELS[k - 1]))
        found += [panel_described(t, p.figures) == k for t, p in zip(texts, pictures, strict=True)]
    return fmean(found)


def scene_hits(model: "Model", scenes: Sequence[Picture], heads: Heads, steered: bool = True) -> float:
    """Hit rate of `this` about scenes of loose figures, steered to each of the four; every picture has its own boxes."""
    found: list[float] = []
    for k in range(len(scenes[0].figures)):
        edits = Edits(
            edit.at(edit.site(row=i))
            for i, scene in enumerate(scenes)
            for edit in look(heads, [1 + p for p in scene.figures[k].patches])
        )
        texts = answers(model, scenes, "this", "plain", edits=edits if steered else None)
        found += [float(panel_described(t, s.figures) == k + 1) for t, s in zip(texts, scenes, strict=True)]
    return fmean(found)


def tours(
    model: "Model",
    pictures: Sequence[Picture],
    heads: Heads,
    schedule: Sequence[int] | None,
    style: str = "plain",
    judged_as: Sequence[int] = (4, 1, 6, 2, 5, 3),
) -> list[Narration]:
    """`tour` narrations under a schedule of panels, six tokens each; without one, what is said by itself."""
    if schedule is None:
        return _narrated(model, pictures, "tour", style, judged_as)
    edits = Edits(edit for i, k in enumerate(schedule) for edit in look(heads, PANELS[k - 1], rows=f"{6 * i}:{6 * (i + 1)}"))
    return _narrated(model, pictures, "tour", style, schedule, edits)


def switches(model: "Model", pictures: Sequence[Picture], heads: Heads) -> tuple[float, float]:
    """Steer a tour to panel 4, and from some token of its second segment on to panel 3.

    The share of tours in which a word that panel 3 has and panel 4 has not at its place is said within six tokens of the switch, over all
    six places of the switch (pictures whose panels share that word are left out), and the share in which every segment keeps its form.
    """
    followed: list[bool] = []
    form: list[bool] = []
    for place in range(6, 12):
        edits = look(heads, PANELS[3], rows=f"0:{place}") + look(heads, PANELS[2], rows=f"{place}:")
        texts = answers(model, pictures, "tour", "plain", edits=edits, words=24)
        for text, picture in zip(texts, pictures, strict=True):
            words, old, new = text.split(), picture.figures[3].words, picture.figures[2].words
            telling = [i for i in range(place, place + 6) if i % 6 in (2, 3, 4) and old[i % 6 - 2] != new[i % 6 - 2]]
            if telling:
                followed.append(any(words[i] == new[i % 6 - 2] for i in telling))
            form.append(all(words[i] == ":" for i in range(1, 24, 6)) and all(words[i] == "." for i in range(5, 24, 6)))
    return fmean(followed), fmean(form)


def staircase(model: "Model", pictures: Sequence[Picture], heads: Heads) -> tuple[float, float]:
    """How often, in unsteered `all` narrations, the panel with most value-weighted attention is the one described.

    At the rows of the colons, which predict content, and at those of the number words.
    """
    reads = [at.layers[:].attn.pattern, at.layers[:].attn.v]
    inputs, images = [prompt("all")] * len(pictures), [p.image for p in pictures]
    run = model.generate(inputs, images=images, max_new_tokens=36, read=reads)
    weight = torch.zeros(len(pictures), 36, 6)
    for layer, head in heads:
        pattern = run[at.layers[layer].attn.pattern][:, head, LENGTH["all"] - 1 :]
        values = run[at.layers[layer].attn.v]
        groups = run[at.layers[layer].attn.pattern].shape[1] // values.shape[2]
        weighted = pattern * values[:, :, head // groups].norm(dim=-1)[:, None]
        weight = weight + torch.stack([weighted[..., list(columns)].sum(-1) for columns in PANELS], dim=-1)
    # the row at step 6 i + 1 is that of number i, and step 6 i + 2 that of its colon
    looked = weight.argmax(-1)
    panels = torch.arange(6)
    return float((looked[:, 2::6] == panels).float().mean()), float((looked[:, 1::6] == panels).float().mean())


def _narrated(
    model: "Model", pictures: Sequence[Picture], kind: str, style: str, schedule: Sequence[int], edits: Any = None
) -> list[Narration]:
    texts = answers(model, pictures, kind, style, edits=edits, words=36)
    return [judge_narration(text, picture.figures, schedule, style) for text, picture in zip(texts, pictures, strict=True)]


def suppress(heads: Heads, k: int, delta: float = 1e4) -> Edits:
    """Only take the rest of the image away; text keeps its weight."""
    return bend(heads, [(sorted(set(IMAGE) - set(PANELS[k - 1])), -delta)])
