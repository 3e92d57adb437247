"""Which region of an image each token covers: grids worked out by hand, and what moves when pixels move."""

import itertools

import pytest
import torch

from conformance.zoo import CASES
from mainspring import at
from mainspring.errors import InputError, PositionError
from mainspring.models.image_layouts import _pan_and_scan
from mainspring.models.image_tokens import ImageTokens, sizes_of
from mainspring.models.load import wrap
from models import map_algebra as algebra

THIRD = 1 / 3


def regions(name: str) -> ImageTokens:
    bench = algebra.bench(name)
    (found,) = bench.model.image_regions(bench.inputs)
    return found


def boxes(tokens: ImageTokens) -> list[tuple[float, ...]]:
    return [tuple(round(x, 4) for x in t.box) for t in tokens]


def grid(rows: int, columns: int) -> list[tuple[float, ...]]:
    cells = itertools.product(range(rows), range(columns))
    return [tuple(round(x, 4) for x in (c / columns, r / rows, (c + 1) / columns, (r + 1) / rows)) for r, c in cells]


# ---- by hand -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "side"), [("llava", 3), ("gemma3", 2), ("paligemma", 2), ("paligemma2", 2)])
def test_square_grids(name, side):
    """Two images, each a square grid."""
    found = regions(name)
    assert found.n_images == 2
    for image, pieces in enumerate(CASES[name].facts["images"]):
        ((start, stop, *shape),) = pieces
        tokens = found.of(image, "patch")
        assert tokens.positions == list(range(start, stop))
        assert boxes(tokens) == grid(*shape) == grid(side, side)
        assert {t.grid for t in tokens} == {(side, side)}
        assert [t.slot for t in tokens] == [(image, i) for i in range(side * side)]


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_grids_of_any_size(name):
    """4 x 6 and 2 x 4 patches, merged two by two: 2 x 3 and 1 x 2 tokens."""
    found = regions(name)
    first, second = found.of(0, "patch"), found.of(1, "patch")
    assert boxes(first) == grid(2, 3)
    assert boxes(second) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    assert [t.slot for t in (*first, *second)] == [(0, i) for i in range(8)]
    fences = found.of(kind="separator")
    ids = CASES[name].inputs()["input_ids"][0]
    assert ids[fences.positions].tolist() == [7, 8, 7, 8]  # begin and end of each image


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_tiles(name):
    """An image in two tiles and as a thumbnail, then one that stands alone and whose lower quarter is padding."""
    found = regions(name)
    (a, b, thumb), (alone,) = CASES[name].facts["images"]
    tiles = found.of(0, "patch")
    assert tiles.positions == [*range(a[0], a[1]), *range(b[0], b[1])]
    left = [(0, 0, 0.25, 0.5), (0.25, 0, 0.5, 0.5), (0, 0.5, 0.25, 1), (0.25, 0.5, 0.5, 1)]
    assert boxes(tiles) == [*left, *((x + 0.5, y, z + 0.5, w) for x, y, z, w in left)]
    assert {t.grid for t in tiles} == {(2, 4)}
    assert [t.cell for t in tiles] == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    view = found.of(0, "thumbnail")
    assert view.positions == list(range(thumb[0], thumb[1]))
    assert boxes(view) == grid(2, 2)
    assert [t.slot for t in view] == [(2, 0), (2, 1), (2, 2), (2, 3)]
    second = found.of(1, "patch")
    assert second.positions == list(range(alone[0], alone[1]))
    # 12 of 16 pixel rows are the image: the upper tokens cover 8 of them, the lower ones 4
    assert boxes(second) == [(0, 0, 0.5, 0.6667), (0.5, 0, 1, 0.6667), (0, 0.6667, 0.5, 1), (0.5, 0.6667, 1, 1)]
    ids = CASES[name].inputs()["input_ids"][0]
    text = ids[found.of(kind="separator").positions].tolist()
    assert text == [6, 8, 6, 9, 10, 10, 6, 7, 6, 6, 7, 6]


