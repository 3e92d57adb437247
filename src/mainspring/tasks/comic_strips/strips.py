"""Comic strips that can be judged exactly: six panels, eight narrower ones, or loose figures, drawn from four numbers each.

A picture is 48 x 48 pixels, 6 x 6 patches of 8. A figure fills 2 x 3 patches (16 x 24 pixels): in its middle row a coloured shape of
8 x 8, above or below it the mark of what it does. A *strip* has 2 rows x 3 columns of such panels, each with a grey line at its top and
left edge; the panels of a strip differ pairwise. A *scene* has four figures at free places of the patch grid and no lines.
A picture of *eight* has 3 x 3 panels of 2 x 2 patches, the last one empty and no lines: of each figure's three patch rows those two are
drawn that are not blank, the shape and the mark above or below it. It is there to test a layout that nothing was trained on.
Pixels carry Gaussian noise and are rounded to 256 levels, so that a tensor and the PIL image of it are the same picture.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mainspring.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "ACTIONS",
    "COLOURS",
    "GRID",
    "PATCH",
    "SHAPES",
    "SIDE",
    "Figure",
    "Layout",
    "Picture",
    "draw",
    "draw_attributes",
    "sample",
]

COLOURS = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.75, 0.15),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.95, 0.9, 0.1),
    "pink": (0.95, 0.4, 0.8),
    "white": (0.95, 0.95, 0.95),
}
SHAPES = ("square", "disk", "cross", "ring", "bar", "pole")
ACTIONS = ("up", "down", "left", "right", "dot", "twin")

SIDE, PATCH, GRID = 48, 8, 6
"""Pixels along an edge, pixels of a patch, patches along an edge."""
WIDE, HIGH = 2, 3
"""Patches that a figure fills."""
BACKGROUND, LINE, MARK, NOISE = 0.15, 0.5, 0.8, 0.03

Layout = Literal["strip", "scene", "eight"]
STRIP_CELLS = tuple((HIGH * r, WIDE * c) for r in range(2) for c in range(3))
"""Row and column of the first patch of each panel of a strip, in reading order."""
EIGHT_CELLS = tuple((2 * r, WIDE * c) for r in range(3) for c in range(3))[:8]
ABOVE = ("up", "dot")
"""Actions whose mark is above the shape; all others have it below or beside its lower part."""


@dataclass(frozen=True)
class Figure:
    """What a panel shows, the row and column of its first patch, and how many patch rows it fills."""

    colour: str
    shape: str
    action: str
    cell: tuple[int, int]
    high: int = HIGH

    @property
    def words(self) -> tuple[str, str, str]:
        return self.colour, self.shape, self.action

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, as fractions of the picture."""
        row, column = self.cell
        return column / GRID, row / GRID, (column + WIDE) / GRID, (row + self.high) / GRID

    @property
    def patches(self) -> tuple[int, ...]:
        """Numbers of its patches, counted along the rows of the whole picture."""
        row, column = self.cell
        return tuple((row + r) * GRID + column + c for r in range(self.high) for c in range(WIDE))


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels [3, 48, 48] between 0 and 1, and the figures in reading order of their panels."""

    pixels: Tensor
    figures: tuple[Figure, ...]
    layout: Layout

    @property
    def image(self) -> "Image":
        from PIL import Image

        return Image.fromarray((self.pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())

    def panel(self, number: int) -> tuple[float, float, float, float]:
        """The box of panel 1, 2, ...: a target to steer to."""
        if not 1 <= number <= len(self.figures):
            raise InputError(f"this picture has panels 1 to {len(self.figures)}, not {number}")
        return self.figures[number - 1].box


def _shape_masks() -> Tensor:
    """[shape, 8, 8]."""
    y, x = torch.meshgrid(torch.arange(8.0) - 3.5, torch.arange(8.0) - 3.5, indexing="ij")
    far = (x**2 + y**2).sqrt()
    square = (x.abs() < 3.1) & (y.abs() < 3.1)
    cross = (x.abs() < 1.1) | (y.abs() < 1.1)
    ring = (far < 4.1) & (far > 2.2)
    return torch.stack([square, far < 3.6, cross, ring, y.abs() < 1.6, x.abs() < 1.6]).float()


def _action_masks() -> Tensor:
    """[action, 24, 16]; a shape fills rows 8 to 15, columns 4 to 11."""
    masks = torch.zeros(len(ACTIONS), HIGH * PATCH, WIDE * PATCH)
    boxes = {
        "up": [(3, 6, 3, 13)],
        "down": [(18, 21, 3, 13)],
        "left": [(15, 23, 2, 4)],
        "right": [(15, 23, 12, 14)],
        "dot": [(2, 5, 2, 5)],
        "twin": [(18, 21, 3, 6), (18, 21, 10, 13)],
    }
    for i, action in enumerate(ACTIONS):
        for top, bottom, left, right in boxes[action]:
            masks[i, top:bottom, left:right] = 1
    return masks


def draw(attributes: Tensor, cells: Tensor, layout: Layout, generator: torch.Generator) -> Tensor:
    """Pixels [b, 3, 48, 48] of pictures with attributes [b, figure, 3] (colour, shape, action) at cells [b, figure, 2]."""
    batch, figures = attributes.shape[:2]
    colour, shape, action = attributes.unbind(-1)
    tile = torch.full((batch, figures, 3, HIGH * PATCH, WIDE * PATCH), BACKGROUND)
    if layout == "strip":
        tile[..., 0, :] = LINE
        tile[..., :, 0] = LINE
    marks = _action_masks()[action].unsqueeze(2)
    tile = tile * (1 - marks) + MARK * marks
    paint = torch.tensor(list(COLOURS.values()))[colour][..., None, None]
    inner = tile[..., 8:16, 4:12]
    mask = _shape_masks()[shape].unsqueeze(2)
    tile[..., 8:16, 4:12] = inner * (1 - mask) + paint * mask
    high = _rows(layout) * PATCH
    if layout == "eight":
        above = torch.tensor([name in ABOVE for name in ACTIONS])[action][..., None, None, None]
        tile = torch.where(above, tile[..., :high, :], tile[..., -high:, :])
    pixels = torch.full((batch, 3, SIDE, SIDE), BACKGROUND)
    row = torch.arange(batch)[:, None, None, None]
    y = cells[..., 0, None, None] * PATCH + torch.arange(high)[:, None]
    x = cells[..., 1, None, None] * PATCH + torch.arange(WIDE * PATCH)[None, :]
    for channel in range(3):
        pixels[row, channel, y, x] = tile[:, :, channel]
    noisy = pixels + NOISE * torch.randn(pixels.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


def _rows(layout: Layout) -> int:
    """Patch rows that a figure fills."""
    return 2 if layout == "eight" else HIGH


def _scene_cells() -> Tensor:
    """[choice, 4, 2]: every way to put four figures on the patch grid so that none overlap, in reading order."""
    places = [(r, c) for r in range(GRID - HIGH + 1) for c in range(GRID - WIDE + 1)]

    def apart(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return abs(a[0] - b[0]) >= HIGH or abs(a[1] - b[1]) >= WIDE

    ways = [four for four in combinations(places, 4) if all(apart(a, b) for a, b in combinations(four, 2))]
    return torch.tensor(ways)


_SCENES: list[Tensor] = []


def draw_attributes(count: int, layout: Layout, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Attributes [count, figure, 3], pairwise different within a picture, and cells [count, figure, 2]."""
    if layout != "scene":
        cells = torch.tensor(STRIP_CELLS if layout == "strip" else EIGHT_CELLS).expand(count, -1, -1)
    else:
        if not _SCENES:
            _SCENES.append(_scene_cells())
        choice = torch.randint(len(_SCENES[0]), (count,), generator=generator)
        order = torch.rand(count, 4, generator=generator).argsort(1)
        cells = _SCENES[0][choice].gather(1, order[..., None].expand(-1, -1, 2))
    figures = cells.shape[1]
    triples = torch.randint(216, (count, figures), generator=generator)
    while True:
        ordered = triples.sort(1).values
        same = (ordered[:, 1:] == ordered[:, :-1]).any(1)
        if not bool(same.any()):
            break
        triples[same] = torch.randint(216, (int(same.sum()), figures), generator=generator)
    return torch.stack([triples // 36, triples // 6 % 6, triples % 6], dim=-1), cells


def sample(count: int, seed: int = 0, layout: Layout = "strip") -> tuple[Picture, ...]:
    """Pictures of one seed; the same seed gives the same pixels."""
    generator = torch.Generator().manual_seed(seed)
    attributes, cells = draw_attributes(count, layout, generator)
    pixels = draw(attributes, cells, layout, generator)
    colours = tuple(COLOURS)

    def figure(given: Any, cell: Any) -> Figure:
        colour, shape, action = given
        return Figure(colours[colour], SHAPES[shape], ACTIONS[action], (cell[0], cell[1]), _rows(layout))

    return tuple(
        Picture(image, tuple(figure(a, c) for a, c in zip(which, where, strict=True)), layout)
        for image, which, where in zip(pixels, attributes.tolist(), cells.tolist(), strict=True)
    )
