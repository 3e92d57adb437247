"""How a run behaves: snapshots, early stops, counts, exceptions, nesting, threads, and nothing left behind."""

import pytest
import torch
from torch import nn

import mainspring as ms
from engine.plain import Plain
from engine.tiny import LAYERS, hooks_on, ids, left_padded, noise
from mainspring import at
from mainspring.errors import EditError, NotRecorded

TOKENS = torch.tensor(ids(6, 6))
NAMES = [
    "resid_pre", "resid_mid", "resid_post", "attn.q", "attn.k", "attn.v", "attn.q_proj", "attn.z", "attn.head_out", "attn.scores",
    "attn.pattern", "attn.out", "mlp.pre", "mlp.post", "mlp.out",
]  # fmt: skip
READS = ["embed", *(f"layers.1.{name}" for name in NAMES), "final_norm", "logits"]


# ---- what comes back -----------------------------------------------------------------------------------------------------------


def test_a_trace_is_a_snapshot(model):
    """Writing into a trace changes neither the model, nor another trace, nor another value of the same trace."""
    first, second = model.run(TOKENS, read=READS), model.run(TOKENS, read=READS)
    kept = {site: value.clone() for site, value in second.read.items()}
    for site in list(first.read):
        first[site].fill_(123.0)
        for other, value in second.read.items():
            assert torch.equal(value, kept[other])
        rest = [s for s in first.read if list(first.read).index(s) > list(first.read).index(site)]
        assert all(torch.equal(first[s], kept[s]) for s in rest), f"{site} shares memory with another value"
    third = model.run(TOKENS, read=READS)
    assert all(torch.equal(third[s], v) for s, v in kept.items())


def test_tokens_of_a_trace_are_a_snapshot(model):
    tokens = TOKENS.clone()
    trace = model.run(tokens)
    tokens.fill_(1)
    assert torch.equal(trace.tokens, TOKENS)


