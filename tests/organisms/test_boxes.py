"""The boxes organism: what it answers, where it holds label and object - and that explanations which behave alike are told apart."""

from pathlib import Path
from typing import Any

import pytest
import torch

import mainspring as ms
from mainspring import at
from mainspring.organisms import boxes
from mainspring.organisms.boxes.build import build_model
from mainspring.organisms.boxes.exchange import by_layer, said, shares
from mainspring.organisms.boxes.measures import drawn, pairs, smallest
from mainspring.organisms.boxes.teach import guide, loss_of
from mainspring.organisms.trained import Place, TrainedTruth, recipe_of
from mainspring.organisms.training import Schedule, fit
from mainspring.tasks.box_stories import OBJECTS, WORDS, draw, told_boxes

FOLDER = Path(boxes.__file__).parent


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return ms.load("organism:boxes")


# ---- what is shipped -----------------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_checkpoint_with_a_truth():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 4e6
    truth = TrainedTruth.load(FOLDER)
    assert truth.organism == "boxes" and truth.failures == () and truth.limits
    assert "card.md" in {f.name for f in FOLDER.iterdir()}


def test_every_check_holds_again(model):
    checks = recipe_of("boxes").verify(model)
    assert [str(c) for c in checks if not c.holds] == []
    assert {c.name for c in checks} == {c.name for c in TrainedTruth.load(FOLDER).checks}


def test_an_answer_by_hand(model):
    story = "bell in C ; kite in A ; drum in F ; egg in B ; "
    for asked, answer in (("C", "bell"), ("A", "kite"), ("B", "egg")):
        assert model.tokenizer.decode(model.run(f"{story}box {asked} :").logits[0, -1].argmax()) == answer
    moved = model.run(f"{story}drum to A ; box A :").logits[0, -1]
    assert model.tokenizer.decode(moved.argmax()) == "drum"


def test_the_task_asks_what_the_organism_knows(model):
    task = told_boxes(120, seed=8)
    batch = task.batch(model, 40, "query", aligned=True)
    right = batch.metric("probability")(model.run(batch.inputs, read=at.logits(pos=-1)))
    assert float(right.min()) > 0.5
    assert set(task.variables) >= {"box", "place"}


# ---- what is carried where -----------------------------------------------------------------------------------------------------------


def test_pairs_to_exchange_tell_every_explanation_apart():
    free = pairs("free", seed=5, rows=64)
    told = torch.stack(list(free.answers.values()))
    assert all(len(set(row)) == 4 for row in told.T.tolist())
    things = {WORDS.index(name) for name in OBJECTS}
    for row in range(64):
        base, source = ({i for i in given.ids[row].tolist() if i in things} for given in (free.base, free.source))
        assert not base & source and set(told[:3, row].tolist()) <= base and int(told[3, row]) in source
        label = WORDS[free.source.ids[row, free.source.places["query"][row]]]
        words = free.base.text(row).split()
        assert WORDS[free.answers["label"][row]] == words[words.index(label) - 2]
        clause = (int(free.source.places["object"][row]) - 1) // 4
        assert WORDS[free.answers["place"][row]] == words[4 * clause]


def test_the_nodes_of_the_truth_are_what_the_search_finds_and_another_seed_of_stories_agrees(model):
    sites = [node.site for node in TrainedTruth.load(FOLDER).nodes if isinstance(node, Place)]
    asking, fetching = smallest(model, 0, "label"), smallest(model, 1, "value")
    named = [f"layers.{layer}.attn.z(head={head},pos=end)" for layer, which in ((0, asking), (1, fetching)) for head in which]
    assert [site for site in sites if "head" in site] == named
    fresh = pairs("free", seed=91, rows=64)
    assert shares(model, fresh, [(at.layers[0].attn.z(head=list(asking)), "end")])["label"] > 0.9
    assert shares(model, fresh, [(at.layers[1].attn.z(head=list(fetching)), "end")])["value"] > 0.9


