"""Every operation at every kind of site, against plain torch hooks."""

import copy
import functools

import pytest
import torch

from engine.compare import agree as agree_on
from engine.compare import close, touch
from engine.plain import Plain
from engine.tiny import FF, HEAD_DIM, KV, LAYERS, VOCAB, WIDTH, ids, left_padded, noise
from mainspring import at
from mainspring.selectors import span

TOKENS = torch.tensor(ids(7, 7))
LAYER_SITES = [
    "resid_pre", "resid_mid", "resid_post", "attn.q", "attn.k", "attn.v", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.z",
    "attn.head_out", "attn.out", "attn.add", "mlp.pre", "mlp.post", "mlp.out", "mlp.add",
]  # fmt: skip
SITES = ["embed", *(f"layers.1.{name}" for name in LAYER_SITES), "final_norm"]
WEIGHTS = ["layers.1.attn.scores", "layers.1.attn.pattern"]


agree = functools.partial(agree_on, inputs=TOKENS)


# ---- reads ---------------------------------------------------------------------------------------------------------------------


def test_every_site_reads_what_plain_hooks_see(model):
    oracle = Plain(model.module, model.family)
    oracle.run(TOKENS)
    checked = 0
    for site, value in oracle.values.items():
        close(model.run(TOKENS, read=site, until="end")[site], value, tol=1e-5)
        checked += 1
    assert checked == 3 + LAYERS * (len(LAYER_SITES) + 2 + (model.family == "llama"))


# ---- every operation at every site ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
def test_operations(model, site):
    width = Plain(model.module, model.family)
    width.run(TOKENS)
    shape = width.values[site].shape
    tail, direction = noise(*shape[2:], seed=1), noise(shape[-1], seed=2)
    pair, full = noise(2, shape[-1], seed=3), noise(*shape, seed=4)
    basis = torch.linalg.qr(pair.T)[0]
    where, everything = at[site], slice(None)
    cases = [
        (where.set(full), lambda v: full.clone()),
        (where.set(0.3), lambda v: torch.full_like(v, 0.3)),
        (where.add(tail), lambda v: v + tail),
        (where.add(-0.7), lambda v: v - 0.7),
        (where.scale(1.7), lambda v: 1.7 * v),
        (where.scale(direction), lambda v: v * direction),
        (where.ablate(), lambda v: 0 * v),
        (where.ablate("mean"), lambda v: v.mean((0, 1), keepdim=True).expand(v.shape)),
        (where.ablate("mean", over="batch"), lambda v: v.mean(0, keepdim=True).expand(v.shape)),
        (where.ablate("mean", over="pos"), lambda v: v.mean(1, keepdim=True).expand(v.shape)),
        (where.ablate("resample"), lambda v: v.flip(0)),  # of two rows, each can only draw the other
        (where.project_out(direction), lambda v: v - (v @ direction)[..., None] * direction / direction.square().sum()),
        (where.project_out(pair), lambda v: v - v @ basis @ basis.T),
        (where.clamp(-0.2, 0.4), lambda v: torch.minimum(torch.maximum(v, torch.tensor(-0.2)), torch.tensor(0.4))),
        (where.clamp(low=0.1), lambda v: torch.where(v < 0.1, torch.tensor(0.1), v)),
        (where.apply(lambda v: torch.tanh(v) * 2), lambda v: 2 * torch.tanh(v)),
        (where.patch(row=0), lambda v: v[:1].expand(v.shape)),
        (where(pos=3).patch(pos=1), lambda v: touch(v, (slice(None), 3), lambda _: v[:, 1])),
        (where(pos=-1).add(tail), lambda v: touch(v, (slice(None), -1), lambda x: x + tail)),
        (where(pos=[1, 4], row=1).scale(3.0), lambda v: touch(v, (1, [1, 4]), lambda x: 3 * x)),
        (where(pos=slice(2, 5)).ablate("mean"), lambda v: touch(v, (everything, slice(2, 5)), lambda x: x * 0 + v.mean((0, 1)))),
        (where(dim=2).add(1.5), lambda v: touch(v, (..., 2), lambda x: x + 1.5)) if "mlp.p" not in site else
        (where(neuron=[2, 5]).add(1.5), lambda v: touch(v, (..., [2, 5]), lambda x: x + 1.5)),
    ]  # fmt: skip
    for edit, function in cases:
        # adding one number to every entry of what enters a LayerNorm, or to every key, cancels: the values at the site still tell
        agree(model, edit, {site: function}, moved=False)


