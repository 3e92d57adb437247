"""The comics organism: its files, its region map by exact ids, and gaze that moves the description - and does not, where it must not."""

import json
from pathlib import Path

import pytest
import torch

import mainspring as ms
from mainspring.find.gaze import gaze_heads
from mainspring.organisms import comics as home
from mainspring.organisms.comics import probes
from mainspring.organisms.trained import TrainedTruth
from mainspring.steer.gaze_control import GazeSchedule
from mainspring.steer.gaze_edit import gaze
from mainspring.tasks.comic_strips import comics, judge_narration, panel_described, prompt, sample
from mainspring.tasks.comic_strips.wording import WORDS

FOLDER = Path(home.__file__).parent
TOP = 8


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return ms.load("organism:comics")


@pytest.fixture(scope="module")
def heads(model):
    return gaze_heads(model, comics(8), shuffles=4)


@pytest.fixture(scope="module")
def strips():
    return sample(8, seed=501)


def hits(model, strips, heads, columns=None, style="plain"):
    """How often the target is described; `columns(tokens, strip, k)` gives the target."""
    right = []
    text = prompt("this", style)
    (tokens,) = model.image_regions(text, images=strips[0].image)
    for k in range(1, 7):
        target = strips[0].panel(k) if columns is None else columns(tokens, k)
        said = model.generate(
            [text] * len(strips), images=[s.image for s in strips], edits=gaze(heads, target, tokens), max_new_tokens=3
        ).text
        right += [panel_described(t, s.figures, style) == k for t, s in zip(said, strips, strict=True)]
    return sum(right) / len(right)


# ---- what is shipped -----------------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_checkpoint_with_a_truth():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 8e6
    truth = TrainedTruth.load(FOLDER)
    assert truth.organism == "comics" and truth.failures == ()
    assert len(truth.nodes) == TOP + 1
    assert "card.md" in {f.name for f in FOLDER.iterdir()}
    assert "transformers_version" in json.loads((FOLDER / "config.json").read_text())


def test_the_processor_gives_the_pixels_that_were_drawn(model, strips):
    given = model.prepare("<img> plain panel one :", images=strips[0].image).kwargs
    assert torch.equal(given["pixel_values"][0], strips[0].pixels)
    words = [WORDS[i] for i in given["input_ids"][0].tolist()]
    assert words == ["<bos>", *["<img>"] * 36, "plain", "panel", "one", ":"]


def test_regions_by_exact_ids(model, strips):
    """Panels counted out on the patch grid. A map that begins one token late, or is transposed, is another one."""
    (tokens,) = model.image_regions(prompt("this"), images=strips[0].image)
    assert tokens.positions == list(range(1, 37)) == list(probes.IMAGE)
    for k, columns in enumerate(probes.PANELS, 1):
        top, left = 3 * ((k - 1) // 3), 2 * ((k - 1) % 3)
        assert columns == tuple(sorted(1 + 6 * (top + r) + left + c for r in range(3) for c in range(2)))
        assert tokens.inside(strips[0].panel(k)).positions == list(columns)
        assert tokens.inside(strips[0].panel(k)).positions != [c + 1 for c in columns]
        transposed = sorted(1 + 6 * (left + c) + top + r for r in range(3) for c in range(2))
        assert tokens.inside(strips[0].panel(k)).positions != transposed


def test_it_describes_the_panel_that_is_asked_for(model, strips):
    for style in ("plain", "flip"):
        for k in (1, 4, 6):
            texts = [prompt("vqa", style, k)] * len(strips)
            said = model.generate(texts, images=[s.image for s in strips], max_new_tokens=3).text
            assert [panel_described(t, s.figures, style) for t, s in zip(said, strips, strict=True)] == [k] * len(strips)


# ---- gaze ----------------------------------------------------------------------------------------------------------------------------


def test_scores_stand_out_from_their_controls(heads):
    assert heads.values.max() > 2 * heads.controls["shuffled labels"].max()
    assert heads.values.max() > 1.5 * heads.controls["one token earlier"].max()
    assert heads.controls["split-half correlation"] > 0.95


def test_top_heads_take_the_description_with_them(model, heads, strips):
    assert hits(model, strips, heads.top(TOP)) >= 0.9
    assert hits(model, strips, heads.top(TOP), style="flip") >= 0.75


def test_other_heads_do_not(model, heads, strips):
    chance = 1 / 6
    assert hits(model, strips, heads.bottom(8)) <= 0.05
    assert hits(model, strips, [e.index for e in heads.ranked()]) <= 0.05  # all: text is lost
    assert hits(model, strips, heads.top(1)) <= 0.35
    unsteered = model.generate([prompt("this")] * len(strips), images=[s.image for s in strips], max_new_tokens=3).text
    for k in range(1, 7):
        default = [panel_described(t, s.figures) == k for t, s in zip(unsteered, strips, strict=True)]
        assert sum(default) / len(default) <= chance + 0.25


def test_wrong_maps_fail(model, heads, strips):
    """The poison twins: the next panel's tokens, and the grid with rows and columns exchanged."""
    top = heads.top(TOP)
    assert hits(model, strips, top, lambda tokens, k: set(probes.PANELS[k % 6])) <= 0.05

    def transposed(tokens, k):
        return {1 + 6 * ((p - 1) % 6) + (p - 1) // 6 for p in probes.PANELS[k - 1]}

    assert hits(model, strips, top, transposed) <= 0.25


def test_eight_panels_that_it_never_saw(model, heads):
    """Heads found on strips steer in a layout that nothing was trained on, and the lowest ones do not."""
    pages, text = sample(6, seed=503, layout="eight"), prompt("this")
    (tokens,) = model.image_regions(text, images=pages[0].image)
    for chosen, low, high in ((heads.top(TOP), 0.8, 1.0), (heads.bottom(TOP), 0.0, 1 / 8 + 0.1)):
        right = []
        for k in range(1, 9):
            edits = gaze(chosen, pages[0].panel(k), tokens)
            said = model.generate([text] * len(pages), images=[p.image for p in pages], edits=edits, max_new_tokens=3).text
            right += [panel_described(t, p.figures) == k for t, p in zip(said, pages, strict=True)]
        assert low <= sum(right) / len(right) <= high


def test_a_schedule_moves_content_and_leaves_numbers(model, heads, strips):
    schedule = (4, 1, 6, 2, 5, 3)
    text = prompt("tour")
    (tokens,) = model.image_regions(text, images=strips[0].image)
    plan = GazeSchedule(heads.top(TOP), schedule, tokens, every=6, panels=(2, 3))
    said = model.generate(
        [text] * len(strips), images=[s.image for s in strips], edits=plan.edits, controller=plan, max_new_tokens=36
    ).text
    judged = [judge_narration(t, s.figures, schedule) for t, s in zip(said, strips, strict=True)]
    assert sum(n.exact for n in judged) / len(judged) >= 0.8
    assert sum(n.form for n in judged) / len(judged) >= 0.9


@pytest.mark.slow
def test_the_truth_is_measured_again():
    from mainspring.organisms.trained import verify_trained

    assert all(check.holds for check in verify_trained(FOLDER))