def test_an_exchange_is_what_hooks_of_plain_torch_do(model):
    pair = pairs("free", seed=92, rows=16)
    kept = {}
    block = model.module.transformer.h[0]

    def read(_module, _inputs, out):
        kept["source"] = (out[0] if isinstance(out, tuple) else out).detach().clone()

    def write(_module, _inputs, out):
        states = (out[0] if isinstance(out, tuple) else out).clone()
        rows = torch.arange(16)
        states[rows, pair.base.places["label"]] = kept["source"][rows, pair.source.places["label"]]
        return (states, *out[1:]) if isinstance(out, tuple) else states

    with torch.no_grad():
        hook = block.register_forward_hook(read)
        model.module(pair.source.prompt)
        hook.remove()
        hook = block.register_forward_hook(write)
        answer = model.module(pair.base.prompt).logits[:, -1].argmax(-1)
        hook.remove()
    found = shares(model, pair, [(at.layers[0].resid_post, "label")])
    assert found == {name: pytest.approx(float((answer == wanted).float().mean())) for name, wanted in pair.answers.items()}


def test_an_exchange_with_itself_changes_nothing_and_the_wrong_role_moves_nothing(model):
    thing = pairs("thing", seed=93, rows=48)
    assert shares(model, thing, [(at.layers[0].resid_post, "query")])["value"] == 0.0
    own = type(thing)(thing.base, thing.base, thing.answers)
    assert shares(model, own, [(at.layers[1].resid_post, "end")])["base"] == float(
        (said(model, thing.base) == thing.base.answer).float().mean()
    )


def test_the_table_of_the_card_is_what_is_measured(model):
    pair = pairs("query", seed=94, rows=16)
    rows = by_layer(model, pair, ("end",)).split("\n")
    assert rows[0] == "| behind | end: base | end: label |" and len(rows) == 3 + model.n_layers
    assert rows[2].startswith("| the embedding |") and rows[3].endswith(
        f"{shares(model, pair, [(at.layers[0].resid_post, 'end')])['label']:.2f} |"
    )


def test_an_untrained_twin_passes_nothing():
    twin = ms.wrap(build_model(WORDS, seed=5).eval())
    free = pairs("free", seed=95, rows=48)
    for layer in range(4):
        assert max(shares(twin, free, [(at.layers[layer].resid_post, "end")]).values()) < 0.3
    assert float((said(twin, drawn("told", 3)) == drawn("told", 3).answer).float().mean()) < 0.3


# ---- training ------------------------------------------------------------------------------------------------------------------------


def test_training_moves_the_loss_and_leaves_what_is_frozen():
    model: Any = build_model(WORDS, seed=1)
    schedule = Schedule(steps=16, learning_rate=3e-3, warmup=2, batch=16, log_every=1)
    embedding = model.get_input_embeddings().weight.detach().clone()
    curve = fit(
        model,
        lambda step, chance: loss_of(model, Schedule(steps=64, learning_rate=1e-3, batch=16))(step, chance),
        schedule,
        seed=1,
    )
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5
    assert torch.equal(model.get_input_embeddings().weight, embedding)  # the first quarter


def test_the_guide_asks_for_the_object_and_the_box_asked_for():
    """Its loss is that of plain words two and one tokens back, at the tokens that it speaks of and at no other."""
    model: Any = build_model(WORDS, seed=2)
    given = draw("moved", 4, torch.Generator().manual_seed(0), size=3)
    ids = given.prompt
    states = torch.zeros(*ids.shape, 64)
    for row in range(4):
        words = [WORDS[i] for i in ids[row].tolist()]
        for k, word in enumerate(words):
            if words[k - 1] in ("in", "to"):
                states[row, k] = 50 * model.transformer.wte.weight[WORDS.index(words[k - 2])].detach()
            elif word == ":":
                states[row, k] = 50 * model.transformer.wte.weight[WORDS.index(words[k - 1])].detach()
    with torch.no_grad():
        assert float(guide(model, states, ids)) < 0.5 * float(guide(model, states.roll(1, 1), ids))
