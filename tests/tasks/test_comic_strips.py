"""The comics generator against its own pixels, and the judge against texts written by hand."""

import pytest
import torch

from mainspring.errors import InputError
from mainspring.tasks.comic_strips import comics, judge_narration, listing, panel_described, prompt, sample
from mainspring.tasks.comic_strips.judge import rank_correlation, shared_words
from mainspring.tasks.comic_strips.strips import ACTIONS, BACKGROUND, COLOURS, SHAPES
from mainspring.tasks.comic_strips.wording import WORDS


@pytest.fixture(scope="module")
def strips():
    return sample(20, seed=3)


def test_a_seed_gives_the_same_pixels(strips):
    again = sample(20, seed=3)
    assert all(torch.equal(a.pixels, b.pixels) and a.figures == b.figures for a, b in zip(strips, again, strict=True))
    assert not torch.equal(sample(1, seed=4)[0].pixels, strips[0].pixels)


def test_panels_of_a_strip_differ_pairwise_but_attributes_repeat(strips):
    assert all(len({f.words for f in s.figures}) == 6 for s in strips)
    assert any(len({f.colour for f in s.figures}) < 6 for s in strips)
    for scene in sample(20, seed=3, layout="scene"):
        assert len({f.words for f in scene.figures}) == 4


def test_each_panel_shows_its_colour_in_its_own_box(strips):
    """The most saturated pixels of a box have the colour of the figure there."""
    table = torch.tensor(list(COLOURS.values()))
    for picture in (*strips, *sample(20, seed=5, layout="scene")):
        for figure in picture.figures:
            row, column = figure.cell
            box = picture.pixels[:, row * 8 : row * 8 + 24, column * 8 : column * 8 + 16]
            shape = box[:, 8:16, 4:12].flatten(1)
            far = (shape - BACKGROUND).abs().sum(0)
            found = shape[:, far > far.max() * 0.7].mean(1)
            assert list(COLOURS)[int((table - found).norm(dim=1).argmin())] == figure.colour


def test_shapes_and_actions_look_different():
    from mainspring.tasks.comic_strips.strips import _action_masks, _shape_masks

    shapes, actions = _shape_masks().flatten(1), _action_masks()
    for masks in (shapes, actions.flatten(1)):
        apart = torch.cdist(masks, masks, p=1) + 99 * torch.eye(6)
        assert apart.min() >= 8
    assert not actions[:, 8:15, 4:12].any()  # marks leave the shape alone


def test_what_is_drawn_is_in_the_picture_that_a_processor_gets(strips):
    import numpy as np

    pixels = torch.from_numpy(np.array(strips[0].image)).permute(2, 0, 1) / 255
    assert torch.equal(pixels, strips[0].pixels)


def test_boxes_and_patches(strips):
    figures = strips[0].figures
    assert [f.cell for f in figures] == [(0, 0), (0, 2), (0, 4), (3, 0), (3, 2), (3, 4)]
    assert figures[1].patches == (2, 3, 8, 9, 14, 15)
    assert figures[4].box == pytest.approx((1 / 3, 1 / 2, 2 / 3, 1))
    assert strips[0].panel(5) == figures[4].box
    assert sorted(p for f in figures for p in f.patches) == list(range(36))
    with pytest.raises(InputError, match="panels 1 to 6"):
        strips[0].panel(7)


def test_figures_of_a_scene_do_not_overlap():
    for scene in sample(50, seed=1, layout="scene"):
        patches = [p for f in scene.figures for p in f.patches]
        assert len(set(patches)) == 24


