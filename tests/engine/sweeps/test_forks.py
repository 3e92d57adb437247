"""Forked sweeps give the numbers of the naive loop, on every family, or say why they loop."""

import pytest
import torch

import mainspring as ms
from conformance.zoo import CASES
from mainspring import at
from mainspring.engine.sweeps.grid import grid
from mainspring.errors import EditNeverFired, InputError
from mainspring.measure.metrics import logit_difference

LOOPED = {"bloom", "bloom-post-residual"}
DECODERS = [name for name, case in CASES.items() if case.kind == "decoder"]
OTHERS = [name for name, case in CASES.items() if case.kind in ("state-space", "hybrid", "vision-language")]


def close(found, expected):
    scale = expected.abs().max()
    assert float((found - expected).abs().max()) <= 1e-5 * float(scale), (found - expected).abs().max()


def naive(model, inputs, edit_sets, measure):
    """The loop that a sweep stands for."""
    return torch.stack([measure(model.run(inputs, edits=edits, until="end").logits) for edits in edit_sets])


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_forks_and_equals_the_loop(name):
    model = ms.wrap(CASES[name].build())
    tokens = CASES[name].inputs()["input_ids"]
    length = tokens.shape[1]
    cells = grid(at.layers[:].resid_post, lambda s: s.scale(1.7), layers=model.n_layers, pos=[0, length // 2, length - 1])
    swept = model.sweep(tokens, cells, logit_difference(5, 6))
    expected = naive(model, tokens, cells, lambda logits: logits[:, -1, 5] - logits[:, -1, 6])
    close(swept.values, expected)
    assert float(expected.std()) > 1e-4, "the edits change nothing, so the test would see nothing"
    if name in LOOPED:
        assert swept.plan.plain
        assert "growing batch" in swept.plan.plain[0][0]
    else:
        assert not swept.plan.plain, swept.plan
        assert swept.plan.planned < 0.7 * swept.plan.naive


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_loop_and_say_why(name):
    case = CASES[name]
    model = ms.wrap(case.build())
    inputs = case.inputs()
    last = inputs["input_ids"].shape[1] - 1
    cells = grid(at.layers[:].resid_post, lambda s: s.scale(1.7), layers=model.n_layers, pos=[0, last])
    swept = model.sweep(inputs, cells, logit_difference(5, 6))
    close(swept.values, naive(model, inputs, cells, lambda logits: logits[:, -1, 5] - logits[:, -1, 6]))
    assert sum(count for _, count in swept.plan.plain) == len(cells)
    assert all(reason for reason, _ in swept.plan.plain)


SITES = [
    ("attn.z", {"head": 4}),
    ("attn.z", {"head": 4, "pos": [2, -1]}),
    ("attn.q", {"head": 2, "pos": [1]}),
    ("attn.k", {"pos": [1, 4]}),
    ("attn.v", {"pos": [1, 4]}),
    ("attn.scores", {"head": 2, "query": [3, -1]}),
    ("attn.pattern", {"head": 4}),
    ("attn.head_out", {"head": 2}),
    ("attn.out", {"pos": [0, 5]}),
    ("mlp.post", {"neuron": 3, "pos": [2]}),
    ("mlp.out", {"pos": [2, -1]}),
    ("resid_pre", {"pos": [0, 3]}),
    ("resid_mid", {"pos": [1, -2]}),
]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "mistral"])
@pytest.mark.parametrize(("site", "axes"), SITES, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_every_kind_of_place(name, site, axes):
    model = ms.wrap(CASES[name].build())
    tokens = CASES[name].inputs()["input_ids"]
    where = at[f"layers.*.{site}"]
    cells = grid(where, lambda s: s.scale(-0.5), layers=model.n_layers, **axes)
    swept = model.sweep(tokens, cells, logit_difference(5, 6))
    assert not swept.plan.plain
    close(swept.values, naive(model, tokens, cells, lambda logits: logits[:, -1, 5] - logits[:, -1, 6]))


@pytest.fixture
def llama():
    return ms.wrap(CASES["llama"].build())


def test_patching_from_a_trace_and_several_edits_in_a_cell(llama):
    clean, other = torch.randint(3, 60, (2, 1, 9), generator=torch.Generator().manual_seed(0))
    trace = llama.run(clean, read=[at.layers[:].resid_post, at.layers[:].attn.z])
    sets = [[at.layers[i].attn.z(head=h).patch(trace), at.layers[-1].mlp.out(pos=-1).scale(0.3)] for i in (0, 1) for h in (0, 3)]
    sets += [at.layers[0].resid_post(pos=p).patch(trace, pos=1) for p in range(9)]
    sets += [[at.layers[1].attn.z.ablate("mean", of=trace), at.embed(pos=3).add(1.0)]]
    swept = llama.sweep(other, sets, logit_difference(5, 6))
    assert not swept.plan.plain
    close(swept.values, naive(llama, other, sets, lambda logits: logits[:, -1, 5] - logits[:, -1, 6]))


def test_rows_of_different_length_with_answers_of_their_own(llama):
    rows = [[5, 6, 7, 8, 9], [10, 11, 12], [20, 21, 22, 23, 24, 25, 26]]
    answers = torch.tensor([3, 4, 5])
    trace = llama.run([[9, 8, 7, 6, 5], [12, 11, 10], [26, 25, 24, 23, 22, 21, 20]], read=at.layers[:].resid_pre)
    cells = grid(at.layers[:].resid_pre, lambda s: s.patch(trace), layers=llama.n_layers, pos=[0, 2, -1])
    swept = llama.sweep(rows, cells, logit_difference(answers, 6))
    expected = torch.stack(
        [
            torch.stack([t.logits[0, -1, a] - t.logits[0, -1, 6] for t, a in zip(map(run.row, range(3)), answers, strict=True)])
            for run in (llama.run(rows, edits=edits, until="end") for edits in cells)
        ]
    )
    close(swept.values, expected)
    assert swept.grid.shape == (llama.n_layers, 3, 3)
    unedited = llama.run(rows, until="end")
    assert torch.allclose(swept.base[1], unedited.row(1).logits[0, -1, 4] - unedited.row(1).logits[0, -1, 6], atol=1e-5)


def test_a_metric_inside_the_model_sees_the_edits_of_its_own_site(llama):
    tokens = torch.arange(5, 14)[None]
    cells = grid(at.layers[:].resid_post, lambda s: s.scale(2.0), layers=llama.n_layers, pos=9)
    site = at.layers[1].resid_post(pos=[4, 8])
    swept = llama.sweep(tokens, cells, site)
    expected = torch.stack([llama.run(tokens, edits=e, read=site, until="end")[site] for e in cells])
    close(swept.values, expected)
    pattern = at.layers[2].attn.pattern(head=1)
    swept = llama.sweep(tokens, cells, pattern)
    close(swept.values, torch.stack([llama.run(tokens, edits=e, read=pattern, until="end")[pattern] for e in cells]))


def test_bare_functions_see_one_row_at_a_time(llama):
    tokens = torch.arange(5, 14)[None]
    sets = [at.layers[i].resid_pre(pos=2).scale(2.0) for i in range(llama.n_layers)]
    swept = llama.sweep(tokens, sets, lambda t: t.logits[0, 3:].logsumexp(-1).sum())
    close(swept.values[:, 0], naive(llama, tokens, sets, lambda logits: logits[0, 3:].logsumexp(-1).sum()))
    two = llama.sweep(tokens.repeat(2, 1), sets, lambda t: t.logits[:, -1, 5])
    assert "bare function" in two.plan.plain[0][0]
    close(two.values, naive(llama, tokens.repeat(2, 1), sets, lambda logits: logits[:, -1, 5]))


def test_edits_that_look_across_rows_loop(llama):
    rows = torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1))
    sets = [
        at.layers[0].resid_post.ablate("resample"),
        at.layers[1].resid_post.patch(row=[1, 2, 0]),
        at.layers[0].mlp.out(row=1).scale(0),
    ]
    swept = llama.sweep(rows, sets, logit_difference(5, 6))
    assert sum(n for _, n in swept.plan.plain) == 9
    close(swept.values, naive(llama, rows, sets, lambda logits: logits[:, -1, 5] - logits[:, -1, 6]))