def test_a_rectangle_of_tiles():
    """2 x 2 tiles of 2 x 2 tokens, written as the processor writes them: one break after a row, two before the thumbnail."""
    model = algebra.bench("idefics3").model
    tile = [5] * 4
    whole = [6, 50, 51, 52, *tile, 6]  # a tokenizer may spell a marker in several tokens
    ids = [2, 30, 6, 20, *tile, 6, 21, *tile, 10, 6, 22, *tile, 6, 23, *tile, 10, 10, *whole, *whole, 40]
    inputs = {"input_ids": torch.tensor([ids]), "pixel_values": torch.randn(1, 6, 3, 16, 16)}
    (found,) = model.image_regions(inputs)
    patches = found.of(0, "patch")
    assert len(patches) == 16
    assert {t.grid for t in patches} == {(4, 4)}
    assert sorted(boxes(patches)) == sorted(grid(4, 4))
    assert patches[4].box == (0.5, 0.0, 0.75, 0.25)  # the first token of the second tile
    assert len(found.of(0, "thumbnail")) == 4
    assert boxes(found.of(1, "patch")) == grid(2, 2)
    assert [ids[p] for p in found.of(1, "separator").positions] == [6, 50, 51, 52, 6]
    assert len(found) == len(ids) - 3
    with pytest.raises(InputError, match="cut off"):
        model.image_regions({**inputs, "input_ids": torch.tensor([ids[:-2]])})


@pytest.mark.parametrize("name", ["llava", "qwen2-vl", "idefics3", "gemma3", "paligemma"])
def test_rows_of_a_padded_batch(name):
    """Positions count real tokens on either side; slots count the images of the whole batch; a row of text has none."""
    model = algebra.bench(name).model
    for side in ("left", "right"):
        padded, alone = CASES[name].batch(side)
        together, images = model.image_regions(padded), model.run(padded, read=at.image_tokens)[at.image_tokens]
        assert [len(r.of(kind="patch")) > 0 for r in together] == [True, True, False]
        for mine, row in zip(together, alone, strict=True):
            (single,) = model.image_regions(row)
            assert mine.positions == single.positions
            assert boxes(mine) == boxes(single)
        slots = [t.slot for r in together for t in r if t.slot is not None]
        every = [(i, j) for i in range(images.shape[0]) for j in range(images.shape[1])]
        assert sorted(slots) == every


# ---- by what moves -------------------------------------------------------------------------------------------------------------


def _isolated(name: str, inputs: dict) -> torch.Tensor:
    """Image tokens of a tower whose attention is off, so that a token knows of its own pixels only."""
    quiet = at.vision.layers[:].attn.add.scale(0.0)
    with torch.no_grad():
        return algebra.bench(name).model.run(inputs, read=at.image_tokens, edits=quiet)[at.image_tokens]


@pytest.mark.parametrize("name", ["llava", "gemma3", "paligemma", "idefics3", "smolvlm"])
def test_pixels_of_a_region_move_its_tokens(name):
    """Other pixels in one token's box move that token and no other (all that see the box, where an image has two views)."""
    bench, inputs = algebra.bench(name), CASES[name].inputs()
    found, before = regions(name), None
    before = _isolated(name, inputs)
    pixels = inputs["pixel_values"]
    views = pixels.shape[:-3]
    for token in [t for t in found if t.kind in ("patch", "thumbnail")]:
        image, patch = token.slot
        changed = pixels.clone()
        flat = changed.view(-1, *pixels.shape[-3:])
        height, width = pixels.shape[-2:]
        siblings = [t for t in found if t.slot is not None and t.slot[0] == image]
        left, top, right, bottom = _within_view(token, siblings)
        flat[image, :, round(top * height) : round(bottom * height), round(left * width) : round(right * width)] += 1.0
        after = _isolated(name, {**inputs, "pixel_values": changed.view(*views, *pixels.shape[-3:])})
        moved = (after - before).abs().amax(-1) > 1e-5
        assert moved.nonzero().tolist() == [[image, patch]]
    assert bench.model.image_regions(inputs)[0].positions == found.positions


def _within_view(token, siblings):
    """The token's box as a fraction of the pixels of its own view (tile, thumbnail or image), padding included."""
    rows = sorted({t.cell[0] for t in siblings})
    columns = sorted({t.cell[1] for t in siblings})
    r, c = rows.index(token.cell[0]), columns.index(token.cell[1])
    return c / len(columns), r / len(rows), (c + 1) / len(columns), (r + 1) / len(rows)


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_patches_of_a_region_move_its_token(name):
    """The processor writes patches two by two: a merged token reads four neighbours of the sequence, in the order of the text."""
    inputs = CASES[name].inputs()
    before = _isolated(name, inputs)
    for token in regions(name).of(kind="patch"):
        changed = inputs["pixel_values"].clone()
        changed[4 * token.slot[1] : 4 * token.slot[1] + 4] += 1.0
        moved = (_isolated(name, {**inputs, "pixel_values": changed}) - before).abs().amax(-1) > 1e-5
        assert moved.nonzero().tolist() == [list(token.slot)]


