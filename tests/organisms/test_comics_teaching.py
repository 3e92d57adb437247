"""The training of the comics organism in miniature: lessons say what is drawn, stages freeze and empty what they should."""

import math

import pytest
import torch

import mainspring as ms
from mainspring.organisms.comics.build import Size, build_model
from mainspring.organisms.comics.growth import grow
from mainspring.organisms.comics.lessons import (
    SCATTERED,
    Pupil,
    empty_heads,
    head_sizes,
    lesson,
    loss_of,
)
from mainspring.organisms.comics.scattering import SHOWN, scattering_loss
from mainspring.organisms.comics.teach import Stage, teach
from mainspring.organisms.training import Schedule, fit
from mainspring.tasks.comic_strips.strips import ACTIONS, COLOURS, SHAPES
from mainspring.tasks.comic_strips.wording import NUMBERS, WORDS

TINY = Size(layers=1, heads=2, width=64, tower_layers=1, tower_width=32)


def words(row):
    return [WORDS[i] for i in row.tolist()]


@pytest.mark.parametrize("kind", ["vqa", "this", "all", "tour", "scene"])
def test_lessons_tell_the_truth(kind):
    given = lesson(kind, 12, torch.Generator().manual_seed(2))
    for ids, attributes in zip(given.ids, given.attributes.tolist(), strict=True):
        said = words(ids[37:])
        asking, answer = said[: -given.answer], said[-given.answer :]
        figures = [(list(COLOURS)[c], SHAPES[s], ACTIONS[a]) for c, s, a in attributes]
        shown = figures if asking[0] == "plain" else [f[::-1] for f in figures]
        if kind == "vqa":
            assert tuple(answer[:3]) == shown[NUMBERS.index(asking[2])] and answer[3] == "."
        elif kind in ("this", "scene"):
            assert tuple(answer[:3]) in shown and asking[1:] == ["this", ":"]
        else:
            segments = [answer[i : i + 6] for i in range(0, 36, 6)]
            assert [s[0] for s in segments] == list(NUMBERS)
            told = [tuple(s[2:5]) for s in segments]
            assert told == shown if kind == "all" else sorted(told) == sorted(shown)


def test_an_unnamed_panel_is_a_random_one():
    given = lesson("this", 300, torch.Generator().manual_seed(0))
    chosen = torch.zeros(6)
    for ids, attributes in zip(given.ids, given.attributes.tolist(), strict=True):
        said = words(ids[37:])
        figures = [(list(COLOURS)[c], SHAPES[s], ACTIONS[a]) for c, s, a in attributes]
        told = tuple(said[3:6]) if said[0] == "plain" else tuple(said[3:6])[::-1]
        chosen[figures.index(told)] += 1
    assert chosen.min() > 25


def test_words_are_frozen_first():
    pupil = Pupil(build_model(TINY, 0), 0)
    embedding = pupil.model.get_input_embeddings().weight
    assert torch.allclose(embedding @ embedding.T, torch.eye(35), atol=1e-5)
    loss = loss_of(pupil, batch=2, thawed_at=5)
    for step, trained in ((4, False), (5, True)):
        total, _ = loss(step, torch.Generator().manual_seed(step))
        total.backward()
        assert (embedding.grad is not None) == trained


def test_emptied_heads_write_nothing_and_stay_empty():
    model = build_model(TINY, 0)
    sizes = head_sizes(model).detach()
    keep = sizes.flatten().max().item()
    empty_heads(model, below=keep)
    left = head_sizes(model).detach()
    assert torch.allclose(left.max(), sizes.max())
    assert (left[sizes < keep] < 1e-3).all()
    loss, _ = loss_of(Pupil(model, 0), batch=2)(900, torch.Generator().manual_seed(0))
    loss.backward()
    layer = model.model.language_model.layers[0].self_attn
    dead = layer.q_proj.weight.abs().sum(1) == 0
    assert dead.sum() == 32
    assert not layer.q_proj.weight.grad[dead].any() and not layer.v_proj.weight.grad[dead].any()


def test_a_placed_pupil_is_asked_where_patches_are():
    bare, placed = (Pupil(build_model(TINY, 0), 0, placed=placed) for placed in (False, True))
    assert torch.equal(bare.reader.weight, placed.reader.weight)
    losses = [loss_of(pupil, 4, {"this": 1.0})(0, torch.Generator().manual_seed(1))[1]["seen"] for pupil in (bare, placed)]
    assert losses[1] - losses[0] == pytest.approx(math.log(6), abs=0.2)  # six rows and six columns, not known at first


