"""An edited generation equals a loop that computes the whole sequence anew for every token, the same edits in plain hooks."""

import pytest
import torch

import mainspring as ms
from conformance.zoo import CASES
from engine.recompute import Recompute, prompts
from mainspring import at, errors, span

NEW = 6
BLOCKED = torch.full((4,), -torch.inf)
LAST = 12
"""The column of the last prompt token, in every row of the padded batch."""


def vector(width, seed=0, size=4.0):
    return size * torch.randn(width, generator=torch.Generator().manual_seed(seed))


def somewhere(columns, change):
    """A function of [batch, columns, ...] that changes one column (or several) of each row, where the sequence has got so far."""

    def edit(value):
        for row, chosen in enumerate(columns):
            for c in [chosen] if isinstance(chosen, int) else chosen:
                if c < value.shape[1]:
                    value[row, c] = change(value[row, c])
        return value

    return edit


def weights(change):
    """A function of [batch, head, query, key] that changes its entries one by one; the future stays unseen."""

    def edit(value):
        for row in range(value.shape[0]):
            for query in range(value.shape[2]):
                for key in range(query + 1):
                    value[row, :, query, key] = change(value[row, :, query, key], row, query, key)
        return value

    return edit


def checked(family, edits, oracle_edits, spans=None, n=NEW):
    """Both ways to generate; returns ours, after comparing tokens, residuals and logits."""
    batch, _, starts = prompts(family)
    read = [at.layers[:].resid_post, at.logits]
    model, oracle = ms.wrap(CASES[family].build()), Recompute(family)
    found = model.generate(batch, edits=edits, read=read, max_new_tokens=n, spans=spans)
    new = oracle.generate(batch, n, oracle_edits)
    for name, expected in oracle.values.items():
        if name.endswith("resid_post") or name == "logits":
            for row, start in enumerate(starts):
                torch.testing.assert_close(found[name][row, start:], expected[row, start:], rtol=2e-4, atol=2e-4, msg=name)
    assert torch.equal(found.new_tokens, new)
    plain = model.generate(batch, read=at.logits, max_new_tokens=n)
    assert not torch.allclose(plain.logits[:, LAST:], found.logits[:, LAST:], atol=1e-3), "the edit changes nothing"
    return found


POSITIONS = {
    "in the prompt": ({"pos": 2}, lambda s: [x + 2 for x in s]),
    "first": ({"pos": 0}, lambda s: s),
    "end of the prompt": ({"pos": -1}, lambda s: [LAST] * 3),
    "from the end": ({"pos": -3}, lambda s: [LAST - 2] * 3),
    "generated in some rows": ({"pos": 9}, lambda s: [x + 9 for x in s]),
    "several": ({"pos": [1, 14]}, lambda s: [[x + 1, x + 14] for x in s]),
    "from one on": ({"pos": slice(2, None)}, lambda s: [range(x + 2, 40) for x in s]),
    "the prompt's last three": ({"pos": slice(-3, None)}, lambda s: [range(LAST - 2, 40) for x in s]),
    "a stretch of the prompt": ({"pos": slice(1, 3)}, lambda s: [range(x + 1, x + 3) for x in s]),
    "one for each row": ({"pos": torch.tensor([3, 15, 0])}, lambda s: [s[0] + 3, s[1] + 15, s[2]]),
    "first step": ({"step": 0}, lambda s: [LAST] * 3),
    "third step": ({"step": 2}, lambda s: [LAST + 2] * 3),
    "two steps": ({"step": [1, 3]}, lambda s: [[LAST + 1, LAST + 3]] * 3),
    "steps from one on": ({"step": slice(2, None)}, lambda s: [range(LAST + 2, 40)] * 3),
    "one row": ({"row": 1, "pos": 1}, lambda s: [[], s[1] + 1, []]),
    "everywhere": ({}, lambda s: [range(40)] * 3),
}


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_residual_at_a_position(family, where):
    select, columns = POSITIONS[where]
    starts = prompts(family)[2]
    checked(
        family,
        at.layers[1].resid_post(**select).add(vector(48)),
        {"layers.1.resid_post": somewhere(columns(starts), lambda v: v + vector(48))},
    )


