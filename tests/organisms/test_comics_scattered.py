"""The twin whose image tokens do not show their place: it answers, its heads are not steered by places, but by the tokens that show."""

from pathlib import Path

import pytest
import torch

import mainspring as ms
from mainspring.organisms import comics_scattered as home
from mainspring.organisms.comics.measures import hits, panel_exact, suppress
from mainspring.organisms.comics.probes import PANELS, panel_mass, ranked
from mainspring.organisms.comics_scattered.checks import SHOWING, best_of, tokens_that_show
from mainspring.organisms.trained import TrainedTruth, verify_trained
from mainspring.tasks.comic_strips import sample

FOLDER = Path(home.__file__).parent
LEAK = 1 / 6 + 0.1


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return ms.load("organism:comics-scattered")


@pytest.fixture(scope="module")
def strips():
    return sample(6, seed=611)


def test_what_is_shipped():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 8e6
    truth = TrainedTruth.load(FOLDER)
    assert truth.organism == "comics-scattered" and truth.failures == ()
    assert [node.variable for node in truth.nodes] == ["panel content"]


def test_each_place_holds_one_token_of_every_panel():
    for place in PANELS:
        assert [len(set(place) & set(showing)) for showing in SHOWING] == [1] * 6
    assert sorted(p for showing in SHOWING for p in showing) == list(range(1, 37))


def test_it_answers_and_no_set_of_heads_steers_it(model, strips):
    assert panel_exact(model, strips) >= 0.95
    heads = ranked(panel_mass(model, sample(6, seed=612)))
    assert best_of(model, strips, heads, (4, 8, 16, 32))[0] <= LEAK


def test_the_tokens_that_show_a_panel_do(model, strips):
    """One edit, all heads, two sets of six tokens: those that show a panel, and those of its place."""
    heads = ranked(panel_mass(model, strips))
    assert tokens_that_show(model, strips) >= 0.8
    assert hits(model, strips, heads, edits=lambda k: suppress(heads, k)) <= LEAK


@pytest.mark.slow
def test_the_truth_is_measured_again():
    assert all(check.holds for check in verify_trained(FOLDER))
