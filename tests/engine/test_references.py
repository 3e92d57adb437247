"""Edits that take their value from elsewhere: means, other rows, traces of other texts; padding is invisible to all of them."""

import functools

import pytest
import torch

from engine.compare import agree as agree_on
from engine.compare import close, touch
from engine.plain import Plain
from engine.tiny import LAYERS, ids, left_padded
from mainspring import at

TOKENS = torch.tensor(ids(7, 7))
agree = functools.partial(agree_on, inputs=TOKENS)


# ---- ablations -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", ["right", "left"])
@pytest.mark.parametrize("over", [("batch", "pos"), ("batch",), ("pos",)])
def test_mean_ablation_does_not_see_padding(model, over, pad):
    site, rows = "layers.1.mlp.out", ids(6, 3, 5)
    inputs = rows if pad == "right" else left_padded(rows)
    oracle, alone = Plain(model.module, model.family), []
    for row in rows:
        oracle.run([row])
        alone.append(oracle.values[site][0])

    def mean_of(r):
        if over == ("pos",):
            return alone[r].mean(0).expand_as(alone[r])
        if over == ("batch",):
            return torch.stack([torch.stack([a[p] for a in alone if len(a) > p]).mean(0) for p in range(len(alone[r]))])
        return torch.cat(alone).mean(0).expand_as(alone[r])

    for edit in (at[site].ablate("mean", over=over), at[site].ablate("mean", over=over, of=model.run(inputs, read=site))):
        trace = model.run(inputs, edits=edit)
        for r, row in enumerate(rows):
            start = trace.rows.offsets[r]
            expected = Plain(model.module, model.family).run([row], {site: lambda v, r=r: mean_of(r)[None]})
            close(trace.logits[r, start : start + len(row)], expected[0])


def test_mean_ablation_of_another_batch(model):
    site, reference = "layers.1.attn.z", ids(5, 2, seed=3)
    trace = model.run(reference, read=site)
    oracle, values = Plain(model.module, model.family), []
    for row in reference:
        oracle.run([row])
        values.append(oracle.values[site][0])
    mean = torch.cat(values).mean(0)
    agree(model, at[site].ablate("mean", of=trace), {site: lambda v: mean.expand(v.shape)})
    agree(
        model,
        at[site](head=1, pos=2).ablate("mean", of=trace),
        {site: lambda v: touch(v, (slice(None), 2, 1), lambda x: mean[1].expand(x.shape))},
    )


@pytest.mark.parametrize("pad", ["right", "left"])
def test_resampling_gives_each_row_another_rows_tokens(model, pad):
    site, rows = at.layers[1].resid_post, ids(6, 3, 5, 4)
    inputs = rows if pad == "right" else left_padded(rows)
    base = model.run(inputs, read=site)
    seen = set()
    for seed in range(6):
        edit = site.ablate("resample", seed=seed)
        trace = model.run(inputs, edits=edit, read=site)
        assert torch.equal(trace[site], model.run(inputs, edits=edit, read=site)[site]), "a seed gives the same draw again"
        donors = []
        for r, row in enumerate(rows):
            a = trace.rows.offsets[r]
            got, matches = trace[site][r, a : a + len(row)], []
            for s, other in enumerate(rows):
                b, n = base.rows.offsets[s], min(len(row), len(other))
                if torch.equal(got[:n], base[site][s, b : b + n]):
                    matches.append(s)
            assert len(matches) == 1 and matches[0] != r, "each row takes the tokens of exactly one other row"
            donors += matches
        assert sorted(donors) == list(range(4)), "every row is used once"
        seen.add(tuple(donors))
    assert len(seen) > 1, "the seed matters"


@pytest.mark.parametrize("pad", ["right", "left"])
def test_resampling_from_a_trace_matches_tokens_not_columns(model, pad):
    site, rows, reference = at.layers[1].resid_post, ids(4, 6), ids(6, 3, 5, seed=8)
    given = model.run(reference if pad == "left" else left_padded(reference), read=site)
    trace = model.run(
        rows if pad == "right" else left_padded(rows), edits=site(pos=[0, 2]).ablate("resample", of=given, seed=1), read=site
    )
    for r in range(2):
        a = trace.rows.offsets[r]
        got = trace[site][r, [a, a + 2]]
        donors = [s for s in range(3) if torch.equal(got, given[site][s, [given.rows.offsets[s], given.rows.offsets[s] + 2]])]
        assert len(donors) == 1


# ---- patching ------------------------------------------------------------------------------------------------------------------


