"""Without edits, generation gives token for token what the module's own `generate` gives."""

import math

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

import mainspring as ms
from conformance.zoo import CASES
from engine.recompute import prompts
from mainspring import at, errors
from mainspring.models.families import maps

FAMILIES = ("llama", "gpt2", "mistral", "gemma2", "t5", "mamba", "qwen2-vl", "llava")
PAD = 1


def own(module, inputs, n=8, **options):
    return module.generate(**inputs, **{"max_new_tokens": n, "do_sample": False, **options})


def likely(module, inputs, step, row=0):
    """The token that a row generates at a step: a fitting end."""
    return int(own(module, inputs, step + 1)[row, -1])


def test_every_family_here_has_a_map():
    assert [f for f in FAMILIES if CASES[f].build().config.model_type not in maps()] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_of_a_padded_batch_and_of_its_rows_alone(family):
    batch, alone, _ = prompts(family)
    module = CASES[family].build()
    expected = own(module, batch)
    found = ms.wrap(module).generate(batch, max_new_tokens=8)
    assert torch.equal(found.tokens, expected)
    assert torch.equal(found.new_tokens, expected[:, -8:])
    for row, inputs in enumerate(alone):
        one = ms.wrap(CASES[family].build()).generate(inputs, max_new_tokens=8)
        assert torch.equal(one.tokens, own(CASES[family].build(), inputs))
        assert torch.equal(one.new_tokens[0], found.new_tokens[row])


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_lists_of_tokens_are_padded_by_us_as_if_they_were_alone(family):
    _, alone, _ = prompts(family)
    rows = [x["input_ids"][0].tolist() for x in alone]
    module = CASES[family].build()
    found = ms.wrap(module).generate(rows, max_new_tokens=8)
    for row, tokens in enumerate(rows):
        assert torch.equal(found.new_tokens[row], own(module, {"input_ids": torch.tensor([tokens])})[0, len(tokens) :])


@pytest.mark.parametrize(
    "options", [{"temperature": 0.6}, {"top_p": 0.7}, {"top_k": 4}, {"temperature": 1.8, "top_p": 0.9, "top_k": 20}], ids=str
)
def test_sampling_from_the_global_state_and_from_a_seed(options):
    batch, _, _ = prompts("llama")
    module = CASES["llama"].build()
    model = ms.wrap(module)
    given = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **options, "do_sample": True}
    torch.manual_seed(11)
    expected = own(module, batch, **given)
    torch.manual_seed(11)
    assert torch.equal(model.generate(batch, max_new_tokens=8, **options).tokens, expected)
    torch.manual_seed(12)
    before = torch.get_rng_state()
    assert torch.equal(model.generate(batch, max_new_tokens=8, seed=11, **options).tokens, expected)
    assert torch.equal(torch.get_rng_state(), before)
    others = [model.generate(batch, max_new_tokens=8, seed=s, **options).tokens for s in range(4)]
    assert any(not torch.equal(x, expected) for x in others)


def test_options_that_were_not_asked_for_are_off_whatever_the_checkpoint_says():
    batch, _, _ = prompts("llama")
    module, plain = CASES["llama"].build(), CASES["llama"].build()
    defaults = {"temperature": 0.01, "top_p": 0.01, "top_k": 1, "min_p": 0.9, "typical_p": 0.1, "do_sample": True}
    for key, value in {**defaults, "num_return_sequences": 2, "cache_implementation": "static", "prefill_chunk_size": 4}.items():
        setattr(module.generation_config, key, value)
    torch.manual_seed(3)
    expected = own(plain, batch, do_sample=True, temperature=2.0, top_p=1.0, top_k=0)
    assert torch.equal(ms.wrap(module).generate(batch, max_new_tokens=8, temperature=2.0, seed=3).tokens, expected)
    read = [at.layers[1].attn.k, at.layers[1].attn.pattern, at.layers[1].resid_post]
    found, expected = (ms.wrap(m).generate(batch, max_new_tokens=8, read=read) for m in (module, plain))
    assert torch.equal(found.tokens, own(plain, batch))
    for site in read:
        torch.testing.assert_close(found[site], expected[site])


