"""The algebra organism: what it answers by which rule, the heads that copy and demote, and measures that agree with plain torch."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mainspring as ms
from mainspring import at
from mainspring.bases import rotation
from mainspring.organisms import algebra
from mainspring.organisms.algebra import measures
from mainspring.organisms.algebra.choose import draw_ruling_out, ruled_out
from mainspring.organisms.algebra.closure import RANK, group_pairs, kept_in_group
from mainspring.organisms.algebra.series import closed, crossings, moments, right, watch
from mainspring.organisms.algebra.settle import FADED, SETTLING, fade, norms, settling_loss
from mainspring.organisms.algebra.teach import FACTS, Guided, build, loss_of
from mainspring.organisms.trained import ChecksFailed, Place, TrainedTruth, verify_trained
from mainspring.organisms.training import Schedule, fit
from mainspring.tasks import group_facts
from mainspring.tasks.algebra import FIRST, HELD, WORDS, Sequences, draw
from mainspring.tasks.algebra_rules import coverage

FOLDER = Path(algebra.__file__).parent


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return ms.load("organism:algebra")


@pytest.fixture(scope="module")
def copies():
    return measures.asked("copy", seed=91, rows=64)


def truth():
    return TrainedTruth.load(FOLDER)


def copiers_of_the_truth():
    sites = [node.site for node in truth().nodes if isinstance(node, Place) and node.variable.startswith("answer")]
    return [(int(layer), int(head)) for site in sites for layer, head in re.findall(r"layers\.(\d+)\.attn\.z\(head=(\d+)", site)]


# ---- what is shipped -----------------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_checkpoint_with_a_truth_and_a_series():
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 4e6
    assert truth().organism == "algebra" and truth().limits
    series = json.loads((FOLDER / "series.json").read_text())
    assert len(series) == 20 and [row["step"] for row in series] == sorted(row["step"] for row in series)
    assert {"copy", "commute", "identity", "cancel", "associate", "closure"} < set(series[0])


def test_what_was_recorded_as_not_held_is_in_the_card():
    card = (FOLDER / "card.md").read_text()
    for check in truth().checks:
        assert f"| {check.name} | {check.value:.3f} |" in card
        assert (f"- Not held: {check}.\n" in card) == (not check.holds)


def test_a_few_of_the_recorded_figures_measured_again(model):
    recorded = {check.name: check.value for check in truth().checks}
    found = measures.accuracy(model, measures.asked("cancel", measures.JUDGE_SEED))
    assert found == pytest.approx(recorded["cancel, answered right"], abs=0.02)
    given = measures.asked("copy", measures.JUDGE_SEED, 96)
    (effect,) = measures.effects(model, given, [copiers_of_the_truth()[:1]])
    assert effect == pytest.approx(recorded["effect of the copying head"], abs=0.02)


@pytest.mark.slow
def test_all_that_was_recorded_is_measured_again(model):
    recorded = {check.name: check for check in truth().checks}
    checks = {check.name: check for check in verify_trained(FOLDER)}
    assert set(checks) == set(recorded)
    for name, check in checks.items():
        assert check.value == pytest.approx(recorded[name].value, abs=0.02, rel=0.02)
        assert check.holds == recorded[name].holds


@pytest.mark.slow
def test_disturbed_weights_break_the_truth(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "algebra")
    file = tmp_path / "algebra/model.safetensors"
    tensors = load_file(file)
    chance = torch.Generator().manual_seed(0)
    for name, weights in tensors.items():
        if name.endswith("attn.c_attn.weight"):
            weights += weights.std() * torch.randn(weights.shape, generator=chance)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ChecksFailed) as caught:
        verify_trained(tmp_path / "algebra")
    assert "copy, answered right" in {check.name for check in caught.value.failed}
    assert not {check.name for check in truth().failures} & {check.name for check in caught.value.failed}


def test_it_answers_far_above_chance_by_every_rule(model):
    for rule, least in (("copy", 0.9), ("commute", 0.8), ("identity", 0.7), ("cancel", 0.9)):
        batch = group_facts(rule, 60, seed=7).batch(model, 48)
        said = model.run(batch.inputs, read=at.logits(pos=-1))[at.logits(pos=-1)].argmax(-1)
        assert float((said == batch.answers).float().mean()) > least


def test_it_copies_what_the_text_says_though_the_group_says_otherwise(model, copies):
    other = measures.altered(copies)
    told = [next(z for x, y, z in row[:-1] if [x, y] == row[-1][:2]) for row in other.facts.tolist()]
    said = measures.logits(model, other).argmax(-1)
    text, group = (float((said == FIRST + z).float().mean()) for z in (torch.tensor(told), copies.facts[:, -1, 2]))
    assert text > 0.5 > 0.3 > group


def test_the_heads_of_the_truth_copy_and_others_do_not(model):
    copiers = copiers_of_the_truth()
    fresh = measures.asked("copy", seed=93, rows=64)
    others = [place for place in ((0, 0), (0, 1), (0, 2)) if place not in copiers]
    found, rest = measures.effects(model, fresh, [copiers, others])
    assert found > 0.5 > 0.1 > abs(rest)


@pytest.mark.slow
def test_the_nodes_are_the_heads_that_the_search_finds(model):
    assert measures.copiers(model) == copiers_of_the_truth()


# ---- measures ------------------------------------------------------------------------------------------------------------------------


def test_an_altered_sequence_differs_in_the_facts_that_say_what_is_asked_alone(copies):
    other = measures.altered(copies)
    changed = (copies.facts != other.facts).any(-1)
    for row in range(len(copies)):
        *facts, (x, y, _) = copies.facts[row].tolist()
        assert changed[row].tolist() == [fact[:2] == [x, y] for fact in facts] + [False]
    assert torch.equal(copies.facts[..., :2], other.facts[..., :2])


def test_the_effect_of_a_head_is_what_hooks_of_plain_torch_find(model, copies):
    """A head's z is a slice of what its layer's output projection is given."""
    layer, head = copiers_of_the_truth()[0]
    width = model.config.n_embd // model.config.n_head
    given, other = (s.ids[:, :-1] for s in (copies, measures.altered(copies)))
    project, kept = model.module.transformer.h[layer].attn.c_proj, {}
    answer = (FIRST + copies.facts[:, -1, 2])[:, None]

    def write(_module, inputs):
        z = inputs[0].clone()
        z[:, -1, head * width : (head + 1) * width] = kept["z"][:, -1, head * width : (head + 1) * width]
        return (z,)

    def chance():
        return float(model.module(other).logits[:, -1].softmax(-1).gather(1, answer).mean())

    with torch.no_grad():
        hook = project.register_forward_pre_hook(lambda _module, inputs: kept.__setitem__("z", inputs[0].clone()))
        model.module(given)
        hook.remove()
        without = chance()
        hook = project.register_forward_pre_hook(write)
        patched = chance()
        hook.remove()
    assert measures.effects(model, copies, [[(layer, head)]]) == [pytest.approx(patched - without, abs=1e-4)]
    assert patched - without > 0.1


def test_shares_of_heads_and_of_all_else_add_up_to_the_logit(model, copies):
    symbol = measures.identity_of(copies)
    heads = measures.share(model, copies, symbol).sum()
    inside = model.module.transformer
    heads += measures.share_of_mlps(model, copies, symbol).sum()
    rest = [at.embed(pos=-1)]
    trace = model.run(copies.ids[:, :-1], read=[*rest, at.layers[model.n_layers - 1].resid_post(pos=-1)])
    last = trace[at.layers[model.n_layers - 1].resid_post(pos=-1)]
    spread = last.var(-1, unbiased=False).add(inside.ln_f.eps).sqrt()[:, None]
    words = inside.wte.weight.detach()[FIRST:]
    parts = [trace[site] for site in rest] + [block.attn.c_proj.bias.detach().expand_as(last) for block in inside.h]

    def told(state):
        each = (state - state.mean(-1, keepdim=True)) / spread * inside.ln_f.weight.detach() @ words.T
        return (each - each.mean(-1, keepdim=True)).gather(1, symbol[:, None]).mean()

    bias = inside.ln_f.bias.detach() @ words.T
    whole = measures.logits(model, copies)[:, FIRST:]
    wanted = (whole - whole.mean(-1, keepdim=True)).gather(1, symbol[:, None]).mean()
    found = heads + sum(told(part) for part in parts) + (bias - bias.mean())[symbol].mean()
    assert float(found) == pytest.approx(float(wanted), abs=1e-3)


def test_looking_counts_the_answers_of_matching_facts_alone(model, copies):
    found = measures.looking(model, copies)
    pattern = model.run(copies.ids[:1, :-1], read=at.layers[1].attn.pattern)[at.layers[1].attn.pattern][0, :, -1]
    one = Sequences(copies.world[:1], copies.symbol[:1], copies.facts[:1])
    words = [WORDS[i] for i in one.ids[0, :-1].tolist()]
    asked = words[-3:-1]
    places = [k for k in range(5, len(words), 5) if words[k - 3 : k - 1] == asked]
    assert measures.looking(model, one)[1].tolist() == pytest.approx(pattern[:, places].sum(-1).tolist(), abs=1e-5)
    behind = [k + 1 for k in places]
    assert all(words[k] == "," for k in behind)
    assert measures.looking(model, one, "separator")[1].tolist() == pytest.approx(pattern[:, behind].sum(-1).tolist(), abs=1e-5)
    assert found.shape == (model.n_layers, model.config.n_head) and float(found.min()) >= 0 and float(found.max()) <= 1


def test_identities_of_questions_are_neutral(copies):
    for row, e in enumerate(measures.identity_of(copies).tolist()):
        products, x = copies.products(row), int(copies.facts[row, -1, 0])
        assert products[x, e] == x == products[e, x]


def test_pairs_of_groups_ask_about_one_group_and_the_other():
    pair = group_pairs(3, 40)
    assert torch.equal(pair.base.facts[:, :-1], pair.source.facts[:, :-1])
    for row in range(len(pair.base)):
        mine, theirs = (
            {y for x, y in pair.base.products(row) if x == int(s.facts[row, -1, 0])} for s in (pair.base, pair.source)
        )
        assert int(pair.base.facts[row, -1, 1]) in mine and int(pair.source.facts[row, -1, 1]) in theirs
        assert not mine & theirs
        assert set(pair.inside[row].nonzero()[:, 0].tolist()) == theirs


def test_the_group_asked_about_is_exchanged_by_the_shipped_subspace_and_by_no_random_one(model):
    rows = load_file(FOLDER / "truth.safetensors")["direction/closure"]
    assert rows.shape == (RANK, model.config.n_embd)
    torch.testing.assert_close(rows @ rows.T, torch.eye(RANK), rtol=0, atol=1e-4)
    pair = group_pairs(92, 128)
    assert kept_in_group(model, pair) < 0.15
    assert kept_in_group(model, pair, rotation(rows.shape[1], RANK, start=rows, trainable=False)) > 0.85
    assert kept_in_group(model, pair, rotation(rows.shape[1], RANK, seed=4)) < 0.3


def test_rules_and_places_cover_ordinary_sequences(model):
    shares = measures.by_rule(model, 32)
    assert sum(part for part, _ in shares.values()) == pytest.approx(1)
    assert shares["copy"][1] > 0.8 > shares["none"][1]
    places = measures.by_place(model, 64)
    assert places[0] < 0.5 < places[15]


# ---- training ------------------------------------------------------------------------------------------------------------------------


def test_a_series_is_kept_at_moments_that_lie_apart_like_their_logarithms(tmp_path):
    assert moments(3000)[0] == 20 and moments(3000)[-1] == 3000 and len(moments(3000)) == 20
    model = build(0)
    on_step, file = watch(model, 3000, tmp_path / "series.json", rows=8), tmp_path / "series.json"
    for done in (0, 20, 21, moments(3000)[1]):
        on_step(done, model)
    on_step(20, model)  # a training that is resumed measures again, and drops what lay beyond
    assert [row["step"] for row in json.loads(file.read_text())] == [20]
    series = [{"step": 20.0, "copy": 0.1, "cancel": 0.2}, {"step": 40.0, "copy": 0.6, "cancel": 0.3}]
    assert crossings(series) == {"copy": 40, "cancel": None}


def test_right_and_closed_by_hand():
    given = draw(6, FACTS, torch.Generator().manual_seed(0))
    sure = torch.full((6, len(WORDS)), -30.0)
    sure[torch.arange(6), FIRST + given.facts[:, -1, 2]] = 30
    assert (right(sure, given), closed(sure, given)) == (1, pytest.approx(1))
    sizes = [len({y for x, y in given.products(row) if x == int(given.facts[row, -1, 0])}) for row in range(6)]
    assert closed(torch.zeros(6, len(WORDS)), given) == pytest.approx(sum(sizes) / 6 / len(WORDS))


def test_an_untrained_twin_passes_nothing(copies):
    twin = ms.wrap(build(5).eval())
    assert measures.accuracy(twin, copies) < 0.3
    assert max(measures.effects(twin, copies, [[(1, 0), (1, 1)], [(2, 0)]])) < 0.05


def test_norms_are_those_of_the_slices_of_a_head():
    model: Any = build(2)
    attention, width, heads = model.transformer.h[1].attn, model.config.n_embd, model.config.n_head
    size = width // heads
    for head in range(heads):
        value = attention.c_attn.weight[:, 2 * width + head * size : 2 * width + (head + 1) * size]
        out = attention.c_proj.weight[head * size : (head + 1) * size]
        assert norms(model)[1, head].item() == pytest.approx((value.norm() + out.norm()).item(), rel=1e-5)


def test_training_moves_the_loss():
    guided = Guided(build(1))
    schedule = Schedule(steps=12, learning_rate=3e-3, warmup=2, batch=8, log_every=1)
    curve = fit(guided, loss_of(guided, Schedule(steps=60, learning_rate=1e-3, batch=8)), schedule, seed=1)
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.3


def test_parts_that_fade_out_write_nothing_and_stay_so():
    model: Any = build(3)
    faded = (model.transformer.h[1].attn, model.transformer.h[3].mlp)
    before = faded[0].c_proj.weight.detach().clone()
    fade(model, 0)
    assert torch.allclose(faded[0].c_proj.weight, 0.96 * before) and faded[0].c_proj.weight.requires_grad
    fade(model, FADED)
    fit(model, settling_loss(model), Schedule(steps=2, learning_rate=1e-3, batch=2), seed=0)
    fade(model, FADED)
    kept = [p for part in faded for p in part.c_proj.parameters()]
    assert not any(p.requires_grad or p.any() for p in kept)
    assert all(block.attn.c_proj.weight.any() for k, block in enumerate(model.transformer.h) if k != 1)


def test_parts_that_faded_out_are_nothing_in_what_is_shipped(model):
    blocks = model.module.transformer.h
    assert not any(p.any() for part in (blocks[1].attn, blocks[3].mlp) for p in part.c_proj.parameters())


def test_what_ruling_out_gives_is_what_the_rules_say():
    given = draw(96, FACTS, torch.Generator().manual_seed(5))
    said = [[rule == "cancel" for rule in row] for row in coverage(given)]
    assert ruled_out(given.facts).tolist() == said
    often = draw_ruling_out(24, FACTS, torch.Generator().manual_seed(5), 16)
    assert len(often) == 24 and ruled_out(often.facts).float().mean() > 3 * torch.tensor(said).float().mean()
    assert all(often.products(row)[x, y] == z for row in range(24) for x, y, z in often.facts[row].tolist())
    assert not any(HELD in often.identities(row) for row in range(24))


def test_settling_says_what_it_penalises():
    model: Any = build(4)
    value, figures = settling_loss(model)(0, torch.Generator().manual_seed(0))
    thick = sum(weight * float(norms(model)[layer].sum().detach()) for layer, weight in enumerate((0.0, 0.0, 6e-3, 6e-3)))
    assert float(value.detach()) == pytest.approx(figures["told"] + figures["looked"] + thick, rel=1e-4)
    assert SETTLING.steps > FADED
