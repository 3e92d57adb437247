"""What a generation reads at every position equals a plain forward pass over the whole sequence."""

import pytest
import torch

import mainspring as ms
from conformance.zoo import CASES
from engine.recompute import Recompute, prompts
from mainspring import at, errors, span

ATTENTION = ("attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.z")
FAMILIES = ("llama", "gpt2", "mistral", "gemma2", "t5", "qwen2-vl", "llava")
NEW = 6


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def generated(family, read, edits=None, **options):
    batch, _, starts = prompts(family)
    model = ms.wrap(CASES[family].build())
    found = model.generate(batch, max_new_tokens=NEW, read=read, edits=edits, **options)
    oracle = Recompute(family)
    new = oracle.generate(batch, NEW)
    assert torch.equal(found.new_tokens, new), "the oracle generates other tokens"
    if CASES[family].kind == "encoder-decoder":
        starts = [0] * len(starts)
    return found, oracle, starts


@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_equals_one_pass_over_the_whole_sequence(family):
    layers = 2 if family == "t5" else 3
    names = [f"layers.{i}.{n}" for i in range(layers) for n in (*ATTENTION, "resid_post")] + ["logits"]
    found, oracle, starts = generated(family, names)
    for name in names:
        value, expected = found[name], oracle.values[name]
        assert value.shape == expected.shape, name
        for row, start in enumerate(starts):
            if name.endswith(("scores", "pattern")):
                close(value[row, :, start:, start:], expected[row, :, start:, start:])
                hidden = value[row, :, start:, :start]
                assert (hidden == (0 if name.endswith("pattern") else float("-inf"))).all(), "padding is seen"
            else:
                close(value[row, start:], expected[row, start:])
    assert torch.equal(found.logits, found["logits"])


def test_state_spaces_too():
    names = [f"layers.{i}.resid_post" for i in range(3)] + ["logits"]
    found, oracle, starts = generated("mamba", names)
    for name in names:
        for row, start in enumerate(starts):
            close(found[name][row, start:], oracle.values[name][row, start:])


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_window_read_is_the_whole_read_narrowed_by_hand(family):
    at1 = at.layers[1]
    wanted = {
        at1.resid_post(pos=2): lambda v, s: torch.stack([v[r, s[r] + 2] for r in range(3)]),
        at1.resid_post(pos=-1): lambda v, s: v[:, 12],
        at1.resid_post(step=0): lambda v, s: v[:, 12],
        at1.resid_post(step=3): lambda v, s: v[:, 15],
        at1.resid_post(step=[4, 1]): lambda v, s: v[:, [16, 13]],
        at1.resid_post(step=slice(1, 3)): lambda v, s: v[:, 13:15],
        at1.resid_post(step=slice(0, None)): lambda v, s: v[:, 12:],
        at1.resid_post(pos=5, dim=3): lambda v, s: torch.stack([v[r, s[r] + 5, 3] for r in range(3)]),
        at1.resid_post(pos=torch.tensor([14, 0, 6])): lambda v, s: torch.stack(
            [v[r, s[r] + p] for r, p in enumerate((14, 0, 6))]
        ),
        at1.resid_post(row=1): lambda v, s: v[1],
        at1.resid_post(row=1, pos=slice(2, None)): lambda v, s: v[1, s[1] + 2 :],
        at1.resid_post(row=[2, 0], step=2): lambda v, s: v[[2, 0], 14],
        at1.resid_post(pos=span("part").last): lambda v, s: torch.stack([v[r, s[r] + p] for r, p in enumerate((3, 1, 2))]),
        at1.resid_post(pos=span("part")): lambda v, s: torch.stack(
            [v[r, s[r] + p : s[r] + p + 2] for r, p in enumerate((2, 0, 1))]
        ),
        at1.attn.q(head=3, step=1): lambda v, s: v[:, 13, 3],
        at1.attn.q(head=[0, 2]): lambda v, s: v[:, :, [0, 2]],
        at1.attn.k(kv_head=1, pos=0): lambda v, s: torch.stack([v[r, s[r], 1] for r in range(3)]),
        at1.attn.z(head=2, dim=0): lambda v, s: v[:, :, 2, 0],
        at1.attn.pattern(head=1, step=2, key=0): lambda v, s: torch.stack([v[r, 1, 14, s[r]] for r in range(3)]),
        at1.attn.pattern(head=1, query=-1): lambda v, s: v[:, 1, 12],
        at1.attn.scores(step=4, key=-1): lambda v, s: v[:, :, 16, 12],
        at1.attn.pattern(row=2, key=5): lambda v, s: v[2, :, :, s[2] + 5],
        at.logits(step=3, vocab=[7, 5]): lambda v, s: v[:, 15, [7, 5]],
    }
    spans = {"part": [(2, 4), (0, 2), (1, 3)]}
    found, oracle, starts = generated(family, list(wanted), spans=spans)
    whole, _, _ = generated(family, list({s.bare for s in wanted}), spans=spans)
    for site, narrow in wanted.items():
        expected = narrow(oracle.values[str(site.bare)], starts)
        for value in (found[site], whole[site]):  # narrowed before and after
            assert value.shape == expected.shape, site
            real = expected if site.name.endswith("scores") else expected.masked_fill(_padding(site, expected, starts), 0)
            close(value.masked_fill(_padding(site, value, starts), 0), real)