@pytest.mark.parametrize("site", SITES)
def test_an_edit_reaches_the_logits(model, site):
    shape = Plain(model.module, model.family)
    shape.run(TOKENS)
    vector = noise(*shape.values[site].shape[2:], seed=9)
    agree(model, at[site](pos=3).add(vector), {site: lambda v: touch(v, (slice(None), 3), lambda x: x + vector)})


@pytest.mark.parametrize("site", WEIGHTS)
def test_operations_on_attention_weights(model, site):
    where, block = at[site], torch.rand(7, 7, generator=torch.Generator().manual_seed(5)) < 0.3
    fill = float("-inf") if site.endswith("scores") else 0.0
    key = slice(None), slice(None), slice(None), 2
    for edit, function in [
        (where.mask(block), lambda v: v.masked_fill(block, fill)),
        (where(key=2).mask(), lambda v: touch(v, key, lambda x: torch.full_like(x, fill))),
        (where(head=1, query=-1, key=[0, 2]).mask(), lambda v: touch(v, (slice(None), 1, -1, [0, 2]), lambda x: x * 0 + fill)),
        (where(head=2).mask(), lambda v: touch(v, (slice(None), 2), lambda x: torch.full_like(x, fill))),
        (where(head=[0, 3]).scale(0.5), lambda v: touch(v, (slice(None), [0, 3]), lambda x: 0.5 * x)),
        (where(row=1, query=slice(3, 6)).scale(0.4), lambda v: touch(v, (1, slice(None), slice(3, 6)), lambda x: x * 0.4)),
        (where(query=5, key=3).add(2.0), lambda v: touch(v, (slice(None), slice(None), 5, 3), lambda x: x + 2.0)),
        (where(head=0).patch(row=1), lambda v: touch(v, (slice(None), 0), lambda x: v[1:, 0].expand(x.shape))),
        (where.apply(lambda v: v.roll(1, dims=1)), lambda v: v.roll(1, dims=1)),
    ]:
        agree(model, edit, {site: function})


def test_a_query_whose_every_key_is_blocked_attends_to_nothing(model):
    trace = model.run(
        TOKENS, edits=at.layers[1].attn.scores(head=1, query=4).mask(), read=[at.layers[1].attn.pattern, at.layers[1].attn.z]
    )
    assert torch.equal(trace[at.layers[1].attn.pattern(head=1, query=4)], torch.zeros(2, 7))
    assert torch.equal(trace[at.layers[1].attn.z(head=1, pos=4)], torch.zeros(2, HEAD_DIM[model.family]))


# ---- several edits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["layers.1.resid_mid", "layers.1.attn.head_out", "layers.1.attn.q", "layers.0.mlp.post"])
def test_edits_at_one_site_apply_in_the_order_given(model, site):
    where = at[site]
    agree(model, [where.add(1.0), where.scale(3.0)], {site: lambda v: (v + 1.0) * 3.0})
    agree(model, [where.scale(3.0), where.add(1.0)], {site: lambda v: v * 3.0 + 1.0})
    agree(
        model,
        where.scale(2.0) + where(pos=2).ablate() + where.add(0.5),
        {site: lambda v: touch(2 * v, (slice(None), 2), lambda x: 0 * x) + 0.5},
    )