def test_memory_limits_rows_and_changes_no_number(llama):
    tokens = torch.arange(5, 14)[None]
    cells = grid(at.layers[:].attn.z, lambda s: s.ablate(), layers=llama.n_layers, head=4)
    whole, small = (llama.sweep(tokens, cells, logit_difference(5, 6), memory=m) for m in (1.0, 1e-5))
    assert small.plan.forwards > whole.plan.forwards
    close(small.values, whole.values)


def test_an_interrupted_sweep_goes_on_where_it_stopped(llama, tmp_path):
    tokens, file = torch.arange(5, 14)[None], tmp_path / "sweep.safetensors"
    cells = grid(at.layers[:].resid_post, lambda s: s.scale(2.0), layers=llama.n_layers, pos=9)
    metric, seen = logit_difference(5, 6), []

    def stop(done, total):
        seen.append(done)
        if done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llama.sweep(tokens, cells, metric, resume=file, progress=stop, memory=1e-4)
    calls = []
    swept = llama.sweep(tokens, cells, metric, resume=file, progress=lambda done, total: calls.append((done, total)), memory=1e-4)
    assert calls[0][0] >= seen[-1] > 0
    assert calls[-1] == (len(cells), len(cells))
    close(swept.values, llama.sweep(tokens, cells, metric).values)
    with pytest.raises(InputError, match="another sweep"):
        llama.sweep(tokens + 1, cells, metric, resume=file)
    with torch.no_grad():
        llama.module.model.layers[-1].mlp.down_proj.weight[0, 0] += 1.0
    with pytest.raises(InputError, match="another sweep"):
        llama.sweep(tokens, cells, metric, resume=file)