def _padding(site, value, starts):
    """Where a value without a position selector shows padding."""
    mask = torch.zeros(value.shape, dtype=torch.bool)
    kept = dict(site.select)
    if site.name.endswith(("scores", "pattern")):
        if "row" in kept:
            mask[..., : starts[kept["row"]]] = True
        return mask
    if {"pos", "step"} & set(kept):
        return mask
    for i, row in enumerate([kept["row"]] if "row" in kept else range(3)):
        (mask if "row" in kept else mask[i])[: starts[row]] = True
    return mask


def test_rows_that_do_not_reach_a_position_are_refused_not_invented():
    read = [at.layers[0].resid_post]
    found, _, _ = generated("llama", read)
    for select in ({"pos": 15}, {"step": 6}, {"pos": slice(3, None)}):
        with pytest.raises(errors.PositionError):
            found[at.layers[0].resid_post(**select)]
        with pytest.raises(errors.PositionError):
            generated("llama", at.layers[0].resid_post(**select))
    assert found[at.layers[0].resid_post(row=0, pos=15)].shape == (48,)


def test_a_row_of_a_generation_is_that_row_alone():
    batch, alone, _ = prompts("llama")
    model = ms.wrap(CASES["llama"].build())
    read = [at.layers[1].resid_post, at.layers[2].attn.pattern, at.logits]
    found = model.generate(batch, max_new_tokens=NEW, read=read)
    for row, inputs in enumerate(alone):
        one, cut = model.generate(inputs, max_new_tokens=NEW, read=read), found.row(row)
        assert torch.equal(cut.tokens, one.tokens)
        for site in read:
            close(cut[site], one[site])
        close(cut[at.layers[1].resid_post(pos=1)], one[at.layers[1].resid_post(pos=1)])
        close(cut[at.layers[1].resid_post(step=2)], one[at.layers[1].resid_post(step=2)])


def test_modules_by_name_give_all_steps():
    batch, _, _ = prompts("llama")
    module = CASES["llama"].build()
    found = ms.wrap(module).generate(
        batch, max_new_tokens=NEW, read=['module["model.layers.1.mlp"].output', at.layers[1].mlp.out]
    )
    assert torch.equal(found['module["model.layers.1.mlp"].output'], found[at.layers[1].mlp.out])
    unmapped = ms.wrap(CASES["unknown-seed-oss"].build())
    whole = unmapped.generate(batch, max_new_tokens=NEW, read=at.module["model.layers.0"].output)
    assert whole[at.module["model.layers.0"].output].shape[:2] == (3, 13 + NEW - 1)


def test_the_encoder_and_the_images_are_read_once():
    batch, _, _ = prompts("t5")
    read = [at.encoder.layers[1].resid_post, at.layers[0].cross.k, at.layers[0].cross.pattern]
    found = ms.wrap(CASES["t5"].build()).generate(batch, max_new_tokens=NEW, read=read)
    kept, module = {}, CASES["t5"].build()
    module.encoder.block[1].register_forward_hook(lambda m, a, out: kept.update(resid=out[0]))
    module.decoder.block[0].layer[1].EncDecAttention.k.register_forward_hook(lambda m, a, out: kept.update(k=out))
    module(**batch, decoder_input_ids=found.tokens[:, :-1])
    close(found[read[0]], kept["resid"])
    close(found[read[1]].flatten(-2), kept["k"])
    assert found[read[2]].shape == (3, 4, NEW, 13)
    close(found[read[2]].sum(-1), torch.ones(3, 4, NEW))

    batch, _, _ = prompts("llava")
    found = ms.wrap(CASES["llava"].build()).generate(
        batch, max_new_tokens=NEW, read=[at.projector, at.vision.layers[0].resid_post]
    )
    module = CASES["llava"].build()
    module.model.multi_modal_projector.register_forward_hook(lambda m, a, out: kept.update(projector=out))
    module(**batch)
    close(found[at.projector], kept["projector"])
    assert found[at.vision.layers[0].resid_post].shape[0] == 3


def test_original_values_and_snapshots():
    batch, _, _ = prompts("llama")
    model = ms.wrap(CASES["llama"].build())
    edit, site = at.layers[0].resid_post.set(0.0), at.layers[0].resid_post
    edited = model.generate(batch, max_new_tokens=3, read=site, edits=edit)
    before = model.generate(batch, max_new_tokens=3, read=site, edits=edit, original=True)
    assert (edited[site] == 0).all()
    assert not (before[site][:, 12:] == 0).any()
    found = model.generate(batch, max_new_tokens=3, read=[site, at.logits])
    assert not found[site].requires_grad
    kept = found[site].clone()
    model.generate([[9, 9]], max_new_tokens=3, read=site)
    assert torch.equal(found[site], kept)


def test_logits_that_were_not_read_are_not_there():
    found = ms.wrap(CASES["llama"].build()).generate(CASES["llama"].inputs(), max_new_tokens=2)
    with pytest.raises(errors.NotRecorded, match=r"at\.logits"):
        _ = found.logits
    assert found.text is None


@pytest.mark.parametrize("family", ["falcon-h1", "bamba", "t5"])
def test_logits_of_models_that_compute_only_the_last(family):
    batch, _, _ = prompts(family)
    model = ms.wrap(CASES[family].build())
    found = model.generate(batch, max_new_tokens=3, read=at.logits)
    width = 1 if family == "t5" else batch["input_ids"].shape[1]
    assert found.logits.shape[:2] == (3, width + 2)
    assert torch.equal(found.logits[:, width - 1 :].argmax(-1), found.new_tokens)