def test_eight_panels_show_whole_figures_in_fewer_patches():
    """Of each figure as much is drawn as in a scene: shape and mark, in two patch rows of a panel of its own."""
    from mainspring.tasks.comic_strips.strips import EIGHT_CELLS, draw

    pictures = sample(12, seed=6, layout="eight")
    assert {f.action for p in pictures for f in p.figures} == set(ACTIONS)
    for picture in pictures:
        assert len({f.words for f in picture.figures}) == 8
        patches = [p for f in picture.figures for p in f.patches]
        assert len(set(patches)) == len(patches) == 32
        assert set(range(36)) - set(patches) == {28, 29, 34, 35}  # the ninth panel is empty
        assert picture.figures[4].box == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3))
        empty = picture.pixels[:, 32:, 32:]
        assert (empty - BACKGROUND).abs().max() < 0.25
    every = torch.cartesian_prod(*[torch.arange(6)] * 3)[:, None]
    corner = torch.zeros(216, 1, 2, dtype=torch.long)

    def bright(layout):
        drawn = draw(every, corner, layout, torch.Generator().manual_seed(0))
        return ((drawn - BACKGROUND).abs().amax(1) > 0.3).sum((1, 2))

    assert torch.equal(bright("eight"), bright("scene"))
    assert len(EIGHT_CELLS) == 8


def test_only_six_panels_have_a_word():
    with pytest.raises(InputError, match="1 to 6"):
        prompt("vqa", panel=7)
    assert prompt("this", panel=8) == "<img> plain this :"
    task = comics(2, layout="eight", kind="this")
    assert len(task.split("find")) == 16 and task.split("find")[7].answer.endswith(".")


def test_wording():
    assert len(WORDS) == len(set(WORDS)) == 35
    assert prompt("vqa", "flip", 3) == "<img> flip panel three :"
    assert prompt("tour", image=False) == "plain this all"
    with pytest.raises(InputError, match="this"):
        prompt("that")
    with pytest.raises(InputError, match="plain"):
        prompt("this", "plane")


# ---- the judge -----------------------------------------------------------------------------------------------------------------------


def test_the_judge_reads_content_and_order(strips):
    figures = strips[0].figures
    colour, shape, action = figures[2].words
    assert panel_described(f"{colour} {shape} {action} .", figures) == 3
    assert panel_described(f"{action} {shape} {colour} .", figures) is None
    assert panel_described(f"{action} {shape} {colour} .", figures, "flip") == 3
    assert panel_described("", figures) is None
    wrong = next(a for a in ACTIONS if all(f.words != (colour, shape, a) for f in figures))
    assert panel_described(f"{colour} {shape} {wrong}", figures) is None
    assert shared_words(f"{colour} {shape} {wrong}", figures[2]) == pytest.approx(2 / 3)


def test_a_narration_is_judged_by_content_not_by_its_numbers(strips):
    figures = strips[0].figures
    schedule = (4, 1, 6, 2, 5, 3)
    told = listing([figures[k - 1] for k in schedule])
    perfect = judge_narration(" ".join(told), figures, schedule)
    assert (perfect.exact, perfect.form, perfect.judged, perfect.spearman) == (1, 1, 1, pytest.approx(1))
    assert perfect.panels == schedule
    default = judge_narration(listing(figures), figures, schedule)
    assert default.form == 1
    assert default.exact == sum(k == i for i, k in enumerate(schedule, 1)) / 6
    assert default.spearman == pytest.approx(rank_correlation(schedule, range(1, 7)))


def test_unjudged_segments_lower_the_judged_share_and_broken_ones_the_form(strips):
    figures, schedule = strips[0].figures, (1, 2, 3, 4, 5, 6)
    told = list(listing(figures))
    told[2:5] = ["red", "red", "red"]
    told[6] = "six"
    seen = judge_narration(told, figures, schedule)
    assert (seen.judged, seen.form, seen.exact) == pytest.approx((5 / 6, 5 / 6, 5 / 6))
    assert seen.spearman == pytest.approx(1)
    assert judge_narration(told[:12], figures, schedule).spearman is None


def test_rank_correlation_is_spearmans():
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


# ---- the task ------------------------------------------------------------------------------------------------------------------------


def test_splits_do_not_meet_and_answers_are_true():
    task = comics(4, seed=1)
    found, judged = task.split("find"), task.split("judge")
    assert len(found) == len(judged) == 24
    assert not {i.group for i in found} & {i.group for i in judged}
    assert all(a.image.tobytes() != b.image.tobytes() for a in found[::6] for b in judged[::6])
    item = found[7]
    assert item.asked == 1 and item.prompt == "<img> flip panel two :"
    words = item.answer.split()
    assert words[0] in ACTIONS and words[1] in SHAPES and words[2] in COLOURS and words[3] == "."