class InPlace(nn.Module):
    """A model that writes into its own tensors, as some do to save memory."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        a = self.first(x)
        a.mul_(2.0)  # changes what `first` returned
        b = self.second(a)
        b += a  # and what `second` returned
        return self.act(b) + a


def in_place_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = InPlace()
    a = at.module["first"].output
    b = at.module["second"].output
    return module, ms.wrap(module), a, b


@pytest.mark.parametrize("how", ["plain", "gradients", "differentiable", "original"])
@pytest.mark.parametrize("frozen", [False, True])
def test_values_survive_a_model_that_writes_in_place(how, frozen):
    module, model, a, b = in_place_model()
    module.requires_grad_(not frozen)
    x = noise(3, 4)
    with torch.no_grad():
        first = module.first(x)
        second = module.second(2 * first)
        expected = torch.relu(second + 2 * first) + 2 * first
    options = {
        "plain": {}, "original": {"original": True}, "differentiable": {"differentiable": True},
        "gradients": {"grad_of": lambda t: t.output.sum()},
    }[how]  # fmt: skip
    trace = model.run(x, read=[a, b], **options)
    assert torch.equal(trace[a], first)
    assert torch.equal(trace[b], second)
    assert torch.equal(trace.output, expected)
    if how == "gradients":
        on = (second + 2 * first > 0).float()
        torch.testing.assert_close(trace.grad[b], on)
        torch.testing.assert_close(trace.grad[a], 2 * (on + 1 + on @ module.second.weight.detach()))


def test_an_edited_constant_survives_a_model_that_writes_in_place():
    _, model, a, b = in_place_model()
    x, held = noise(3, 4), noise(3, 4, seed=1)
    kept = held.clone()
    trace = model.run(x, edits=[a.set(held), b.set(held)], read=[a, b])
    assert torch.equal(held, kept)
    assert torch.equal(trace[a], kept)
    assert torch.equal(trace[b], kept)
    assert torch.equal(trace.output, torch.relu(kept + 2 * kept) + 2 * kept)
    again = model.run(x, edits=b.patch(trace), read=b)
    assert torch.equal(trace[b], kept)
    assert torch.equal(again[b], kept)
    model.run(x, edits=b.apply(lambda v: held))
    assert torch.equal(held, kept)
    row = noise(4, seed=2)
    mean = model.run(x, edits=b.set(row))  # one row for all: the model may still write into what flows on
    doubled = 2 * model.run(x, read=a)[a]
    torch.testing.assert_close(mean.output, torch.relu(row + doubled) + doubled)


def test_original_keeps_the_value_before_the_edits(model):
    site = at.layers[1].resid_mid
    plain = model.run(TOKENS, read=site)[site]
    edits = [site.scale(2.0), site.add(1.0)]
    before = model.run(TOKENS, read=[site, at.logits], edits=edits, original=True)
    after = model.run(TOKENS, read=[site, at.logits], edits=edits)
    assert torch.equal(before[site], plain)
    torch.testing.assert_close(after[site], plain * 2 + 1)
    assert torch.equal(before.logits, after.logits)


def test_a_read_narrows_as_the_whole_does(model):
    rows = ids(6, 4)
    z = at.layers[1].attn.z
    whole = model.run(rows, read=z)
    narrow = model.run(rows, read=[z(head=2, pos=-1), z(row=0, pos=slice(1, 3)), at.layers[1].resid_post(dim=3)])
    assert torch.equal(narrow[z(head=2, pos=-1)], torch.stack([whole[z][0, 5, 2], whole[z][1, 3, 2]]))
    assert torch.equal(narrow[z(row=0, pos=slice(1, 3))], whole[z][0, 1:3])
    assert torch.equal(whole[z(head=2, pos=-1)], narrow[z(head=2, pos=-1)]), "a trace narrows what it kept whole"
    assert narrow[at.layers[1].resid_post(dim=3)].shape == (2, 6)


def test_a_wildcard_stacks_layers(model):
    trace = model.run(TOKENS, read=at.layers[:].resid_post)
    stacked = trace[at.layers[:].resid_post]
    assert stacked.shape == (LAYERS, 2, 6, 24)
    assert torch.equal(stacked[1], trace["layers.1.resid_post"])
    assert torch.equal(trace["layers.-1.resid_post"], stacked[-1])
    assert torch.equal(trace[at.layers[1:].resid_post(pos=-1)], stacked[1:, :, -1])
    with pytest.raises(NotRecorded, match="kept no value"):
        trace["layers.0.resid_pre"]


def test_one_row_of_a_trace_is_that_row_alone(model):
    rows = ids(6, 3)
    for inputs in (rows, left_padded(rows)):
        trace = model.run(inputs, read=["layers.1.resid_post", "layers.1.attn.pattern"], until="end").row(1)
        alone = model.run([rows[1]], read=["layers.1.resid_post", "layers.1.attn.pattern"], until="end")
        for site in alone.read:
            torch.testing.assert_close(trace[site], alone[site], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(trace.logits, alone.logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(trace.tokens, torch.tensor([rows[1]]))


def test_batched_equals_alone(model):
    rows = ids(7, 3, 5)
    reads = ["layers.0.attn.q", "layers.2.attn.z", "layers.1.mlp.post", "layers.2.resid_post", "layers.1.attn.head_out"]
    alone = [model.run([row], read=reads, until="end") for row in rows]
    for inputs in (rows, left_padded(rows)):
        trace = model.run(inputs, read=reads, until="end")
        for r, row in enumerate(rows):
            columns = slice(trace.rows.offsets[r], trace.rows.offsets[r] + len(row))
            for site in reads:
                torch.testing.assert_close(trace[site][r, columns], alone[r][site][0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(trace.logits[r, columns], alone[r].logits[0], atol=1e-4, rtol=1e-4)


# ---- where it stops ------------------------------------------------------------------------------------------------------------


class Calls:
    """Which layers really ran, and whether the head did."""

    def __init__(self, model):
        stack = model.module.model if model.family == "llama" else model.module.transformer
        layers = stack.layers if model.family == "llama" else stack.h
        self.seen, self.handles = [], []
        for name, module in [*((str(i), layer) for i, layer in enumerate(layers)), ("head", model.module.lm_head)]:
            self.handles.append(module.register_forward_hook(lambda m, a, o, name=name: self.seen.append(name)))

    def __enter__(self):
        return self.seen

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(
    ("options", "calls", "after"),
    [
        ({"read": "embed"}, ["0"], "layers.0"),
        ({"read": at.layers[0].attn.z}, ["0"], "layers.0"),
        ({"read": at.layers[1].resid_post}, ["0", "1"], "layers.1"),
        ({"read": [at.layers[1].resid_mid, at.layers[0].mlp.out]}, ["0", "1"], "layers.1"),
        ({"read": at.layers[-1].resid_pre}, ["0", "1", "2", "head"], None),
        ({"read": at.layers[1].resid_post, "until": "end"}, ["0", "1", "2", "head"], None),
        ({"read": at.layers[0].resid_post, "until": at.layers[1].resid_post}, ["0", "1"], "layers.1"),
        ({"until": "layers.0.mlp.out"}, ["0"], "layers.0"),
        ({}, ["0", "1", "2", "head"], None),
        ({"read": "logits"}, ["0", "1", "2", "head"], None),
        ({"read": at.layers[0].resid_post, "edits": at.layers[1].mlp.out.scale(2.0)}, ["0", "1", "2", "head"], None),
        ({"read": at.layers[1].resid_post, "edits": at.layers[0].mlp.out.scale(2.0)}, ["0", "1"], "layers.1"),
        ({"read": at.layers[0].resid_post, "grad_of": lambda t: t.logits.sum()}, ["0", "1", "2", "head"], None),
    ],
)
def test_a_run_stops_as_soon_as_nothing_more_is_needed(model, options, calls, after):
    hooks = Calls(model)
    with hooks as seen:
        trace = model.run(TOKENS, **options)
    assert seen == calls
    assert trace.stopped_after == after
    if after is None:
        assert trace.logits.shape == (2, 6, 40)
    else:
        with pytest.raises(NotRecorded, match="stopped after"):
            trace.logits  # noqa: B018


def test_stopping_early_changes_no_value(model):
    site = at.layers[1].resid_post
    assert torch.equal(model.run(TOKENS, read=site)[site], model.run(TOKENS, read=site, until="end")[site])


def test_a_stop_before_a_read_is_refused(model):
    with pytest.raises(NotRecorded, match="before everything"):
        model.run(TOKENS, read=at.layers[1].resid_post, until=at.layers[0].resid_post)


def test_only_named_modules_are_hooked(model):
    seen = {}

    def look(v):
        seen["hooks"] = hooks_on(model.module)
        return v

    model.run(TOKENS, read=at.layers[0].mlp.out, edits=at.layers[1].resid_post.apply(look), until="end")
    names = {"llama": ["model.layers.0.mlp", "model.layers.1"], "gpt2": ["transformer.h.0.mlp", "transformer.h.1"]}[model.family]
    assert seen["hooks"] == names


# ---- counts --------------------------------------------------------------------------------------------------------------------


def test_fired_counts_places(model):
    one, many, twice = at.layers[1].mlp.out(pos=0).scale(2.0), at.layers[:].attn.z(head=1).ablate(), at.embed.add(0.1)
    trace = model.run(TOKENS, edits=[one, many, twice])
    assert trace.fired == {one: 1, many: LAYERS, twice: 1}


def test_the_same_edit_twice_acts_twice_and_counts_twice(model):
    site = at.layers[1].mlp.out
    trace = model.run(TOKENS, edits=[site.scale(2.0), site.scale(2.0)], read=site)
    torch.testing.assert_close(trace[site], 4 * model.run(TOKENS, read=site)[site])
    assert trace.fired == {site.scale(2.0): 2}


# ---- a no-op changes no bit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", [s for s in READS if s not in ("layers.1.attn.scores", "layers.1.attn.pattern")])
def test_a_no_op_edit_changes_no_bit(model, site):
    plain = model.run(TOKENS).logits
    value = model.run(TOKENS, read=site, until="end")
    for edit in (at[site].scale(1.0), at[site].apply(lambda v: v), at[site].set(value[site]), at[site].patch(value)):
        assert torch.equal(model.run(TOKENS, edits=edit).logits, plain)


def test_a_no_op_on_attention_weights_stays_within_rounding(model):
    """These make the layer write its softmax out, so they equal the fused kernel up to rounding only."""
    plain = model.run(TOKENS).logits
    for site in (at.layers[1].attn.scores, at.layers[1].attn.pattern):
        torch.testing.assert_close(model.run(TOKENS, edits=site.scale(1.0)).logits, plain, atol=2e-5, rtol=1e-4)
        untouched = model.run(TOKENS, read=site, until="end").logits
        assert torch.equal(model.run(TOKENS, edits=site.scale(1.0)).logits, untouched)


# ---- the bare module -----------------------------------------------------------------------------------------------------------


def test_an_untouched_run_equals_the_bare_module(model):
    with torch.no_grad():
        assert torch.equal(model.run(TOKENS).logits, model.module(TOKENS).logits)
        oracle = Plain(model.module, model.family).run(TOKENS)
    torch.testing.assert_close(model.run(TOKENS).logits, oracle, atol=1e-4, rtol=1e-4)


def test_a_foreign_hook_stays(model):
    calls = []
    handle = model.module.lm_head.register_forward_hook(lambda m, a, o: calls.append(1))
    model.run(TOKENS, read=at.logits, edits=at.final_norm.scale(1.1))
    assert calls == [1]
    assert handle.id in model.module.lm_head._forward_hooks
    handle.remove()


def test_any_module_of_any_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    model, x = ms.wrap(net), noise(5, 4)
    hidden = at.module["1"].output
    trace = model.run(x, read=[hidden, at.module["2"].input], edits=hidden(dim=2).set(0.5))
    with torch.no_grad():
        value = net[1](net[0](x))
        value[:, 2] = 0.5
        assert torch.equal(trace[hidden], value)
        assert torch.equal(trace[at.module["2"].input], value)
        assert torch.equal(trace.output, net[2](value))
    with pytest.raises(EditError):
        model.run(x, read=hidden, grad_of=lambda t: t.output)