@pytest.mark.parametrize("family", ["mistral", "gemma2", "mamba", "qwen2-vl", "llava", "t5"])
def test_other_families_steered_everywhere_and_at_a_step(family):
    steering = vector(CASES[family].facts["d_model"], 1)
    model_edits = at.layers[0].resid_post.add(steering) + at.layers[1].resid_post(step=1).scale(-2.0)
    batch, _, _ = prompts(family)
    first = 0 if family == "t5" else batch["input_ids"].shape[1] - 1
    oracle_edits = {
        "layers.0.resid_post": lambda v: v + steering,
        "layers.1.resid_post": somewhere([first + 1] * 3, lambda v: v * -2.0),
    }
    read, n = [at.layers[:].resid_post, at.logits], 5
    model, oracle = ms.wrap(CASES[family].build()), Recompute(family)
    found = model.generate(batch, edits=model_edits, read=read, max_new_tokens=n)
    assert torch.equal(found.new_tokens, oracle.generate(batch, n, oracle_edits))
    for name in [f"layers.{i}.resid_post" for i in range(2)] + ["logits"]:
        torch.testing.assert_close(found[name][:, first:], oracle.values[name][:, first:], rtol=5e-4, atol=5e-4)
    assert not torch.equal(found.new_tokens, model.generate(batch, max_new_tokens=n).new_tokens)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("what", ["q", "k", "v", "z"])
@pytest.mark.parametrize("where", ["in the prompt", "third step", "everywhere"])
def test_queries_keys_values_and_their_mix(family, what, where):
    select, columns = POSITIONS[where]
    starts = prompts(family)[2]
    head = "kv_head" if what in "kv" else "head"

    def change(value):  # [head, dim]
        value[1] = value[1] * -3.0
        return value

    checked(
        family,
        getattr(at.layers[1].attn, what)(**select, **{head: 1}).scale(-3.0),
        {f"layers.1.attn.{what}": somewhere(columns(starts), change)},
    )