def _processor(cls: str, **settings):
    """A real image processor without its tokenizer, or a skip where it needs more than is installed."""
    import transformers

    made = getattr(transformers, cls)(**settings)
    return type("Processor", (), {"image_processor": made, "tokenizer": None})()


def _square(width: int, height: int, box: tuple[float, ...]):
    """A black picture with a white rectangle."""
    from PIL import Image

    picture = torch.zeros(height, width, 3, dtype=torch.uint8)
    left, top, right, bottom = box
    picture[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 255
    return Image.fromarray(picture.numpy())


def test_qwen_regions_are_those_of_its_image_processor():
    """A white rectangle in a picture of odd shape lights up exactly the tokens whose boxes it covers."""
    processor = _processor(
        "Qwen2VLImageProcessorPil",
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 64, "longest_edge": 4096},
    )
    model = algebra.bench("qwen2-vl").model
    picture = _square(48, 24, (0.5, 0.0, 0.8334, 0.6667))
    out = processor.image_processor(images=[picture], return_tensors="pt")
    _, high, wide = out["image_grid_thw"][0].tolist()
    ids = torch.tensor([[3, 7, *[5] * (high * wide // 4), 8, 20]])
    (found,) = model.image_regions({"input_ids": ids, **out})
    lit = out["pixel_values"].unflatten(0, (-1, 4)).amax(dim=(1, 2)) > 1.0
    expected = found.weights((0.5, 0.0, 0.8334, 0.6667))[found_index(found)] > 1e-3
    assert (high // 2, wide // 2) == found.of(kind="patch")[0].grid == (3, 6)
    assert torch.equal(lit, expected)


def found_index(found: ImageTokens) -> list[int]:
    return [i for i, t in enumerate(found) if t.kind == "patch"]


def test_idefics_regions_are_those_of_its_image_processor():
    """The same through tiling and a thumbnail: the tile's own pixels are lit where a token's box is."""
    processor = _processor(
        "Idefics3ImageProcessorPil", size={"longest_edge": 48}, max_image_size={"longest_edge": 16}, return_row_col_info=True
    )
    box = (0.3334, 0.0, 0.6666, 0.5)
    out = processor.image_processor(images=[[_square(90, 60, box)]], return_tensors="pt")
    rows, columns = out["rows"][0][0], out["cols"][0][0]
    assert (rows, columns) == (2, 3)
    tile, ids = [5] * 4, [2]
    for r in range(rows):
        for c in range(columns):
            ids += [6, 20 + 6 * r + c, *tile]
        ids += [10]
    ids += [10, 6, 7, *tile, 6, 50]
    inputs = {
        "input_ids": torch.tensor([ids]),
        "pixel_values": out["pixel_values"],
        "pixel_attention_mask": out["pixel_attention_mask"],
    }
    (found,) = algebra.bench("idefics3").model.image_regions(inputs)
    light = out["pixel_values"][0].amax(1).unfold(1, 8, 8).unfold(2, 8, 8).mean(dim=(-1, -2))  # [tile, row, column]
    for token in found.of(kind="patch"):
        lit = light[token.slot[0]].flatten()[token.slot[1]] > 0.5
        assert bool(lit) == bool(found.weights(box)[list(found).index(token)] > 0.5), token


def test_llava_crops_the_middle():
    """A picture twice as wide as high: the grid covers its middle half."""
    processor = _processor("CLIPImageProcessorPil", size={"shortest_edge": 18}, crop_size={"height": 18, "width": 18})
    bench = algebra.bench("llava")
    model = wrap(bench.model.module, processor=processor)
    picture = _square(200, 100, (0.25, 0.0, 0.4167, 0.3334))
    pixels = processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    inputs = {"input_ids": torch.tensor([[2, *[5] * 9, 30]]), "pixel_values": pixels}
    (seen,) = model.image_regions(inputs)
    assert boxes(seen) == grid(3, 3)
    (found,) = model.image_regions(inputs, sizes=[(200, 100)])
    assert boxes(found)[0] == (0.25, 0.0, 0.4167, 0.3333)
    assert boxes(found)[-1] == (0.5833, 0.6667, 0.75, 1.0)
    light = pixels[0].amax(0).unfold(0, 6, 6).unfold(1, 6, 6).mean(dim=(-1, -2)).flatten()
    assert light.argmax() == 0
    assert found.inside((0.25, 0.0, 0.4167, 0.3334)).positions == [1]


def test_gemma_crops_wide_pictures():
    """Pan and scan: a picture three times as wide as high stands whole, then in three crops."""
    assert _pan_and_scan(900, 300, 256, 4, 1.2) == [
        (0.0, 0.0, THIRD, 1.0),
        (THIRD, 0.0, 2 * THIRD, 1.0),
        (2 * THIRD, 0.0, 1.0, 1.0),
    ]
    assert _pan_and_scan(300, 600, 256, 4, 1.2) == [(0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)]
    assert _pan_and_scan(300, 300, 256, 4, 1.2) == []
    assert _pan_and_scan(400, 200, 256, 4, 1.2) == []
    settings = {"pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2}
    processor = _processor("Gemma3ImageProcessorPil", do_pan_and_scan=True, size={"height": 24, "width": 24}, **settings)
    sizes = [(900, 300), (300, 300), (1000, 401)]
    for width, height in sizes:
        made = processor.image_processor(images=[_square(width, height, (0, 0, 1, 1))], return_tensors="pt")
        assert len(made["pixel_values"]) == 1 + len(_pan_and_scan(width, height, 256, 4, 1.2))
    model = wrap(algebra.bench("gemma3").model.module, processor=processor)
    view = [8, 5, 5, 5, 5, 9]
    inputs = {"input_ids": torch.tensor([[2, *view * 4, 30, *view]]), "pixel_values": torch.zeros(5, 3, 24, 24)}
    (found,) = model.image_regions(inputs, sizes=[(900, 300), (300, 300)])
    assert found.n_images == 2
    assert boxes(found.of(0, "thumbnail")) == grid(2, 2)
    assert boxes(found.of(0, "patch"))[4:6] == [(0.3333, 0.0, 0.5, 0.5), (0.5, 0.0, 0.6667, 0.5)]
    assert boxes(found.of(1, "patch")) == grid(2, 2)


# ---- selections ----------------------------------------------------------------------------------------------------------------


def test_inside_by_centre_and_by_share():
    found = regions("llava").of(0)
    first = found.positions[0]
    assert found.inside((0.0, 0.0, 0.5, 0.5)).positions == [first]
    assert found.inside((0.0, 0.0, 0.51, 0.51)).positions == [first, first + 1, first + 3, first + 4]
    assert found.inside((0.0, 0.0, 0.5, 0.5), more_than=0.4).positions == [first, first + 1, first + 3]
    assert found.inside((0.0, 0.0, 1.0, 0.2)).positions == [first, first + 1, first + 2]


def test_weights_of_a_mask_are_exact():
    """A mask whose pixels do not line up with the grid, against a mask fine enough to count."""
    found = regions("llava").of(0)
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    fine = mask.repeat_interleave(3, 0).repeat_interleave(3, 1).double()  # 15 x 21: every edge is on a pixel
    expected = [fine[5 * r : 5 * r + 5, 7 * c : 7 * c + 7].mean() for r in range(3) for c in range(3)]
    torch.testing.assert_close(found.weights(mask), torch.stack(expected).float())
    whole = torch.ones(4, 4, dtype=torch.bool)
    assert found.weights(whole).eq(1).all()
    box = torch.zeros(6, 6)
    box[:3, :3] = 1
    torch.testing.assert_close(found.weights(box), found.weights((0.0, 0.0, 0.5, 0.5)))
    assert found.inside(box).positions == found.inside((0.0, 0.0, 0.4999, 0.4999)).positions


def test_a_row_of_several_images_must_name_one():
    found = regions("llava")
    with pytest.raises(PositionError, match="2 images"):
        found.inside((0, 0, 1, 1))
    assert len(found.inside((0, 0, 1, 1), image=1)) == 9
    assert found.weights((0, 0, 1, 1), image=0).sum() == 9


def test_thumbnails_are_chosen_by_kind():
    found = regions("idefics3")
    assert len(found.inside((0, 0, 0.5, 1), image=0)) == 4
    assert len(found.inside((0, 0, 0.5, 1), image=0, kind="thumbnail")) == 2
    assert len(found.inside((0, 0, 0.5, 1), image=0, kind=("patch", "thumbnail"))) == 6


def test_models_without_images_say_so():
    with pytest.raises(InputError, match="no image tokens"):
        algebra.bench("bert").model.image_regions(torch.arange(12, 20)[None])
    inputs = {"input_ids": torch.tensor([[2, 5, 5, 5, 5, 30]]), "pixel_values": torch.zeros(1, 3, 18, 18)}
    with pytest.raises(InputError, match="no multiple of the 9"):
        algebra.bench("llava").model.image_regions(inputs)


def test_sizes_of_pictures():
    import numpy

    pictures = [[_square(20, 10, (0, 0, 1, 1))], numpy.zeros((10, 30, 3)), torch.zeros(3, 5, 7)]
    assert sizes_of(pictures) == [(20, 10), (30, 10), (7, 5)]
