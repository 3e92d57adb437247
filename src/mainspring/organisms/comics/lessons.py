"""What the comics organism is taught: batches of one kind of prompt, and the loss over them.

An answer to a prompt that names no panel is about a *random* one: the model then learns that the picture it looks at decides, and
not a habit of the text. The auxiliary loss reads colour, shape and action of every figure off the mean of its projected patches by
a linear head that is thrown away; without it the tower takes thousands of steps to see anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.tasks.comic_strips.strips import ACTIONS, COLOURS, GRID, SHAPES, draw, draw_attributes
from mainspring.tasks.comic_strips.wording import IMAGE, NUMBERS, STYLES, WORDS, prompt

__all__ = [
    "MIXTURE",
    "POLISH",
    "SCATTERED",
    "SHARPEN",
    "Lesson",
    "Pupil",
    "empty_heads",
    "head_sizes",
    "lesson",
    "loss_of",
]

MIXTURE = {"vqa": 0.32, "this": 0.20, "all": 0.14, "tour": 0.24, "scene": 0.10}
"""How often each kind of batch is drawn; "scene" asks `this` about a scene of loose figures."""
POLISH = {"vqa": 0.55, "this": 0.12, "all": 0.08, "tour": 0.15, "scene": 0.10}
"""The same for the second stage: which number means which panel is learned last."""
SHARPEN = {"vqa": 0.52, "this": 0.18, "all": 0.08, "tour": 0.18, "scene": 0.04}
"""Few scenes: a head that looks for loose figures looks at the panels of a strip less sharply."""
AUXILIARY = 0.3
PATCHES = GRID * GRID
INDEX = {word: i for i, word in enumerate(WORDS)}
ATTRIBUTES = torch.tensor([[INDEX[w] for w in words] for words in (COLOURS, SHAPES, ACTIONS)])
"""[attribute, value]: token of each value."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Token ids [b, p] of which the last `answer` are to be predicted, pixels, and what each figure is and where."""

    ids: Tensor
    answer: int
    pixels: Tensor
    attributes: Tensor
    patches: Tensor


