"""The Mamba twin of facts: what its layers lack, where its facts are, how they travel, and what an edit on sites is in weights."""

import copy
from pathlib import Path

import pytest
import torch

import mainspring as ms
from mainspring import at
from mainspring.organisms import facts_mamba
from mainspring.organisms.facts.measures import accuracy, at_role, interchange, pairs, untaught
from mainspring.organisms.facts_mamba import editing
from mainspring.organisms.facts_mamba.build import EARLY, LATE, build_model
from mainspring.organisms.facts_mamba.editing import EDITED, drawn, rewrite
from mainspring.organisms.facts_mamba.measures import apart, columns, knocked_out, retained, shares, told, trace
from mainspring.organisms.facts_mamba.teach import SCHEDULE, Read, loss_of
from mainspring.organisms.trained import TrainedTruth, recipe_of
from mainspring.organisms.training import Schedule, fit
from mainspring.tasks.facts import RELATIONS, prompts

FOLDER = Path(facts_mamba.__file__).parent


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    found = ms.load("organism:facts-mamba")
    found.module.requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def strangers():
    return pairs("stranger", seed=77, rows=8)


# ---- what is shipped -----------------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_checkpoint_with_a_truth_and_a_card():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 8e6
    truth, card = TrainedTruth.load(FOLDER), (FOLDER / "card.md").read_text()
    assert truth.organism == "facts-mamba" and truth.limits
    for check in truth.checks:
        assert f"| {check.name} | {check.value:.3f} |" in card


@pytest.mark.slow
def test_every_check_is_measured_again(model):
    recorded = {check.name: check for check in TrainedTruth.load(FOLDER).checks}
    measured = {check.name: check for check in recipe_of("facts-mamba").verify(model)}
    assert set(measured) == set(recorded)
    assert {name for name, check in measured.items() if not check.holds} == {n for n, c in recorded.items() if not c.holds}


def test_it_says_facts_in_shapes_that_they_were_never_taught_in(model):
    assert accuracy(model, untaught("")[2:3]) > 0.95


def test_early_scans_keep_nothing_and_see_two_tokens(model, strangers):
    ids = strangers[0].base.ids[:2]
    for layer in EARLY:
        assert not bool(retained(model, ids, layer)[0].any())
    changed = ids.clone()
    changed[:, 1] = 40
    sites = [at.layers[layer].resid_post for layer in EARLY]
    before, after = (model.run(given, read=sites) for given in (ids, changed))
    for site in sites:
        differs = (before[site] != after[site]).any(-1).any(0)
        assert bool(differs[1]) and not bool(differs[3:].any())


# ---- where facts are, and how they travel --------------------------------------------------------------------------------------------


def test_facts_are_at_the_last_name_and_then_at_the_end(model, strangers):
    assert interchange(model, strangers, at_role("last", EARLY, "ssm.out"))[0] > 0.85
    assert interchange(model, strangers, at_role("first", EARLY, "ssm.out"))[0] < 0.2
    given = strangers[:1]
    found = shares([trace(model, pair) for pair in given], given)
    assert float(found.sum()) == pytest.approx(1)
    assert float(found[list(EARLY), 1].sum() + found[list(LATE), 3].sum()) > 0.7


def test_nothing_in_front_of_the_subject_has_an_effect(model, strangers):
    pair = strangers[3]
    found = trace(model, pair)
    assert pair.base.first > 1 and float(found[:, : pair.base.first].abs().max()) < 1e-6
    assert list(columns(strangers[2])["between"]) == []


