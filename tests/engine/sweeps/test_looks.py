"""A metric of a few tokens computes their logits alone, and gives the numbers of the whole vocabulary."""

from functools import wraps

import pytest
import torch
from torch import nn

import mainspring as ms
from conformance.zoo import CASES
from mainspring import at
from mainspring.engine.sweeps import looks
from mainspring.engine.sweeps.grid import grid
from mainspring.measure.metrics import Metric, correct, kl_divergence, logit_difference, probability, recovered

TOKENS = torch.tensor([[5, 9, 17, 3, 11, 8], [7, 4, 12, 20, 6, 15]])


def cells_of(model, length):
    return grid(at.layers[:].resid_post, lambda site: site.scale(3.0), layers=model.n_layers, pos=length)


def looped(model, tokens, metric, length):
    return torch.stack([metric(model.run(tokens, edits=cell, until="end")) for cell in cells_of(model, length)])


@pytest.fixture
def heads_run(monkeypatch):
    """How many tokens the unembedding was asked for, each time that it was asked for some alone."""
    asked: list[int] = []
    real = looks.linear

    def counted(hidden, weight, bias):
        asked.append(len(weight))
        return real(hidden, weight, bias)

    monkeypatch.setattr(looks, "linear", counted)
    return asked


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2", "granite", "cohere2", "falcon-new", "qwen3-moe", "opt-350m"])
def test_logits_that_are_scaled_capped_or_biased_are_the_same(name, heads_run):
    """Granite and Cohere scale their logits, Gemma-2 caps them, GPT-J adds a bias."""
    model = ms.wrap(CASES[name].build())
    metric = logit_difference(torch.tensor([30, 2]), torch.tensor([1, 30]))
    found = model.sweep(TOKENS, cells_of(model, 6), metric)
    expected = looped(model, TOKENS, metric, 6)
    assert not found.plan.plain
    assert set(heads_run) == {2}
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_recovered_metric_looks_at_the_same_tokens(heads_run):
    model = ms.wrap(CASES["llama"].build())
    metric = recovered(logit_difference(30, 2), clean=torch.tensor([3.0, 1.0]), corrupted=torch.tensor([1.0, 2.0]))
    found = model.sweep(TOKENS, cells_of(model, 6), metric)
    torch.testing.assert_close(found.values, looped(model, TOKENS, metric, 6), rtol=1e-4, atol=1e-5)
    assert set(heads_run) == {2}


def test_metrics_of_the_whole_vocabulary_get_it(heads_run):
    model = ms.wrap(CASES["gpt2"].build())
    unedited = model.run(TOKENS, until="end")
    for metric in (
        probability(5),
        correct(5),
        kl_divergence(unedited),
        Metric("norm", (at.logits(pos=-1),), lambda x: x.norm(dim=-1)),
    ):
        heads_run.clear()
        found = model.sweep(TOKENS, cells_of(model, 6), metric)
        torch.testing.assert_close(found.values, looped(model, TOKENS, metric, 6), rtol=1e-4, atol=1e-5)
        assert set(heads_run) <= {2}  # the probe of the model, once
    heads_run.clear()
    model.sweep(TOKENS, cells_of(model, 6), probability(5))
    assert not heads_run


def test_a_token_counted_from_the_end_is_looked_up_in_the_whole_vocabulary():
    model = ms.wrap(CASES["gpt2"].build())
    metric = logit_difference(-1, 2)
    assert metric.token_ids() is None
    found = model.sweep(TOKENS, cells_of(model, 6), metric)
    torch.testing.assert_close(found.values, looped(model, TOKENS, metric, 6), rtol=1e-4, atol=1e-5)


def test_a_head_that_is_more_than_a_linear_map_is_run_whole(heads_run):
    class Bent(nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden).tanh() * hidden.norm(dim=-1, keepdim=True)

    module = CASES["llama"].build()
    bent = Bent(module.config.hidden_size, module.config.vocab_size, bias=False)
    bent.weight = module.lm_head.weight
    module.lm_head = bent
    model, metric = ms.wrap(module), logit_difference(30, 2)
    found = model.sweep(TOKENS, cells_of(model, 6), metric)
    assert not found.plan.plain
    torch.testing.assert_close(found.values, looped(model, TOKENS, metric, 6), rtol=1e-4, atol=1e-5)
    assert not heads_run


def test_logits_mixed_after_the_head_are_noticed():
    """A model that does more to its logits than one by one fails the probe, and is asked for all of them."""
    module = CASES["llama"].build()
    forward = module.forward

    @wraps(forward)  # the engine asks what a forward pass takes
    def centred(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits / output.logits.norm(dim=-1, keepdim=True)
        return output

    module.forward = centred
    model, metric = ms.wrap(module), logit_difference(30, 2)
    found = model.sweep(TOKENS, cells_of(model, 6), metric)
    assert not found.plan.plain  # forked all the same
    assert not model.atlas.plans["single tokens"]
    torch.testing.assert_close(found.values, looped(model, TOKENS, metric, 6), rtol=1e-4, atol=1e-6)


def test_token_ids_and_their_places():
    metric = logit_difference(torch.tensor([9, 4]), 7)
    ids = metric.token_ids()
    assert ids.tolist() == [4, 7, 9]
    few = dict(metric.among(ids).given)
    assert few["answer"].tolist() == [2, 0]
    assert int(few["distractor"]) == 1