def test_the_plan_says_what_it_saves(llama):
    tokens = torch.arange(5, 21)[None]
    cells = grid(at.layers[:].resid_post, lambda s: s.scale(2.0), layers=llama.n_layers, pos=16)
    plan = llama.sweep(tokens, cells, logit_difference(5, 6)).plan
    assert plan.naive == len(cells) * 16 * llama.n_layers
    assert plan.planned < plan.naive / 2
    assert "token-layers" in str(plan)


def test_bad_sweeps(llama):
    tokens = torch.arange(5, 14)[None]
    with pytest.raises(InputError, match="at least one"):
        llama.sweep(tokens, [], logit_difference(5, 6))
    with pytest.raises(InputError, match="empty"):
        llama.sweep(tokens, [[]], logit_difference(5, 6))
    with pytest.raises(InputError, match="layers="):
        grid(at.layers[:].resid_post, lambda s: s.scale(1.0))
    with pytest.raises(EditNeverFired):
        llama.sweep(tokens, [at.layers[0].resid_pre(pos=slice(4, 4)).scale(2.0)], logit_difference(5, 6))


def test_a_sweep_leaves_nothing_behind(llama):
    tokens = torch.arange(5, 14)[None]
    before = {name: p.clone() for name, p in llama.module.named_parameters()}

    def broken(v):
        raise RuntimeError("in the middle")

    sets = [at.layers[0].attn.pattern.scale(0.5), at.layers[1].attn.z.apply(broken)]
    with pytest.raises(RuntimeError, match="in the middle"):
        llama.sweep(tokens, sets, logit_difference(5, 6))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in llama.module.modules())
    assert all(torch.equal(p, before[name]) for name, p in llama.module.named_parameters())
    assert not llama.config._attn_implementation.startswith("mainspring")