def test_what_shapes_the_models_own_distribution_stays():
    batch, _, _ = prompts("llama")
    module = CASES["llama"].build()
    module.generation_config.repetition_penalty = 5.0
    module.generation_config.min_new_tokens = 3
    found = ms.wrap(module).generate(batch, max_new_tokens=8).tokens
    assert torch.equal(found, own(module, batch))
    assert not torch.equal(found, own(CASES["llama"].build(), batch))


@pytest.mark.parametrize("how", ["stop", "config"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_a_row_that_ends_is_padded_until_all_have_ended(family, how):
    batch, _, _ = prompts(family)
    module = CASES[family].build()
    ends = [likely(module, batch, 2, 0), likely(module, batch, 4, 1)]
    expected = own(module, batch, 9, eos_token_id=ends, pad_token_id=PAD)
    module.generation_config.pad_token_id = PAD
    if how == "config":
        module.generation_config.eos_token_id = ends
    stream = ms.wrap(module).generate(batch, max_new_tokens=9, stream=True, **({"stop": ends} if how == "stop" else {}))
    done = torch.stack([step.done for step in stream], dim=1)
    found = stream.result
    assert torch.equal(found.tokens, expected)
    assert (found.new_tokens == PAD).any(), "no row was padded, so nothing was tested"
    for row in range(3):
        first = next((i for i, t in enumerate(found.new_tokens[row].tolist()) if t in ends), len(done[row]) - 1)
        assert done[row].tolist() == [False] * first + [True] * (len(done[row]) - first)


def test_generation_is_over_when_every_row_has_ended():
    inputs = CASES["llama"].inputs()
    module = CASES["llama"].build()
    model, end = ms.wrap(module), likely(module, inputs, 2)
    found = model.generate(inputs, max_new_tokens=50, stop=end)
    assert found.new_tokens[0, -1] == end
    assert found.new_tokens.shape[1] <= 3
    module.generation_config.eos_token_id = end
    assert model.generate(inputs, max_new_tokens=6, stop=[]).new_tokens.shape[1] == 6


def test_a_prompt_of_embeddings_and_one_that_says_its_own_positions():
    inputs = CASES["llama"].inputs()
    module = CASES["llama"].build()
    embedded = {"inputs_embeds": module.get_input_embeddings()(inputs["input_ids"]).detach()}
    found = ms.wrap(module).generate(embedded, max_new_tokens=5, read=at.layers[1].resid_post(step=slice(0, None)))
    plain = ms.wrap(module).generate(inputs, max_new_tokens=5, read=at.layers[1].resid_post(step=slice(0, None)))
    assert torch.equal(found.new_tokens, own(module, embedded, 5))
    torch.testing.assert_close(*(x[at.layers[1].resid_post(step=slice(0, None))] for x in (found, plain)))
    shifted = {**inputs, "position_ids": torch.arange(inputs["input_ids"].shape[1])[None] * 3}
    assert torch.equal(ms.wrap(module).generate(shifted, max_new_tokens=8).tokens, own(module, shifted))


def test_targets_of_an_encoder_decoder_are_continued():
    inputs = CASES["t5"].inputs()
    module = CASES["t5"].build()
    found = ms.wrap(module).generate(inputs, max_new_tokens=5, read=at.layers[0].resid_post)
    assert torch.equal(found.tokens, own(module, inputs, 5))
    assert found.tokens.shape[1] == 1 + 7 + 5, "the start token comes before the target"
    assert found[at.layers[0].resid_post].shape[1] == 1 + 7 + 4
    torch.testing.assert_close(found[at.layers[0].resid_post(step=0)], found[at.layers[0].resid_post][:, 7])


def test_encoders_that_count_positions_from_the_left_are_padded_on_the_right():
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=50, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=40, init_std=0.8, pad_token_id=1, bos_token_id=0,
        eos_token_id=None,
        decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    module = BartForConditionalGeneration(config).eval()
    rows = [[5, 9, 12, 33, 7, 8], [6, 30], [21, 4, 40, 11]]
    found = ms.wrap(module).generate(rows, max_new_tokens=6).tokens
    for row, tokens in zip(found, rows, strict=True):
        assert torch.equal(row, own(module, {"input_ids": torch.tensor([tokens])}, 6)[0])


def test_without_a_cache_the_same_comes_out():
    batch, _, _ = prompts("llama")
    module = CASES["llama"].build()
    read = [at.layers[1].attn.pattern, at.layers[2].resid_post, at.layers[0].attn.v]
    cached = ms.wrap(module).generate(batch, max_new_tokens=5, read=read, edits=at.layers[0].resid_post(pos=1).scale(3.0))
    module.generation_config.use_cache = False
    found = ms.wrap(module).generate(batch, max_new_tokens=5, read=read, edits=at.layers[0].resid_post(pos=1).scale(3.0))
    assert torch.equal(found.tokens, cached.tokens)
    real = batch["attention_mask"].bool()
    for site in read[1:]:
        torch.testing.assert_close(found[site][:, :13][real], cached[site][:, :13][real])
        torch.testing.assert_close(found[site][:, 13:], cached[site][:, 13:])
    torch.testing.assert_close(found[read[0]][:, :, 13:], cached[read[0]][:, :, 13:])


# ---- refusals --------------------------------------------------------------------------------------------------------------


OUT_OF_RANGE = [
    {"max_new_tokens": 0}, {"max_new_tokens": -2}, {"temperature": 0}, {"temperature": -1.0}, {"temperature": math.nan},
    {"temperature": math.inf}, {"top_p": 0}, {"top_p": 1.01}, {"top_p": math.nan}, {"top_k": 0}, {"seed": -1},
]  # fmt: skip
NO_NUMBERS = [{"max_new_tokens": 2.5}, {"max_new_tokens": None}, {"temperature": "hot"}, {"top_k": 1.5}, {"seed": "x"}]


@pytest.mark.parametrize("options", OUT_OF_RANGE, ids=str)
def test_options_out_of_range_are_refused_by_name(options):
    model = ms.wrap(CASES["llama"].build())
    with pytest.raises(errors.InputError, match=next(iter(options))):
        model.generate(CASES["llama"].inputs(), **options)


@pytest.mark.wrong_types
@pytest.mark.parametrize("options", NO_NUMBERS, ids=str)
def test_options_that_are_no_numbers_are_refused_by_name(options):
    model = ms.wrap(CASES["llama"].build())
    with pytest.raises(errors.InputError, match=next(iter(options))):
        model.generate(CASES["llama"].inputs(), **options)


@pytest.mark.parametrize("family", ["bert", "vit", "clip"])
def test_models_that_do_not_generate_say_so(family):
    with pytest.raises(errors.InputError, match="does not generate"):
        ms.wrap(CASES[family].build()).generate(CASES[family].inputs())
    with pytest.raises(errors.InputError, match="does not generate"):
        ms.wrap(torch.nn.Linear(3, 3)).generate(torch.ones(1, 3))


def test_layouts_that_cannot_be_continued_are_refused():
    batch, _ = CASES["llama"].batch("right")
    model = ms.wrap(CASES["llama"].build())
    with pytest.raises(errors.InputError, match="left"):
        model.generate(batch)
    with pytest.raises(errors.InputError, match="past_key_values"):
        model.generate({**CASES["llama"].inputs(), "past_key_values": object()})


def test_impossible_requests_fail_before_anything_runs():
    module = CASES["llama"].build()
    model = ms.wrap(module)
    module.forward = None
    with pytest.raises(errors.LayerOutOfRange):
        model.generate([[4, 5]], read=at.layers[9].resid_post, stream=True)
    with pytest.raises(errors.PositionError):
        model.generate([[4, 5]], edits=at.embed(pos=-3).scale(0.0), stream=True)
    with pytest.raises(errors.SelectorError):
        model.generate([[4, 5]], edits=at.embed(pos=0, step=1).scale(0.0), stream=True)