def test_edits_at_several_sites_compose(model):
    bump, shift = noise(WIDTH, seed=6), noise(HEAD_DIM[model.family], seed=7)
    edits = [
        at.layers[2].mlp.post(neuron=3).set(1.0),
        at.embed(pos=0).add(bump),
        at.layers[0].attn.pattern(head=1).scale(0.5),
        at.layers[0].attn.v(kv_head=1).add(shift),
        at.layers[1].resid_mid(pos=-1).project_out(bump),
        at.layers[0].attn.z(head=2).add(shift),
        at.layers[0].attn.head_out(head=2).scale(-1.0),
        at.layers[0].attn.out.add(bump),
    ]
    unit = bump / bump.norm()
    agree(
        model,
        edits,
        {
            "layers.2.mlp.post": lambda v: touch(v, (..., 3), torch.ones_like),
            "embed": lambda v: touch(v, (slice(None), 0), lambda x: x + bump),
            "layers.0.attn.pattern": lambda v: touch(v, (slice(None), 1), lambda x: 0.5 * x),
            "layers.0.attn.v": lambda v: touch(v, (slice(None), slice(None), 1), lambda x: x + shift),
            "layers.1.resid_mid": lambda v: touch(v, (slice(None), -1), lambda x: x - (x @ unit)[:, None] * unit),
            "layers.0.attn.z": lambda v: touch(v, (slice(None), slice(None), 2), lambda x: x + shift),
            "layers.0.attn.head_out": lambda v: touch(v, (slice(None), slice(None), 2), lambda x: -x),
            "layers.0.attn.out": lambda v: v + bump,
        },
    )


def test_two_parts_of_one_fused_projection(gpt2):
    agree(
        gpt2,
        [at.layers[1].attn.q_proj.scale(2.0), at.layers[1].attn.v_proj.add(0.3), at.layers[1].attn.k_proj(kv_head=1).ablate()],
        {
            "layers.1.attn.q_proj": lambda v: 2.0 * v,
            "layers.1.attn.v_proj": lambda v: v + 0.3,
            "layers.1.attn.k_proj": lambda v: touch(v, (slice(None), slice(None), 1), lambda x: 0 * x),
        },
    )


def test_a_wildcard_edits_every_layer_and_counts_each(model):
    edit = at.layers[:].mlp.out.scale(0.5)
    trace = agree(model, edit, {f"layers.{i}.mlp.out": lambda v: 0.5 * v for i in range(LAYERS)})
    assert trace.fired == {edit: LAYERS}
    some = at.layers[[0, 2]].attn.z(head=1).ablate()
    trace = agree(
        model, some, {f"layers.{i}.attn.z": lambda v: touch(v, (slice(None), slice(None), 1), lambda x: 0 * x) for i in (0, 2)}
    )
    assert trace.fired == {some: 2}


# ---- selectors -----------------------------------------------------------------------------------------------------------------


