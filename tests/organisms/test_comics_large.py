"""The large comics model: few heads steer, as many drawn at random do not, and pointing them leaves the text its form."""

from pathlib import Path
from statistics import fmean

import pytest
import torch

import mainspring as ms
from mainspring.find.gaze import gaze_heads
from mainspring.organisms import comics_large as home
from mainspring.organisms.comics.measures import scene_hits, tours
from mainspring.organisms.comics.probes import writers
from mainspring.organisms.comics_large.recipe import TOP
from mainspring.organisms.trained import TrainedTruth, verify_trained
from mainspring.steer.gaze_edit import gaze
from mainspring.tasks.comic_strips import comics, panel_described, prompt, sample

FOLDER = Path(home.__file__).parent
LEAK = 1 / 6 + 0.1


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return ms.load("organism:comics-large")


@pytest.fixture(scope="module")
def heads(model):
    return gaze_heads(model, comics(8), shuffles=4)


def hits(model, pictures, heads, targets=range(1, 7)):
    """How often the target is described, over pictures that share their regions."""
    text = prompt("this")
    (tokens,) = model.image_regions(text, images=pictures[0].image)
    right = []
    for k in targets:
        edits = gaze(heads, pictures[0].panel(k), tokens)
        said = model.generate([text] * len(pictures), images=[p.image for p in pictures], edits=edits, max_new_tokens=3).text
        right += [panel_described(t, p.figures) == k for t, p in zip(said, pictures, strict=True)]
    return fmean(right)


def test_what_is_shipped():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 8e6
    truth = TrainedTruth.load(FOLDER)
    assert truth.organism == "comics-large" and truth.failures == ()
    assert len(truth.nodes) == TOP + 1


def test_few_of_many_heads_steer(model, heads):
    assert heads.values.numel() == 64 and TOP <= 64 / 3
    assert hits(model, sample(8, seed=601), heads.top(TOP)) >= 0.8


def test_random_heads_among_all_do_not(model, heads):
    strips, every = sample(4, seed=602), [entry.index for entry in heads.ranked()]
    generator = torch.Generator().manual_seed(1)
    draws = [[every[i] for i in torch.randperm(64, generator=generator)[:TOP].tolist()] for _ in range(6)]
    assert fmean(hits(model, strips, drawn) for drawn in draws) <= LEAK
    assert hits(model, strips, heads.bottom(TOP)) <= LEAK


def test_heads_that_gaze_write_and_most_others_do_not(model, heads):
    writing = writers(model, sample(4, seed=604))
    assert len(writing) <= 20
    assert {entry.index for entry in heads.ranked()[:TOP]} <= set(writing)


def test_pointing_them_leaves_the_text_its_form(model, heads):
    """A schedule moves content and leaves numbers; all heads at once break the text."""
    strips, every = sample(4, seed=605), [entry.index for entry in heads.ranked()]
    narrations = tours(model, strips, heads.top(TOP), (4, 1, 6, 2, 5, 3))
    assert fmean(n.exact for n in narrations) >= 0.8 and fmean(n.form for n in narrations) >= 0.9
    assert hits(model, strips, every) <= 0.05


def test_eight_panels_that_it_never_saw(model, heads):
    pages = sample(4, seed=606, layout="eight")
    assert scene_hits(model, pages, heads.top(TOP)) >= 0.8
    assert scene_hits(model, pages, heads.bottom(TOP)) <= 1 / 8 + 0.1


@pytest.mark.slow
def test_the_truth_is_measured_again():
    assert all(check.holds for check in verify_trained(FOLDER))
