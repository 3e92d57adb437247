"""The belief organism: what it answers, its pointer - neither story's answer is said when it is exchanged - and where its content lies."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mainspring as ms
from mainspring import at
from mainspring.organisms import belief
from mainspring.organisms.belief.measures import CONTENT, along, pairs, pointer_directions
from mainspring.organisms.belief.teach import LAYERS, POINTER, Guided, loss_of
from mainspring.organisms.boxes.build import build_model
from mainspring.organisms.boxes.exchange import Pair, said, shares
from mainspring.organisms.trained import TrainedTruth, recipe_of
from mainspring.organisms.training import Schedule, fit
from mainspring.tasks.belief_stories import UNKNOWN, WORDS, beliefs

FOLDER = Path(belief.__file__).parent


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return ms.load("organism:belief")


def held(model, pair, layer, *roles):
    return shares(model, pair, [(at.layers[layer].resid_post, role) for role in roles])


# ---- what is shipped -----------------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_checkpoint_with_a_truth():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 4e6
    truth = TrainedTruth.load(FOLDER)
    assert truth.organism == "belief" and truth.failures == () and truth.limits
    assert {d["tensor"] for d in truth.directions.values()} == set(load_file(FOLDER / "truth.safetensors"))
    assert "card.md" in {f.name for f in FOLDER.iterdir()}


def test_every_check_holds_again(model):
    checks = recipe_of("belief").verify(model)
    assert [str(c) for c in checks if not c.holds] == []
    assert {c.name for c in checks} == {c.name for c in TrainedTruth.load(FOLDER).checks}


@pytest.mark.parametrize(
    ("sight", "question", "answer"),
    [
        ("", "ann thinks mug", "tea"),
        ("", "ann thinks jar", "unknown"),
        ("ann sees bob ; ", "ann thinks jar", "milk"),
        ("ann misses bob ; ", "ann thinks jar", "unknown"),
        ("bob sees ann ; ", "ann thinks jar", "unknown"),
        ("bob sees ann ; ", "bob thinks mug", "tea"),
    ],
)
def test_an_answer_by_hand(model, sight, question, answer):
    told = f"ann fills mug with tea ; bob fills jar with milk ; {sight}{question} :"
    assert model.tokenizer.decode(model.run(told).logits[0, -1].argmax()) == answer


def test_the_task_asks_what_the_organism_knows(model):
    batch = beliefs(90, seed=8).batch(model, 40, "thinker", aligned=True)
    right = batch.metric("probability")(model.run(batch.inputs, read=at.logits(pos=-1)))
    assert float(right.min()) > 0.5


# ---- the pointer ---------------------------------------------------------------------------------------------------------------------


def test_pairs_to_exchange_tell_pointer_and_content_apart():
    third = pairs("third", seed=5, rows=64)
    told = torch.stack(list(third.answers.values()))
    assert all(len(set(row)) == 3 and UNKNOWN not in row for row in told.T.tolist())
    for row in range(64):
        base, source = (given.text(row).split() for given in (third.base, third.source))
        assert base[16:] == source[16:]  # the question, and who sees whom
        assert base[12:16] == source[12:16]
        assert (base[0], base[2], base[6], base[8]) == (source[6], source[8], source[0], source[2])
        assert WORDS[third.answers["pointer"][row]] in {base[4], base[10]} - {WORDS[third.base.answer[row]]}
        assert not {base[4], base[10]} & {source[4], source[10]}


def test_neither_answer_is_said_when_the_pointer_is_exchanged(model):
    """A network that matches content behaves alike and would say the base's answer, or the source's."""
    third = pairs("third", seed=91, rows=96)
    assert held(model, third, POINTER, "end")["pointer"] > 0.9
    assert held(model, third, POINTER, "end")["value"] == 0.0
    assert held(model, third, LAYERS - 1, "end")["value"] > 0.9
    answer = said(model, third.base)
    assert bool((answer == third.base.answer).all())


def test_an_exchange_of_the_pointer_is_what_hooks_of_plain_torch_do(model):
    third = pairs("third", seed=92, rows=16)
    block, kept = model.module.transformer.h[POINTER], {}

    def states(out):
        return out[0] if isinstance(out, tuple) else out

    def write(_module, _inputs, out):
        changed = states(out).clone()
        changed[:, -1] = kept["source"]
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    with torch.no_grad():
        hook = block.register_forward_hook(lambda _module, _inputs, out: kept.__setitem__("source", states(out)[:, -1].clone()))
        model.module(third.source.prompt)
        hook.remove()
        hook = block.register_forward_hook(write)
        answer = model.module(third.base.prompt).logits[:, -1].argmax(-1)
        hook.remove()
    expected = float((answer == third.answers["pointer"]).float().mean())
    assert held(model, third, POINTER, "end")["pointer"] == pytest.approx(expected) and expected > 0.8


def test_unknown_is_a_value_of_the_pointer(model):
    """From a story in which nobody sees anybody comes `unknown`, not a drink."""
    sight = pairs("sight", seed=93, rows=64)
    back = Pair(sight.source, sight.base, {"unknown": sight.base.answer, "told": sight.source.answer})
    assert set(back.answers["unknown"].tolist()) == {UNKNOWN}
    assert held(model, back, POINTER, "end")["unknown"] > 0.9


def test_the_shipped_directions_are_those_of_the_pointer(model):
    kept = load_file(FOLDER / "truth.safetensors")
    directions = torch.stack([kept["direction/first to second"], kept["direction/first to unknown"]])
    torch.testing.assert_close(directions, pointer_directions(model, POINTER), rtol=1e-3, atol=1e-3)
    third = pairs("third", seed=94, rows=64)
    assert along(model, third, POINTER, directions)["pointer"] > 0.8
    strange = torch.randn(directions.shape, generator=torch.Generator().manual_seed(3))
    assert along(model, third, POINTER, strange)["pointer"] < 0.1


def test_the_order_of_a_clause_lies_with_its_drink_and_a_pair_that_is_the_same_moves_nothing(model):
    clauses = pairs("clauses", seed=95, rows=64)
    assert held(model, clauses, POINTER, *CONTENT, "other drink", "other stop")["order"] > 0.8
    assert held(model, clauses, POINTER, "person", "container")["order"] < 0.1
    same = Pair(clauses.base, clauses.base, clauses.answers)
    assert held(model, same, POINTER, *CONTENT, "other drink", "other stop", "end") == {"base": 1.0, "order": 0.0}


def test_an_untrained_twin_passes_nothing():
    twin = ms.wrap(build_model(WORDS, seed=5, layers=LAYERS).eval())
    third = pairs("third", seed=96, rows=64)
    assert max(held(twin, third, POINTER, "end").values()) < 0.4


# ---- training ------------------------------------------------------------------------------------------------------------------------


def test_training_moves_the_loss():
    guided = Guided(build_model(WORDS, seed=1, layers=LAYERS))
    schedule = Schedule(steps=16, learning_rate=3e-3, warmup=2, batch=16, log_every=1)
    curve = fit(guided, loss_of(guided, Schedule(steps=64, learning_rate=1e-3, batch=16)), schedule, seed=1)
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5
    assert set(curve[0]) >= {"right", "pointer"}