WEIGHTS = {  # the site, its selectors, the edit; for rows that begin at s, what becomes of the entries v [head] of (q, k)
    "a key blocked": ("scores", {"key": 1}, "mask", (), lambda s: lambda v, r, q, k: BLOCKED if k == s[r] + 1 else v),
    "a generated key blocked": ("scores", {"key": 14}, "mask", (), lambda s: lambda v, r, q, k: BLOCKED if k == s[r] + 14 else v),
    "a head blocked": ("pattern", {"head": 2}, "mask", (), lambda s: lambda v, r, q, k: v * torch.tensor([1, 1, 0, 1])),
    "a score raised": (
        *("scores", {"step": 2, "key": 0}, "add", (5.0,)),
        lambda s: lambda v, r, q, k: v + 5.0 * (q == LAST + 2 and k == s[r]),
    ),
    "weight on the prompt's end": (
        *("pattern", {"head": 0, "step": slice(0, None), "key": -1}, "set", (0.7,)),
        lambda s: lambda v, r, q, k: torch.cat([v[:1] * 0 + 0.7, v[1:]]) if q >= LAST and k == LAST else v,
    ),
    "sharper": ("scores", {}, "scale", (2.5,), lambda s: lambda v, r, q, k: v * 2.5),
    "one query sees nothing": ("scores", {"query": 3}, "mask", (), lambda s: lambda v, r, q, k: BLOCKED if q == s[r] + 3 else v),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_attention_weights(family, name):
    what, select, verb, given, oracle = WEIGHTS[name]
    site = getattr(at.layers[1].attn, what)(**select)
    checked(family, getattr(site, verb)(*given), {f"layers.1.attn.{what}": weights(oracle(prompts(family)[2]))})


def test_attention_weights_within_a_sliding_window():
    blocked = weights(lambda v, r, q, k: BLOCKED if k == LAST else v)
    checked("mistral", at.layers[1].attn.scores(key=-1).mask(), {"layers.1.attn.scores": blocked})
    halved = weights(lambda v, r, q, k: v * 0.1 if q >= LAST and k == LAST - 1 else v)
    checked(
        "mistral",
        at.layers[:].attn.pattern(key=-2, step=slice(0, None)).scale(0.1),
        {f"layers.{i}.attn.pattern": halved for i in range(3)},
    )
    model = ms.wrap(CASES["mistral"].build())
    with pytest.raises(errors.EditNeverFired):  # at that step the first key has left the window
        model.generate(CASES["mistral"].inputs(), edits=at.layers[0].attn.scores(step=2, key=0).add(5.0), max_new_tokens=NEW)


def test_spans():
    starts = prompts("llama")[2]
    spans = {"part": [(2, 4), (0, 3), (1, 2)]}
    stretches = [range(starts[r] + a, starts[r] + b) for r, (a, b) in enumerate(spans["part"])]
    checked(
        "llama",
        at.layers[0].resid_post(pos=span("part")).scale(-1.5),
        {"layers.0.resid_post": somewhere(stretches, lambda v: v * -1.5)},
        spans,
    )
    ends = [s[-1] for s in stretches]
    checked(
        "llama",
        at.layers[0].resid_post(pos=span("part").last).set(0.0),
        {"layers.0.resid_post": somewhere(ends, torch.zeros_like)},
        spans,
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_patch_from_another_text(family):
    source = CASES[family].inputs()["input_ids"].flip(1)
    oracle = Recompute(family)
    oracle.run({"input_ids": source})
    value = oracle.values["layers.1.resid_post"][0, 4]
    trace = ms.wrap(CASES[family].build()).run(source, read=at.layers[1].resid_post)
    starts = prompts(family)[2]
    checked(
        family,
        at.layers[1].resid_post(pos=2).patch(trace, pos=4),
        {"layers.1.resid_post": somewhere([s + 2 for s in starts], lambda v: value)},
    )


def test_a_patch_of_the_whole_prompt_and_from_a_generation():
    inputs = CASES["llama"].inputs()
    other = {"input_ids": inputs["input_ids"].flip(1)}
    model, oracle, site = ms.wrap(CASES["llama"].build()), Recompute("llama"), at.layers[1].resid_post
    oracle.run(other)
    resid = oracle.values[str(site)]

    def over_the_prompt(value):
        value[:, :13] = resid
        return value

    found = model.generate(inputs, edits=site.patch(model.run(other, read=site)), read=at.logits, max_new_tokens=NEW)
    assert torch.equal(found.new_tokens, oracle.generate(inputs, NEW, {str(site): over_the_prompt}))
    torch.testing.assert_close(found.logits, oracle.values["logits"], rtol=1e-4, atol=1e-4)

    source = model.generate(other, read=site, max_new_tokens=NEW)
    oracle.generate(other, NEW)
    value = oracle.values[str(site)][0, 15]
    found = model.generate(inputs, edits=site(step=1).patch(source, site=site(step=3)), read=at.logits, max_new_tokens=NEW)
    assert torch.equal(found.new_tokens, oracle.generate(inputs, NEW, {str(site): somewhere([13], lambda v: value)}))
    torch.testing.assert_close(found.logits, oracle.values["logits"], rtol=1e-4, atol=1e-4)


def test_functions():
    checked(
        "llama",
        at.layers[1].resid_post.apply(torch.sin) + at.layers[2].attn.z(step=slice(0, None)).apply(torch.exp),
        {"layers.1.resid_post": torch.sin, "layers.2.attn.z": somewhere([range(LAST, 40)] * 3, torch.exp)},
    )


def test_the_mean_of_a_reference():
    texts = [[30, 31, 32], [40, 41]]
    trace = ms.wrap(CASES["llama"].build()).run(texts, read=at.layers[1].resid_post)
    oracle, values = Recompute("llama"), []
    for text in texts:
        oracle.run({"input_ids": torch.tensor([text])})
        values.append(oracle.values["layers.1.resid_post"][0])
    mean, starts = torch.cat(values).mean(0), prompts("llama")[2]
    checked(
        "llama",
        at.layers[1].resid_post(pos=1).ablate("mean", of=trace),
        {"layers.1.resid_post": somewhere([s + 1 for s in starts], lambda v: mean)},
    )


def test_a_token_is_forced_by_its_logit():
    forced = somewhere([LAST + 2] * 3, lambda v: v.index_fill(0, torch.tensor(55), 1e4))
    found = checked("llama", at.logits(step=2, vocab=55).set(1e4), {"logits": forced})
    assert (found.new_tokens[:, 2] == 55).all()


# ---- how often edits fire --------------------------------------------------------------------------------------------------


def test_fired_counts_places_and_passes():
    model, inputs = ms.wrap(CASES["llama"].build()), CASES["llama"].inputs()
    counts = {
        at.layers[0].resid_post.scale(1.1): NEW,  # one for the prompt, one for each token but the last
        at.layers[:].resid_post.scale(1.1): 3 * NEW,
        at.layers[0].resid_post(pos=1).scale(1.1): 1,
        at.layers[0].resid_post(pos=14).scale(1.1): 1,
        at.layers[0].resid_post(pos=[1, 2, 14, 15]).scale(1.1): 3,  # the prompt in one pass, then two
        at.layers[0].resid_post(step=slice(1, 4)).scale(1.1): 3,
        at.layers[0].attn.k(pos=0).scale(1.1): NEW,  # wherever attention reads it
        at.layers[0].attn.k(pos=13).scale(1.1): NEW - 1,
        at.layers[0].attn.scores(key=0).add(1.0): NEW,
        at.layers[0].attn.pattern(query=2).scale(0.5): 1,
        at.logits(step=5).scale(2.0): 1,
    }
    found = model.generate(inputs, edits=list(counts), max_new_tokens=NEW)
    assert dict(found.fired) == counts


def test_the_same_edit_twice_is_counted_once_for_both():
    model = ms.wrap(CASES["llama"].build())
    twice = [at.embed(pos=0).scale(2.0), at.embed(pos=0).scale(2.0)]
    assert dict(model.generate([[20, 21]], edits=twice, max_new_tokens=2).fired) == {twice[0]: 2}


@pytest.mark.parametrize("select", [{"pos": 13 + NEW - 1}, {"step": NEW}, {"pos": 40}], ids=str)
def test_an_edit_that_no_token_reached(select):
    model = ms.wrap(CASES["llama"].build())
    with pytest.raises(errors.EditNeverFired, match="never fired"):
        model.generate(CASES["llama"].inputs(), edits=at.layers[0].resid_post(**select).scale(0.0), max_new_tokens=NEW)


# ---- edits exchanged between tokens ----------------------------------------------------------------------------------------


def by_hand(family, inputs, hooks, n):
    """A cached loop with plain hooks: `hooks(step)` gives, for each step, functions of the layers' outputs."""
    from transformers import DynamicCache

    module, cache, layers = CASES[family].build(), DynamicCache(), CASES[family].facts["paths"]["layers"]
    ids, new = inputs["input_ids"], []
    mask = inputs["attention_mask"]
    for step in range(n):
        handles = [
            module.get_submodule(layers)[i].register_forward_hook(lambda m, a, out, fn=fn: fn(out))
            for i, fn in hooks(step).items()
        ]
        with torch.no_grad():
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = module(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        for handle in handles:
            handle.remove()
        ids = out.logits[:, -1].argmax(-1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        new.append(ids)
    return torch.cat(new, 1)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_controller_glues_two_generations_together(family):
    batch, _, _ = prompts(family)
    a, b = vector(48, 2), vector(48, 3)
    model, seen = ms.wrap(CASES[family].build()), []

    def controller(step):
        seen.append((step.index, step.edits))
        return at.layers[2].resid_post.add(b) if step.index == 2 else None

    first = at.layers[1].resid_post.add(a)
    found = model.generate(batch, edits=first, controller=controller, max_new_tokens=8, read=at.layers[1].resid_post)
    expected = by_hand(family, batch, lambda step: {1: lambda v: v + a} if step < 3 else {2: lambda v: v + b}, 8)
    assert torch.equal(found.new_tokens, expected)
    assert not torch.equal(expected, by_hand(family, batch, lambda step: {1: lambda v: v + a}, 8))
    assert found[at.layers[1].resid_post].shape[1] == LAST + 8
    second = at.layers[2].resid_post.add(b)
    assert dict(found.fired) == {first: 3, second: 5}
    assert [list(edits) for _, edits in seen] == [[first]] * 3 + [[second]] * 4


def test_a_controller_takes_edits_away_and_names_equal_ones_anew():
    batch, _, _ = prompts("llama")
    model, a = ms.wrap(CASES["llama"].build()), vector(48, 2)
    found = model.generate(
        batch, edits=at.layers[1].resid_post.add(a), controller=lambda s: [] if s.index == 1 else None, max_new_tokens=6
    )
    assert torch.equal(found.new_tokens, by_hand("llama", batch, lambda step: {1: lambda v: v + a} if step < 2 else {}, 6))
    found = model.generate(batch, controller=lambda s: at.layers[1].resid_post.add(a), max_new_tokens=6)
    assert dict(found.fired) == {at.layers[1].resid_post.add(a): 5}


def test_an_exchanged_edit_may_need_attention_where_none_was_touched():
    model, inputs = ms.wrap(CASES["llama"].build()), CASES["llama"].inputs()
    mask = at.layers[:].attn.scores(key=slice(0, 13)).mask()
    found = model.generate(
        inputs, controller=lambda s: mask if s.index == 0 else None, max_new_tokens=5, read=at.layers[1].attn.pattern
    )
    assert (found[at.layers[1].attn.pattern][:, :, 13:, :13] == 0).all()
    assert (found[at.layers[1].attn.pattern][:, :, 12, :13].sum(-1) > 0.99).all()


def test_a_controller_may_not_ask_for_what_cannot_be():
    model = ms.wrap(CASES["llama"].build())
    with pytest.raises(errors.LayerOutOfRange):
        model.generate([[20, 21]], controller=lambda s: at.layers[7].resid_post.scale(0.0), max_new_tokens=4)
    late = at.layers[1].resid_post(step=3).scale(0.0)
    with pytest.raises(errors.EditNeverFired, match="step=3"):  # taken away before its step
        model.generate([[20, 21]], edits=late, controller=lambda s: at.embed.scale(1.0), max_new_tokens=6)
    with pytest.raises(errors.EditNeverFired):  # the prompt is over
        model.generate([[20, 21]], controller=lambda s: at.layers[1].resid_post(pos=0).scale(0.0), max_new_tokens=4)
