"""The copy organism: what is shipped, its measures against plain torch, and two routes that can be cut one at a time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

import mainspring as ms
from mainspring import at
from mainspring.errors import LoadError
from mainspring.find.induction import induction_heads
from mainspring.organisms import copy as home
from mainspring.organisms.copy.build import Size, build_model
from mainspring.organisms.copy.checks import FIND_SEED, JUDGE_SEED, find, verify
from mainspring.organisms.copy.measures import ablated, accuracy, batches, carried, effects, looking, previous, repeated_mass
from mainspring.organisms.copy.snapshots import snapshot, steps
from mainspring.organisms.copy.teach import COURSE, SIZE, SNAPSHOTS, Pupil, head_sizes, loss_of, meaning
from mainspring.organisms.trained import TrainedTruth, recipe_of
from mainspring.tasks.copying import NONSENSE, WORDS, draw, ids_of

FOLDER = Path(home.__file__).parent
NONSENSE_IDS = ids_of(" ".join(NONSENSE))


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return ms.load("organism:copy")


@pytest.fixture(scope="module")
def plain():
    return GPT2LMHeadModel.from_pretrained(FOLDER, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def found(model):
    return find(model)


# ---- what is shipped -----------------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_checkpoint_with_a_truth(model):
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 8e6
    truth = TrainedTruth.load(FOLDER)
    assert truth.organism == "copy" and truth.failures == ()
    assert recipe_of("copy").name == "copy"
    assert json.loads((FOLDER / "config.json").read_text())["architectures"] == ["GPT2LMHeadModel"]
    assert model.tokenizer("ba be")["input_ids"] == [1, *ids_of("ba be")]


def test_find_and_judge_sequences_differ():
    found, judged = (
        {tuple(row) for kind in COURSE.mixture for given in batches(kind, seed) for row in given.ids.tolist()}
        for seed in (FIND_SEED, JUDGE_SEED)
    )
    shared = found & judged
    assert len(shared) <= 2  # two draws of a topic may be the same by chance


def test_the_truth_names_the_heads_that_are_found_again(found):
    nodes = {(node.layer, node.head, node.variable) for node in TrainedTruth.load(FOLDER).nodes}
    assert nodes == {(layer, head, name) for name, group in found.items() for layer, head in group}


def test_it_answers_as_recorded(model):
    recorded = {check.name: check.value for check in TrainedTruth.load(FOLDER).checks}
    for kind in ("repeat", "reverse", "words"):
        assert accuracy(model, batches(kind, JUDGE_SEED, 16, 1)) == pytest.approx(recorded[f"{kind} accuracy"], abs=0.02)


@pytest.mark.slow
def test_the_truth_holds(model):
    checks = verify(model)
    assert {check.name for check in checks} == {check.name for check in TrainedTruth.load(FOLDER).checks}
    assert [str(check) for check in checks if not check.holds] == []


def test_an_untrained_twin_fails():
    twin = ms.wrap(build_model(WORDS, Size(), 5).eval())
    assert accuracy(twin, batches("repeat", JUDGE_SEED, 8, 2)) < 0.2


# ---- measures ------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_accuracy_and_attention_agree_with_plain_torch(model, plain):
    batch = batches("words", 5, 6, 1)[0]
    out = plain(batch.ids, output_attentions=True)
    right = [
        int(out.logits[r, p - 1].argmax()) == int(batch.ids[r, p])
        for r in range(6)
        for p in range(batch.ids.shape[1])
        if batch.wanted[r, p]
    ]
    assert accuracy(model, [batch]) == pytest.approx(sum(right) / len(right))
    table, before = looking(model, [batch]), previous(model, [batch])
    places = [(r, p, int(batch.source[r, p])) for r in range(6) for p in range(batch.ids.shape[1]) if batch.source[r, p] >= 0]
    for layer in range(model.n_layers):
        for head in range(4):
            pattern = out.attentions[layer][:, head]
            assert table[layer, head] == pytest.approx(
                sum(float(pattern[r, p - 1, s]) for r, p, s in places) / len(places), abs=1e-5
            )
            one_before = [float(pattern[r, p, p - 1]) for r in range(6) for p in range(1, batch.ids.shape[1])]
            assert before[layer, head] == pytest.approx(sum(one_before) / len(one_before), abs=1e-5)


@torch.no_grad()
def test_effects_are_those_of_patching_with_plain_hooks(model, plain):
    batch = batches("repeat", 5, 6, 1)[0]
    places = batch.wanted[0].nonzero()[:, 0] - 1
    own, other = batch.ids[:, places + 1, None], batch.ids.roll(1, 0)[:, places + 1, None]
    target = plain.transformer.h[1].attn.c_proj
    kept = []
    hook = target.register_forward_pre_hook(lambda _m, x: kept.append(x[0].clone()))
    plain(batch.ids.roll(1, 0))
    hook.remove()

    def replace_head(_module, inputs):
        value = inputs[0].clone()
        value[:, places, 64:96] = kept[0][:, places, 64:96]
        return (value,)

    def gap():
        logits = plain(batch.ids).logits[:, places]
        return float((logits.gather(2, other) - logits.gather(2, own)).mean())

    before = gap()
    hook = target.register_forward_pre_hook(replace_head)
    after = gap()
    hook.remove()
    table = effects(model, [batch])
    assert float(table[1, 2]) == pytest.approx(after - before, abs=1e-3)
    assert not table[0].any()


@torch.no_grad()
def test_repeated_mass_counts_what_was_said(model, plain):
    batch = batches("topic", 4, 8, 1)[0]
    probabilities = plain(batch.ids).logits.softmax(-1)
    for once in (True, False):
        want = [
            float(sum(probabilities[r, p - 1, w] for w in set(batch.ids[r, 2:p].tolist())))
            for r in range(8)
            if (len(set(batch.ids[r, 2:].tolist())) == 8) == once
            for p in range(3, 10)
        ]
        assert repeated_mass(model, [batch], once=once) == pytest.approx(sum(want) / len(want), abs=1e-5)


def test_the_size_of_a_head_is_of_what_it_takes_and_writes():
    module = build_model(WORDS, Size(layers=2), 0)
    before = head_sizes(module).detach()
    with torch.no_grad():
        module.transformer.h[1].attn.c_proj.weight[32 * 3 : 32 * 4] = 0
        module.transformer.h[1].attn.c_attn.weight[:, 2 * 128 + 32 * 3 :] = 0
    after = head_sizes(module).detach()
    assert after[1, 3] == pytest.approx(0, abs=1e-3)
    before[1, 3] = after[1, 3]
    assert torch.equal(before, after)


def test_embeddings_are_frozen_at_first_and_only_wanted_tokens_count():
    module, batch = build_model(WORDS, Size(layers=2), 0), draw("words", 2, torch.Generator().manual_seed(3))
    course = replace(
        COURSE,
        mixture={"words": (1.0, 0)},
        lesson=lambda kind, step, generator: batch,
        thawed=20,
        recalled=40,
        parting=((70, 1.0),),
        sparse=60,
    )
    pupil = Pupil(module, COURSE, 0)
    embedding = module.get_input_embeddings().weight
    loss = loss_of(pupil, course)
    out = module(batch.ids, output_hidden_states=True)
    scores, ids = out.logits.log_softmax(-1), batch.ids
    places = [(r, p) for r in range(2) for p in range(ids.shape[1])]
    told = [-scores[r, p - 1, ids[r, p]] for r, p in places if batch.wanted[r, p]]
    first = out.hidden_states[1]
    before = pupil.before(first).unflatten(-1, (2, -1)).log_softmax(-1)
    recalled = [-before[r, p, back, ids[r, p - 1 - back]] for r, p in places if p >= 2 for back in range(2)]
    meant = pupil.meaning(first).log_softmax(-1)
    known = [-meant[r, p, batch.concept[r, p]] for r, p in places if p and batch.concept[r, p] == batch.concept[r, p - 1] >= 0]
    value, figures = loss(0, torch.Generator().manual_seed(0))
    assert not embedding.requires_grad
    spoken = float(torch.stack(told).mean().detach())
    assert figures["words"] == pytest.approx(spoken, abs=1e-4)
    extra = float((torch.stack(recalled).mean() + torch.stack(known).mean()).detach())
    assert float(value.detach()) == pytest.approx(spoken + course.recall * extra, abs=1e-4)
    middle, figures = loss(50, torch.Generator().manual_seed(0))
    assert embedding.requires_grad and "sizes" not in figures
    assert float(middle.detach()) == pytest.approx(spoken, abs=1e-4)
    late, figures = loss(99, torch.Generator().manual_seed(0))
    assert float(late.detach()) > spoken and figures["sizes"] == pytest.approx(float(head_sizes(module).sum().detach()))


def test_layers_without_an_mlp_write_exact_zeros(model):
    trace = model.run(batches("words", 5, 4, 1)[0].ids, read=at.layers[:].mlp.out)
    for layer in range(SIZE.layers):
        assert bool(trace[at.layers[layer].mlp.out].any()) == (layer in SIZE.mlps)


def test_a_meaning_is_asked_for_at_the_end_of_a_word():
    batch = draw("words", 3, torch.Generator().manual_seed(4))
    asked = meaning(batch)
    assert bool((asked[:, 3] == batch.concept[:, 2]).all()) and bool((asked[:, :3] == -1).all())
    assert bool((meaning(draw("topic", 3, torch.Generator().manual_seed(4))) == -1).all())


# ---- mechanism -----------------------------------------------------------------------------------------------------------------------


def test_the_token_head_matches_two_tokens_back_where_the_ordinary_score_does_not_look(model, found):
    (layer, head), *_ = found["token"]
    given = batches("repeat", 6, 16, 2)
    assert looking(model, given, 1)[layer, head] > 0.8 > 0.1 > looking(model, given)[layer, head]
    assert (layer, head) not in {
        tuple(map(int, place)) for place in induction_heads(model, tokens=NONSENSE_IDS, length=14).top(3)
    }


def test_a_second_telling_needs_the_first(model):
    batch = batches("repeat", 9, 16, 1)[0]
    strange = batch.ids.clone()
    first = int(batch.wanted.any(0).nonzero()[0]) - 2
    strange[:, 1:first] = strange.roll(1, 0)[:, 1:first]
    right = []
    for ids in (batch.ids, strange):
        best = model.run(ids, read=at.logits)[at.logits][:, :-1].argmax(-1)
        right.append(float((best == ids[:, 1:])[batch.wanted[:, 1:]].float().mean()))
    assert right[0] > 0.9 and right[1] < 0.4


def test_concepts_are_not_carried_by_no_heads(model):
    shares = carried(model, [], JUDGE_SEED, 32)
    assert shares["source concept, base language"] == shares["source word"] == 0
    assert shares["base word"] > 0.9


def test_the_wrong_heads_do_not_cut_a_route(model, found):
    given = batches("words", 8, 16, 2)
    assert ablated(model, found["token"], given) > ablated(model, found["concept"], given) + 0.3


# ---- along the training --------------------------------------------------------------------------------------------------------------


def test_snapshots_go_through_the_phase_change(model):
    kept = steps()
    assert kept == SNAPSHOTS
    with pytest.raises(LoadError, match=str(kept[0])):
        snapshot(kept[-1] + 1)
    given = batches("repeat", 6, 16, 2)
    right = [accuracy(snapshot(step), given) for step in (kept[0], kept[-1])]
    assert right[0] < 0.3 and right[1] > right[0] + 0.4