def test_selectors_of_heads_neurons_and_dims(model):
    kv, everything = KV[model.family] - 1, slice(None)
    for site, select, index in [
        ("layers.1.attn.k", {"kv_head": kv}, (everything, everything, kv)),
        ("layers.1.attn.v", {"kv_head": [0, kv], "pos": 1}, (everything, 1, [0, kv])),
        ("layers.1.attn.q", {"head": slice(1, 3)}, (everything, everything, slice(1, 3))),
        ("layers.1.attn.z", {"head": -1, "row": 1}, (1, everything, -1)),
        ("layers.1.attn.head_out", {"head": [3, 0], "pos": 4, "dim": 5}, (everything, 4, [3, 0], 5)),
        ("layers.1.mlp.post", {"neuron": slice(0, FF // 2)}, (everything, everything, slice(0, FF // 2))),
        ("layers.1.mlp.pre", {"neuron": FF - 1, "pos": [6, 2]}, (everything, [6, 2], FF - 1)),
        ("layers.1.resid_post", {"dim": [0, 7], "pos": 3}, (everything, 3, [0, 7])),
        ("embed", {"row": [1], "pos": slice(None, None, 2)}, (slice(1, 2), slice(None, None, 2))),
    ]:
        agree(model, at[site](**select).scale(-2.5), {site: lambda v, index=index: touch(v, index, lambda x: -2.5 * x)})


def test_positions_count_real_tokens_whatever_the_padding(model):
    """Each row of a padded batch equals the oracle on that row alone."""
    rows, sites = ids(7, 4, 5), ["layers.1.resid_mid", "layers.1.attn.head_out", "layers.0.attn.v", "layers.2.mlp.post"]
    spans = {"s": [(1, 3), (0, 2), (3, 5)]}
    for site in sites:
        for index, columns in [
            (-1, lambda n, r: [n - 1]),
            (2, lambda n, r: [2]),
            ([0, -2], lambda n, r: [0, n - 2]),
            (slice(1, None), lambda n, r: list(range(1, n))),
            (slice(-3, -1), lambda n, r: [n - 3, n - 2]),
            (torch.tensor([6, 0, 3]), lambda n, r: [[6], [0], [3]][r]),
            (span("s"), lambda n, r: list(range(*spans["s"][r]))),
            (span("s").last, lambda n, r: [spans["s"][r][1] - 1]),
            (span("s")[0], lambda n, r: [spans["s"][r][0]]),
        ]:
            for inputs in (rows, left_padded(rows)):
                trace = model.run(inputs, edits=at[site](pos=index).scale(-2.0), spans=spans)
                layout = trace.rows
                for r, row in enumerate(rows):
                    chosen = columns(len(row), r)
                    alone = Plain(model.module, model.family).run(
                        [row], {site: lambda v, chosen=chosen: touch(v, (slice(None), chosen), lambda x: -2.0 * x)}
                    )
                    start = layout.offsets[r]
                    close(trace.logits[r, start : start + len(row)], alone[0])


def test_attention_positions_with_padding(model):
    rows = ids(6, 3)
    for inputs in (rows, left_padded(rows)):
        trace = model.run(inputs, edits=at.layers[1].attn.scores(head=2, query=-1, key=1).mask())
        for r, row in enumerate(rows):
            alone = Plain(model.module, model.family).run(
                [row], {"layers.1.attn.scores": lambda v: touch(v, (slice(None), 2, -1, 1), lambda x: x - float("inf"))}
            )
            start = trace.rows.offsets[r]
            close(trace.logits[r, start : start + len(row)], alone[0])


# ---- what an edit holds is left alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["embed", "layers.1.resid_mid", "layers.1.mlp.out", "layers.1.attn.z", "layers.1.attn.pattern"])
def test_constants_are_not_written_to(model, site):
    value = model.run(TOKENS, read=site, until="end")[site]
    held, kept = value.clone() * 0.9, copy.deepcopy(value)
    source = model.run(TOKENS, read=site, until="end")
    model.run(TOKENS, edits=[at[site].set(held), at[site].scale(2.0)])
    model.run(TOKENS, edits=[at[site].patch(source), at[site].add(1.0)])
    assert torch.equal(held, kept * 0.9)
    assert torch.equal(source[site], kept)


def test_apply_may_write_into_what_it_is_given(model):
    def overwrite(v):
        v[:, 2] = 0
        return v

    agree(
        model, at.layers[1].mlp.out.apply(overwrite), {"layers.1.mlp.out": lambda v: touch(v, (slice(None), 2), lambda x: 0 * x)}
    )


def test_logits_can_be_edited(model):
    trace = model.run(TOKENS, edits=at.logits(vocab=3).set(-5.0), read=at.logits)
    plain = model.run(TOKENS).logits
    assert bool((trace.logits[..., 3] == -5.0).all())
    assert trace.logits.shape == (2, 7, VOCAB)
    assert torch.equal(trace.output.logits, trace.logits)
    keep = [i for i in range(VOCAB) if i != 3]
    assert torch.equal(trace.logits[..., keep], plain[..., keep])