SCATTERED = torch.tensor([[(3 * (p // 3) + j // 2) * GRID + 2 * (p % 3) + j % 2 for p in range(6)] for j in range(6)])
"""[panel, 6]: patches that a scattering tower shows a panel's content at, one in the area of every panel."""


class Pupil(nn.Module):
    """The model and the linear heads of the auxiliary losses, all thrown away.

    One reads panels where they are, or `scattered` over the strip; a `placed` pupil has another that reads the row and the column of
    every patch off its token.
    """

    def __init__(self, model: Any, seed: int, scattered: bool = False, placed: bool = False) -> None:
        super().__init__()
        self.model, self.scattered = model, scattered
        width = model.config.text_config.hidden_size
        self.reader, self.placer = nn.Linear(width, 18), nn.Linear(width, 2 * GRID) if placed else None
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for part in (self.reader, self.placer):
                if part is not None:
                    part.weight.normal_(0, 0.02, generator=generator)
                    part.bias.zero_()


def lesson(kind: str, count: int, generator: torch.Generator) -> Lesson:
    """A batch of one kind."""
    layout = "scene" if kind == "scene" else "strip"
    asked = "this" if kind == "scene" else kind
    attributes, cells = draw_attributes(count, layout, generator)
    figures = attributes.shape[1]
    styles = torch.randint(2, (count,), generator=generator)
    words = ATTRIBUTES[torch.arange(3), attributes]  # [b, figure, 3]
    words = torch.where(styles[:, None, None] == 1, words.flip(-1), words)
    stop = torch.full((count, 1), INDEX["."])
    head = torch.tensor([[INDEX["<bos>"], *[INDEX[IMAGE]] * PATCHES]]).expand(count, -1)
    panel = torch.randint(figures, (count,), generator=generator)
    template = [INDEX[w] for w in prompt(asked, image=False).split()]
    asking = torch.tensor([template]).repeat(count, 1)
    asking[:, 0] = torch.tensor([INDEX[s] for s in STYLES])[styles]
    if kind == "vqa":
        asking[:, 2] = torch.tensor([INDEX[w] for w in NUMBERS])[panel]
    if asked in ("vqa", "this"):
        answer = torch.cat([words[torch.arange(count), panel], stop], dim=1)
    else:
        order = torch.rand(count, figures, generator=generator).argsort(1) if kind == "tour" else None
        shown = words if order is None else words.gather(1, order[..., None].expand(-1, -1, 3))
        numbers = torch.tensor([INDEX[w] for w in NUMBERS]).expand(count, -1)[..., None]
        colon = torch.full_like(numbers, INDEX[":"])
        answer = torch.cat([numbers, colon, shown, torch.full_like(numbers, INDEX["."])], dim=-1).flatten(1)
    row, column = cells.unbind(-1)
    offsets = torch.tensor([[r * GRID + c] for r in range(3) for c in range(2)]).flatten()
    patches = (row * GRID + column)[..., None] + offsets
    pixels = draw(attributes, cells, layout, generator)
    return Lesson(torch.cat([head, asking, answer], dim=1), answer.shape[1], pixels, attributes, patches)


def _seen(pupil: Pupil, image: Any, given: Lesson) -> Tensor:
    """The auxiliary losses on projected image tokens."""
    image = torch.stack(list(image)) if isinstance(image, list | tuple) else image
    batch, figures = given.attributes.shape[:2]
    image = image.reshape(batch, PATCHES, -1)
    patches = SCATTERED.expand(batch, -1, -1) if pupil.scattered else given.patches
    chosen = image.gather(1, patches.flatten(1)[..., None].expand(-1, -1, image.shape[-1]).to(image.device))
    read = pupil.reader(chosen.reshape(batch, figures, 6, -1).mean(2)).unflatten(-1, (3, 6))
    seen = nn.functional.cross_entropy(read.flatten(0, 2), given.attributes.to(image.device).flatten())
    if pupil.placer is None:
        return seen
    placed = pupil.placer(image).unflatten(-1, (2, GRID)).flatten(0, 2)
    place = (
        torch.stack(torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij"), dim=-1)
        .reshape(1, -1)
        .expand(batch, -1)
    )
    return seen + nn.functional.cross_entropy(placed, place.to(image.device).flatten())


def head_sizes(model: Any) -> Tensor:
    """[layer, head]: the norm of a head's weights."""
    sizes: list[Tensor] = []
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        heads = attention.config.num_attention_heads
        squares = attention.o_proj.weight.unflatten(1, (heads, -1)).pow(2).sum((0, 2))
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            squares = squares + part.weight.unflatten(0, (heads, -1)).pow(2).sum((1, 2))
        sizes.append((squares + 1e-8).sqrt())
    return torch.stack(sizes)


def empty_heads(model: Any, below: float) -> None:
    """Set heads smaller than `below` to zero, all of them. Nothing that trains on moves them again: a head of zeros has no gradient."""
    with torch.no_grad():
        for layer, sizes in zip(model.model.language_model.layers, head_sizes(model), strict=True):
            attention, kept = layer.self_attn, (sizes >= below).float()
            width = attention.o_proj.weight.shape[1] // len(kept)
            rows = kept.repeat_interleave(width)
            attention.o_proj.weight.mul_(rows)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                part.weight.mul_(rows[:, None])


def loss_of(
    pupil: Pupil,
    batch: int = 32,
    mixture: Mapping[str, float] = MIXTURE,
    thawed_at: int = 800,
    sparsity: float = 0.0,
) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """The loss of a step, with its parts. Word embeddings are frozen until step `thawed_at`.

    `sparsity` weighs the sum of all head sizes: heads that the task can spare then shrink to nothing, and the work gathers
    in few. It prefers no head to another.
    """
    kinds, shares = list(mixture), torch.tensor(list(mixture.values()))
    embedding = pupil.model.get_input_embeddings().weight

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        embedding.requires_grad_(step >= thawed_at)
        kind = kinds[int(torch.multinomial(shares, 1, generator=generator))]
        given = lesson(kind, batch, generator)
        device = embedding.device
        out = pupil.model(
            input_ids=given.ids.to(device), pixel_values=given.pixels.to(device), use_cache=False, logits_to_keep=given.answer + 1
        )
        target = given.ids[:, -given.answer :].to(device)
        spoken = nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), target.flatten())
        looked = _seen(pupil, out.image_hidden_states, given)
        total, figures = spoken + AUXILIARY * looked, {kind: float(spoken.detach()), "seen": float(looked.detach())}
        if sparsity:
            sizes = head_sizes(pupil.model).sum()
            total, figures["sizes"] = total + sparsity * sizes, float(sizes.detach())
        return total, figures

    return loss
