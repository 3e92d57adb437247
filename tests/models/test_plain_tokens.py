"""Mere tokens come with mask and positions: the numbers of the model alone, and nothing for a model that wants neither."""

import pytest
import torch

import mainspring as ms
from mainspring import at
from models.decoder_cases import NAMES, bench
from models.map_algebra import Bench

TOKENS = torch.tensor([[5, 3, 7, 4, 9, 3], [8, 6, 4, 3, 5, 7]])


def given(module, run):
    """The arguments that the module's forward receives in `run()`, and what `run` returns."""
    seen = []
    handle = module.register_forward_pre_hook(lambda m, args, kwargs: seen.append(dict(kwargs)), with_kwargs=True)
    try:
        result = run()
    finally:
        handle.remove()
    return seen[-1], result


@pytest.mark.parametrize(("name", "attention"), [*((name, None) for name in NAMES), ("gpt2", "eager"), ("llama", "eager")])
def test_the_numbers_are_those_of_the_model_alone(name, attention):
    case = bench(name) if attention is None else Bench(name)
    if attention is not None:
        case.model.module.set_attn_implementation(attention)
    # a cache lays keys out otherwise in memory, for which the explicit product gives other last bits
    own = {"use_cache": False} if "use_cache" in case.model._names else {}
    with torch.no_grad():
        alone = case.model.module(TOKENS, **own).logits
    arguments, trace = given(case.model.module, lambda: case.model.run(TOKENS, read=at.layers[0].resid_post, until="end"))
    assert torch.equal(trace.logits, alone)
    if "attention_mask" in arguments:
        assert arguments["attention_mask"].dtype is torch.bool
        assert arguments["attention_mask"].all() and arguments["attention_mask"].shape == TOKENS.shape
        assert arguments["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5]]  # no model has written into what others get too


def test_decoders_get_them():
    arguments, _ = given(bench("llama").model.module, lambda: bench("llama").model.run(TOKENS))
    assert set(arguments) == {"input_ids", "use_cache", "attention_mask", "position_ids"}


def test_a_model_with_positions_of_its_own_gets_only_the_tokens():
    arguments, _ = given(bench("opt").model.module, lambda: bench("opt").model.run(TOKENS))
    assert set(arguments) == {"input_ids", "use_cache"}


def test_a_module_without_a_map_gets_only_what_it_was_given():
    class Own(torch.nn.Module):
        def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=None):
            assert attention_mask is None and position_ids is None
            return input_ids.float()

    assert torch.equal(ms.wrap(Own()).run(TOKENS).output, TOKENS.float())


def test_arguments_of_ones_own_stay():
    model, mask = bench("llama").model, torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    arguments, _ = given(model.module, lambda: model.run({"input_ids": TOKENS, "attention_mask": mask}))
    assert arguments["attention_mask"] is mask and "position_ids" not in arguments


def test_a_run_in_inference_mode_does_not_spoil_later_gradients():
    model, tokens = bench("gpt2").model, torch.tensor([[3, 4, 5, 6, 7, 8, 9, 3, 4]])  # a shape that nothing else has
    with torch.inference_mode():
        model.run(tokens)
    grad = model.run(tokens, read=at.embed, grad_of=lambda t: t.logits.sum()).grad[at.embed]
    again = model.run({"input_ids": tokens}, read=at.embed, grad_of=lambda t: t.logits.sum()).grad[at.embed]
    assert torch.equal(grad, again)
    with torch.enable_grad():
        model.module.zero_grad()
        arguments, _ = given(model.module, lambda: model.run(tokens))
        model.module(**arguments).logits.sum().backward()  # the table of positions learns, which keeps the positions
    model.module.zero_grad()
