"""How processors and towers lay image tokens over an image, one function per way.

A layout maps one row's tokens to pieces: grids of consecutive image tokens that cover a window of an image.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mainspring.errors import InputError

__all__ = ["LAYOUTS", "WHOLE", "Box", "Given", "Kind", "Piece"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of the image."""

Kind = Literal["patch", "thumbnail", "class", "separator", "padding"]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Piece:
    """A grid of consecutive image tokens of one image.

    The grid covers `window` of the image, which may reach beyond `clip`: what lies there is padding. `lead` class tokens come
    first, `before` and `after` tokens of the text are its separators. `offset` and `of` place the grid in a larger one.
    """

    image: int
    grid: tuple[int, int]
    window: Box = WHOLE
    clip: Box = WHOLE
    kind: Kind = "patch"
    lead: int = 0
    before: int = 0
    after: int = 0
    offset: tuple[int, int] = (0, 0)
    of: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        return self.lead + self.grid[0] * self.grid[1]

    def box(self, row: int, column: int) -> Box:
        left, top, right, bottom = self.window
        wide, high = (right - left) / self.grid[1], (bottom - top) / self.grid[0]
        raw = (left + column * wide, top + row * high, left + (column + 1) * wide, top + (row + 1) * high)
        low_x, low_y, high_x, high_y = self.clip
        return (
            min(max(raw[0], low_x), high_x),
            min(max(raw[1], low_y), high_y),
            min(max(raw[2], low_x), high_x),
            min(max(raw[3], low_y), high_y),
        )


@dataclass(frozen=True)
class Given:
    """What a layout may look at. `ids` are one row's real tokens, `columns` those of image tokens, `sizes` (width, height)."""

    config: Any
    kwargs: Mapping[str, Any]
    processor: Any
    row: int
    ids: list[int]
    columns: list[int]
    image: int
    sizes: list[tuple[int, int]] | None

    def size(self, image: int) -> tuple[int, int] | None:
        """The size of an image of this row, by its number in the row."""
        if self.sizes is not None and self.image + image >= len(self.sizes):
            raise InputError(f"the rows have more images than the {len(self.sizes)} whose sizes are given")
        return None if self.sizes is None else self.sizes[self.image + image]

    def is_token(self, column: int, *names: str) -> bool:
        known = [getattr(self.config, name, None) for name in names]
        return 0 <= column < len(self.ids) and self.ids[column] in known

    def runs(self) -> list[tuple[int, int]]:
        """Stretches of neighbouring image tokens, as (first, after the last)."""
        found: list[tuple[int, int]] = []
        for c in self.columns:
            if found and found[-1][1] == c:
                found[-1] = (found[-1][0], c + 1)
            else:
                found.append((c, c + 1))
        return found

    def setting(self, name: str) -> Any:
        """A setting of the image processor, if there is one."""
        return getattr(getattr(self.processor, "image_processor", None), name, None)


def _patches(given: Given) -> tuple[int, int]:
    """Rows and columns of patches of the images that the tower is given."""
    vision, pixels = given.config.vision_config, given.kwargs.get("pixel_values")
    if pixels is None:
        raise InputError("the inputs have image tokens but no pixel_values")
    return pixels.shape[-2] // vision.patch_size, pixels.shape[-1] // vision.patch_size


def _equal(given: Given, grid: tuple[int, int], lead: int = 0) -> int:
    """How many images of so many tokens the row holds."""
    each = lead + grid[0] * grid[1]
    if len(given.columns) % each:
        raise InputError(
            f"row {given.row} has {len(given.columns)} image tokens, no multiple of the {each} that this model makes of an image"
        )
    return len(given.columns) // each


def _llava(given: Given) -> list[Piece]:
    if given.config.vision_config.model_type != "clip_vision_model":
        kind = given.config.vision_config.model_type
        raise InputError(f"the grid of a LLaVA with a {kind} tower is not known; only CLIP towers are")
    grid, lead = _patches(given), int(given.config.vision_feature_select_strategy == "full")
    return [Piece(i, grid, _central_crop(given, i), lead=lead) for i in range(_equal(given, grid, lead))]


def _central_crop(given: Given, image: int) -> Box:
    """The part of the original image that the processor cut out of its middle."""
    size, crop, short = given.size(image), given.setting("crop_size"), given.setting("size")
    if size is None or not given.setting("do_center_crop") or crop is None:
        return WHOLE
    width, height = size
    edge = short.get("shortest_edge") if hasattr(short, "get") else getattr(short, "shortest_edge", None)
    if edge is not None and given.setting("do_resize") is not False:
        wide = edge if width <= height else int(edge * width / height)
        high = edge if height <= width else int(edge * height / width)
    else:
        wide, high = width, height
    across, down = crop["width"], crop["height"]
    left, top = (wide - across) // 2, (high - down) // 2
    return left / wide, top / high, (left + across) / wide, (top + down) / high


def _paligemma(given: Given) -> list[Piece]:
    grid = _patches(given)
    return [Piece(i, grid) for i in range(_equal(given, grid))]


def _gemma3(given: Given) -> list[Piece]:
    side = math.isqrt(given.config.mm_tokens_per_image)
    views = _equal(given, (side, side))
    edges = [(c, c + side * side) for c in given.columns[:: side * side]]
    windows = _with_crops(given, views)
    pieces = []
    for (first, stop), (image, window, kind) in zip(edges, windows, strict=True):
        before = int(given.is_token(first - 1, "boi_token_id", "boi_token_index"))
        after = int(given.is_token(stop, "eoi_token_id", "eoi_token_index"))
        pieces.append(Piece(image, (side, side), window, kind=kind, before=before, after=after))
    return pieces