def test_a_head_has_the_width_that_is_asked_for():
    wide = build_model(Size(layers=1, heads=4, width=64, head_width=32, tower_layers=1, tower_width=32), 0)
    assert wide.model.language_model.layers[0].self_attn.q_proj.weight.shape == (128, 64)
    assert head_sizes(wide).shape == (1, 4)


def logits(model, given):
    with torch.no_grad():
        return model.eval()(input_ids=given.ids, pixel_values=given.pixels).logits


def test_a_grown_model_computes_what_it_did():
    """Exactly, where the heads that are added write nothing; emptied heads begin anew, the others keep their weights."""
    model = build_model(TINY, 0)
    empty_heads(model, head_sizes(model).flatten().max().item())  # leaves one of two
    given = lesson("tour", 2, torch.Generator().manual_seed(0))
    before, kept = logits(model, given), int(head_sizes(model).detach().argmax())
    silent, grown = grow(model, 4, 1, spread=0.0), grow(model, 4, 1)
    assert torch.equal(logits(silent, given), before) and torch.equal(logits(model, given), before)
    sizes = head_sizes(grown).detach()[0]
    assert len(sizes) == 4 and sizes[kept] == head_sizes(model)[0, kept] and sizes.min() > 1
    assert not torch.allclose(logits(grown, given), before, atol=1e-3)


def test_a_stage_can_grow_the_model(tmp_path):
    schedule = Schedule(steps=1, learning_rate=1e-3, batch=2)
    stages = (Stage(schedule, {"vqa": 1.0}), Stage(schedule, {"vqa": 1.0}, heads=4))
    model = teach(tmp_path, 0, size=TINY, stages=stages)
    assert model.config.text_config.num_attention_heads == 4
    assert head_sizes(ms.load(tmp_path).module).shape == (1, 4)


def test_a_scattering_tower_shows_every_panel_in_the_area_of_each():
    """Each panel's area holds one token of every panel, and the places counted in rows of the grid agree with those of the lessons."""
    for panel, patches in enumerate(SCATTERED.tolist()):
        assert [int(SHOWN[p]) for p in patches] == [panel] * 6
        assert sorted(p // 6 // 3 * 3 + p % 6 // 2 for p in patches) == list(range(6))
    tower = build_model(Size(tower_layers=1), 0).model.vision_tower
    curve = fit(tower, scattering_loss(tower, 0, batch=4), Schedule(steps=40, learning_rate=2e-3, log_every=1), seed=0)
    assert curve[-1]["error"] < curve[0]["error"] / 2


def test_a_stage_can_end_before_its_schedule(tmp_path):
    """And goes on with the next from the weights of its last step, at the rates of the schedule that it did not finish."""
    rates = []
    schedule = Schedule(steps=20, learning_rate=1e-3, warmup=0, batch=2)
    stages = (Stage(schedule, {"vqa": 1.0}, until=3), Stage(Schedule(steps=1, learning_rate=1e-3, batch=2), {"vqa": 1.0}))
    teach(
        tmp_path,
        0,
        progress=lambda step, steps, figures: rates.append((steps, figures["learning_rate"])),
        size=TINY,
        stages=stages,
    )
    assert [steps for steps, _ in rates] == [20, 20, 1]  # the step that ends a run is not reported
    assert [rate for _, rate in rates[:2]] == [schedule.rate(0), schedule.rate(1)]


def tower_of(model):
    return {name: weight for name, weight in model.state_dict().items() if "vision_tower" in name}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("sighted", [False, True])
def test_sight_and_freezing_are_two_choices(tmp_path, frozen, sighted):
    """A tower is trained alone or not, and then along or not; what was trained alone is the same where it is frozen and where not."""
    schedule = Schedule(steps=2, learning_rate=1e-3, batch=2)
    stages = (Stage(schedule, {"this": 1.0}), Stage(schedule, {"vqa": 1.0}, sparsity=1e-3, heads=4))
    teach(tmp_path, 3, size=TINY, stages=stages, sight=schedule if sighted else None, frozen=frozen)
    model, fresh = ms.load(tmp_path), build_model(TINY, 3)
    assert model.processor is not None
    alone = fresh.model.vision_tower
    if sighted:
        fit(alone, scattering_loss(alone, 3), schedule, seed=903)
    assert same(tower_of(fresh), tower_of(model.module)) == frozen
    assert same(tower_of(fresh), tower_of(build_model(TINY, 3))) != sighted
    before, after = fresh.state_dict(), model.module.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before if "multi_modal_projector" in name)