def test_what_is_heard_is_what_hooks_in_plain_torch_exchange(model, strangers):
    pair = strangers[0]
    place, mixers = pair.base.last, [model.module.backbone.layers[layer].mixer for layer in LATE]
    inner, heard, kept = mixers[0].intermediate_size, {}, {}

    def exchange(which):
        def hook(_module, _inputs, out):
            out = out.clone()
            out[:, place, :inner] = heard[which][:, place, :inner]
            return out

        return hook

    def hold(which):
        def hook(_module, inputs):
            (y,) = inputs
            y = y.clone()
            y[:, place] = kept[which][:, place]
            return (y,)

        return hook

    with torch.no_grad():
        hooks = [
            m.in_proj.register_forward_hook(lambda _m, _i, out, k=k: heard.__setitem__(k, out)) for k, m in enumerate(mixers)
        ]
        model.module(pair.source.ids)
        [hook.remove() for hook in hooks]
        hooks = [m.out_proj.register_forward_pre_hook(lambda _m, i, k=k: kept.__setitem__(k, i[0])) for k, m in enumerate(mixers)]
        model.module(pair.base.ids)
        [hook.remove() for hook in hooks]
        hooks = [m.in_proj.register_forward_hook(exchange(k)) for k, m in enumerate(mixers)]
        hooks += [m.out_proj.register_forward_pre_hook(hold(k)) for k, m in enumerate(mixers)]
        said = model.module(pair.base.ids).logits[:, -1].argmax(-1)
        [hook.remove() for hook in hooks]
    assert told(model, [pair], "last", LATE) == pytest.approx(float((said == pair.source.answer).float().mean()))
    assert told(model, [pair], "last", LATE) > 0.8 > 0.2 > told(model, [pair], "first", LATE)
    assert knocked_out(model, [pair], "last", LATE) > 0.3 > abs(knocked_out(model, [pair], "first", LATE))


def test_the_scan_is_the_sum_of_what_it_keeps_of_every_token(model, strangers):
    ids = strangers[1].base.ids[:4]
    for layer in LATE:
        terms, _, _ = retained(model, ids, layer)
        assert not bool(terms[:, 2, 3:].any()) and bool(terms[:, 3, :3].any())
        assert apart(model, ids, layer) < 1e-5


# ---- edits ---------------------------------------------------------------------------------------------------------------------------


def test_an_edit_on_sites_is_an_edit_of_the_output_matrix(model, monkeypatch):
    monkeypatch.setattr(editing, "STEPS", 6)
    shape, *asked = drawn(3, 2)[0]
    made = rewrite(model, (shape, *asked), EDITED, "last", torch.eye(256, dtype=torch.float64))
    subject, relation, _ = asked
    here, there = prompts(shape, "", subject, relation), prompts(1, "today", subject, (relation + 1) % len(RELATIONS))
    own, found = (made.scores(model, batch, torch.arange(2)) for batch in (here, there))
    assert bool((own.argmax(-1) == made.new).all())
    for row in range(2):
        edited = copy.deepcopy(model.module)
        with torch.no_grad():
            edited.backbone.layers[EDITED].mixer.out_proj.weight += torch.outer(made.values[row], made.keys[row])
            said = edited(there.ids[row : row + 1]).logits[0, -1].log_softmax(-1)
        assert torch.allclose(found[row], said, atol=1e-3)


def test_an_untrained_twin_keeps_nothing_anywhere(strangers):
    twin = ms.wrap(build_model(seed=5).eval())
    assert accuracy(twin, untaught("")[:1]) < 0.1
    assert interchange(twin, strangers[:1], at_role("last", EARLY, "ssm.out"))[0] < 0.2
    assert told(twin, strangers[:1], "last", LATE) < 0.2


# ---- training ------------------------------------------------------------------------------------------------------------------------


def test_training_moves_the_loss_and_what_is_left_out_stays_zero():
    model = build_model(seed=1, width=112, state=4)
    read = Read(model)
    embedding = model.get_input_embeddings().weight.detach().clone()
    curve = fit(read, loss_of(read, SCHEDULE), Schedule(steps=12, learning_rate=3e-3, warmup=2, batch=8, log_every=1), seed=1)
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5
    assert torch.equal(model.get_input_embeddings().weight, embedding)  # the first quarter
    for layer, block in enumerate(model.backbone.layers):
        mixer, gate = block.mixer, block.mixer.in_proj.weight[block.mixer.intermediate_size :]
        seen = mixer.conv1d.weight.any(0).any(0).tolist()
        assert bool(mixer.x_proj.weight.any()) == (layer in LATE)
        assert bool(mixer.D.any()) == bool(gate.any()) == (layer in EARLY)
        assert seen == [False, False, layer == 0, True]