def test_patching_from_a_trace(model):
    """Same site, another site, position and row of the source; the source is counted in its own text."""
    other = torch.tensor(ids(7, 7, seed=5))
    sources = [
        f"layers.{i}.{n}" for i in range(LAYERS) for n in ("resid_post", "resid_pre", "attn.z", "attn.pattern", "attn.head_out")
    ]
    clean = model.run(other, read=sources, until="end")
    oracle = Plain(model.module, model.family)
    oracle.run(other)
    v = oracle.values
    resid, z, pattern = v["layers.1.resid_post"], v["layers.1.attn.z"], v["layers.1.attn.pattern"]
    post, all_ = at.layers[1].resid_post, slice(None)
    for edit, site, function in [
        (post.patch(clean), "layers.1.resid_post", lambda x: resid),
        (post(pos=2).patch(clean), "layers.1.resid_post", lambda x: touch(x, (all_, 2), lambda _: resid[:, 2])),
        (post(pos=-1).patch(clean, pos=3), "layers.1.resid_post", lambda x: touch(x, (all_, -1), lambda _: resid[:, 3])),
        (
            post(pos=[1, 2]).patch(clean, pos=[5, 0]),
            "layers.1.resid_post",
            lambda x: touch(x, (all_, [1, 2]), lambda _: resid[:, [5, 0]]),
        ),
        (post.patch(clean, row=1), "layers.1.resid_post", lambda x: resid[1:].expand(x.shape)),
        (
            post(pos=4).patch(clean, row=0),
            "layers.1.resid_post",
            lambda x: touch(x, (all_, 4), lambda _: resid[0, 4].expand(2, -1)),
        ),
        (post(row=1).patch(clean), "layers.1.resid_post", lambda x: touch(x, 1, lambda _: resid[1])),
        (post(row=1, pos=3).patch(clean, row=0), "layers.1.resid_post", lambda x: touch(x, (1, 3), lambda _: resid[0, 3])),
        (post(dim=[2, 3]).patch(clean), "layers.1.resid_post", lambda x: touch(x, (..., [2, 3]), lambda _: resid[..., [2, 3]])),
        (
            at.layers[2].resid_pre.patch(clean, site=at.layers[0].resid_post),
            "layers.2.resid_pre",
            lambda x: v["layers.0.resid_post"],
        ),
        (
            at.layers[2].attn.z(head=0, pos=3).patch(clean, site=at.layers[1].attn.z(head=2, pos=5)),
            "layers.2.attn.z",
            lambda x: touch(x, (all_, 3, 0), lambda _: z[:, 5, 2]),
        ),
        (
            at.layers[1].attn.z(head=[1, 3]).patch(clean),
            "layers.1.attn.z",
            lambda x: touch(x, (all_, all_, [1, 3]), lambda _: z[:, :, [1, 3]]),
        ),
        (
            at.layers[1].attn.pattern(head=2).patch(clean),
            "layers.1.attn.pattern",
            lambda x: touch(x, (all_, 2), lambda _: pattern[:, 2]),
        ),
        (
            at.layers[0].attn.head_out(head=1).patch(clean),
            "layers.0.attn.head_out",
            lambda x: touch(x, (all_, all_, 1), lambda _: v["layers.0.attn.head_out"][:, :, 1]),
        ),
        (post.patch(resid), "layers.1.resid_post", lambda x: resid),
    ]:
        agree(model, edit, {site: function})


def test_patching_every_layer_from_its_own_counterpart(model):
    other = torch.tensor(ids(7, 7, seed=5))
    clean = model.run(other, read=at.layers[:].mlp.out)
    oracle = Plain(model.module, model.family)
    oracle.run(other)
    kept = dict(oracle.values)
    functions = {
        f"layers.{i}.mlp.out": lambda v, i=i: touch(v, (slice(None), 2), lambda _: kept[f"layers.{i}.mlp.out"][:, 2])
        for i in range(LAYERS)
    }
    agree(model, at.layers[:].mlp.out(pos=2).patch(clean), functions)


def test_patching_the_last_token_between_texts_of_different_length(model):
    short, long, site = ids(4, 6), ids(7, 5, seed=2), "layers.1.resid_post"
    clean = model.run(long, read=site)
    trace = model.run(short, edits=at[site](pos=-1).patch(clean))
    oracle = Plain(model.module, model.family)
    for r in range(2):
        oracle.run([long[r]])
        last = oracle.values[site][:, -1].clone()
        expected = oracle.run([short[r]], {site: lambda v, last=last: touch(v, (slice(None), -1), lambda _: last)})
        close(trace.logits[r, : len(short[r])], expected[0])


def test_patching_whole_rows_across_padding_sides(model):
    rows, other, site = ids(4, 6), ids(4, 6, seed=2), "layers.1.resid_post"
    clean = model.run(left_padded(other), read=site)
    trace = model.run(rows, edits=at[site].patch(clean))
    for r in range(2):
        expected = Plain(model.module, model.family).run([other[r]])  # the whole stream is replaced: these are the other's logits
        close(trace.logits[r, : len(rows[r])], expected[0])


def test_patching_one_row_of_a_padded_trace(model):
    """row= picks a text of the source; it is taken without its padding."""
    rows, other, site = ids(4), ids(6, 4, seed=2), "layers.1.resid_post"
    for inputs in (other, left_padded(other)):
        clean = model.run(inputs, read=site)
        trace = model.run(rows, edits=at[site].patch(clean, row=1))
        close(trace.logits, Plain(model.module, model.family).run([other[1]]))


def test_patching_within_a_run(model):
    rows, site = ids(6, 4), "layers.1.resid_mid"
    trace = model.run(rows, edits=at[site](row=0, pos=-1).patch(row=1, pos=-1), read=site)
    plain = model.run(rows, read=site)
    close(trace[site][0, 5], plain[site][1, 3], tol=1e-6)
    close(trace[site][0, :5], plain[site][0, :5], tol=1e-6)
    close(trace[site][1, :4], plain[site][1, :4], tol=1e-6)
    agree(
        model, at[site](pos=[1, 2]).patch(pos=[3, 0]), {site: lambda v: touch(v, (slice(None), [1, 2]), lambda _: v[:, [3, 0]])}
    )