def _with_crops(given: Given, views: int) -> list[tuple[int, Box, Kind]]:
    """For each view of a row its image, window and kind: an image whole, then the crops of a wide or high one."""
    if given.sizes is None or not given.setting("do_pan_and_scan"):
        return [(i, WHOLE, "patch") for i in range(views)]
    found: list[tuple[int, Box, Kind]] = []
    image = 0
    while len(found) < views:
        size = given.size(image)
        assert size is not None
        settings = ("min_crop_size", "max_num_crops", "min_ratio_to_activate")
        crops = _pan_and_scan(*size, *(given.setting(f"pan_and_scan_{name}") for name in settings))
        found.append((image, WHOLE, "thumbnail" if crops else "patch"))
        found.extend((image, crop, "patch") for crop in crops)
        image += 1
    if len(found) != views:
        raise InputError(f"row {given.row} has {views} views of images, but images of these sizes make {len(found)}")
    return found


def _pan_and_scan(width: int, height: int, smallest: int, most: int, ratio: float) -> list[Box]:
    """The crops that Gemma 3's processor adds to an image."""
    long, short = max(width, height), min(width, height)
    if long / short < ratio:
        return []
    count = min(most, max(2, min(long // smallest, math.floor(long / short + 0.5))))
    step = math.ceil(long / count)
    if min(step, short) < smallest:
        return []
    cuts = [(i * step / long, min((i + 1) * step / long, 1.0)) for i in range(count)]
    return [(a, 0.0, b, 1.0) if width >= height else (0.0, a, 1.0, b) for a, b in cuts]


def _packed(given: Given) -> list[Piece]:
    """Qwen-VL: each image has its own grid, stated in image_grid_thw for the images of all rows in order."""
    grids = given.kwargs.get("image_grid_thw")
    if grids is None:
        raise InputError("the inputs have image tokens but no image_grid_thw")
    merge, pieces, left, image = given.config.vision_config.spatial_merge_size, [], list(given.columns), 0
    while left:
        times, high, wide = grids[given.image + image].tolist()
        piece = Piece(image, (high // merge, wide // merge))
        for time in range(times):
            first, stop = left[0], left[piece.count - 1] + 1
            before = int(time == 0 and given.is_token(first - 1, "vision_start_token_id"))
            after = int(time == times - 1 and given.is_token(stop, "vision_end_token_id"))
            pieces.append(Piece(image, piece.grid, before=before, after=after))
            left = left[piece.count :]
        image += 1
    return pieces


def _tiles(given: Given) -> list[Piece]:
    """Idefics3: an image is its tiles row by row and then itself as a thumbnail, or itself alone.

    Every piece is announced by a fence and a marker; a row of tiles ends with a line break, an image with a fence. So the text
    between two pieces tells how they lie: one fence, first, leads to the next column; one fence after a break to the next row or
    the thumbnail; two fences to another image.
    """
    high, wide = (n // given.config.scale_factor for n in _patches(given))
    runs = given.runs()
    if any(stop - first != high * wide for first, stop in runs):
        raise InputError(f"row {given.row} has a stretch of image tokens that is no tile of {high} x {wide}")
    if runs[-1][1] >= len(given.ids):
        raise InputError(f"the last image of row {given.row} is cut off: the token that closes it is missing")
    fence = given.ids[runs[-1][1]]
    begins = []  # of each piece, the last fence before it
    images: list[list[list[int]]] = []  # of each image, its rows of pieces, by their number
    for i, (first, _) in enumerate(runs):
        before = runs[i - 1][1] if i else 0
        fences = [c for c in range(before, first) if given.ids[c] == fence]
        if not fences:
            raise InputError(f"row {given.row}: no token {fence} stands before the image tokens at {first}")
        begins.append(fences[-1])
        if not i or len(fences) > 1:
            images.append([[i]])
        elif fences[0] == before:
            images[-1][-1].append(i)
        else:
            images[-1].append([i])
    pieces = []
    for image, lines in enumerate(images):
        tiles = lines[:-1]
        rows, columns = len(tiles), len(tiles[0]) if tiles else 0
        if any(len(line) != columns for line in tiles) or len(lines[-1]) != 1:
            raise InputError(f"the tiles of image {image} of row {given.row} are no rectangle and a thumbnail")
        for r, line in enumerate(lines):
            for c, i in enumerate(line):
                cut, new = r < rows, i == lines[0][0]
                part: Box = (c / columns, r / rows, (c + 1) / columns, (r + 1) / rows) if cut else WHOLE
                pieces.append(
                    Piece(
                        image,
                        (high, wide),
                        _beyond(part, given, i),
                        clip=part,
                        kind="patch" if cut or not tiles else "thumbnail",
                        before=runs[i][0] - (begins[i] if new else runs[i - 1][1]),
                        after=int(i == lines[-1][-1]),
                        offset=(r * high, c * wide) if cut else (0, 0),
                        of=(rows * high, columns * wide) if cut else None,
                    )
                )
    return pieces


def _beyond(part: Box, given: Given, tile: int) -> Box:
    """The window of a tile whose right and lower edges are padding, so that its real pixels cover `part`."""
    mask = given.kwargs.get("pixel_attention_mask")
    if mask is None:
        return part
    real = mask[given.row, tile] != 0
    high, wide = float(real.any(1).float().mean()), float(real.any(0).float().mean())
    left, top, right, bottom = part
    return (left, top, left + (right - left) / max(wide, 1e-6), top + (bottom - top) / max(high, 1e-6))


LAYOUTS: dict[str, Callable[[Given], list[Piece]]] = {
    "llava": _llava,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "packed": _packed,
    "tiles": _tiles,
}
"""The ways in which tokens cover images, by the name that a map gives in `images`."""
