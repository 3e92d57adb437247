"""Each saving of a sweep can be turned off, saves what it says, and changes no number."""

from itertools import product

import pytest
import torch

import mainspring as ms
from conformance.zoo import CASES
from mainspring import at
from mainspring.engine.sweeps import forked
from mainspring.engine.sweeps.cells import Cell
from mainspring.engine.sweeps.grid import grid
from mainspring.engine.sweeps.planner import TOUCH, Savings, make_groups, pass_cost
from mainspring.engine.sweeps.sweep import sweep
from mainspring.measure.metrics import logit_difference, probability

ALL = [Savings(*chosen) for chosen in product([False, True], repeat=3)]
METRIC = logit_difference(5, 6)


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    return ms.wrap(CASES[request.param].build())


@pytest.fixture
def tokens():
    return torch.arange(5, 21)


def never(edits, sites):
    raise AssertionError("a cell was run plainly")


def swept(model, tokens, savings, memory=1.0, metric=METRIC):
    cells = grid(at.layers[:].resid_post, lambda s: s.scale(2.0), layers=model.n_layers, pos=len(tokens))
    return sweep(model.atlas, [tokens], [{}], cells, metric, never, names=model._names, memory=memory, savings=savings)


@pytest.mark.parametrize("savings", ALL, ids=str)
def test_no_saving_changes_a_number(model, tokens, savings):
    found = swept(model, tokens, savings).values
    cells = grid(at.layers[:].resid_post, lambda s: s.scale(2.0), layers=model.n_layers, pos=len(tokens))
    logits = torch.stack([model.run(tokens[None], edits=e, until="end").logits[:, -1] for e in cells])
    expected = logits[..., 5] - logits[..., 6]
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_layers_and_tokens_cost_less_by_the_plan(model, tokens):
    costs = {
        name: swept(model, tokens, Savings(**{"layers": False, "tokens": False, "head": False, name: True})).plan.planned
        for name in ("layers", "tokens", "head")
    }
    nothing = swept(model, tokens, Savings(False, False, False)).plan.planned
    everything = swept(model, tokens, Savings()).plan.planned
    assert costs["head"] == nothing
    assert costs["layers"] < 0.7 * nothing
    assert everything <= min(costs.values())


def test_the_head_gives_only_the_logits_that_the_metric_looks_at(model, tokens, monkeypatch):
    widths: list[int] = []
    run_group = forked.run_group

    def watched(*args):
        head = model.module.get_output_embeddings()
        handle = head.register_forward_hook(lambda m, a, out: widths.append(out.shape[0] * out.shape[1]))
        try:
            return run_group(*args)
        finally:
            handle.remove()

    swept(model, tokens, Savings())  # tries the model once, before anything is counted
    monkeypatch.setattr("mainspring.engine.sweeps.sweep.run_group", watched)
    swept(model, tokens, Savings())
    assert set(widths) == {0}  # two rows of its weights are multiplied instead
    widths.clear()
    n_cells = swept(model, tokens, Savings(), metric=probability(5)).plan.n_cells
    assert sum(widths) == n_cells
    widths.clear()
    swept(model, tokens, Savings(tokens=True, head=False))
    assert sum(widths) > n_cells


def test_memory_counts_logits_that_are_not_left_out(model, tokens):
    small = 4 * 20 * 16 * 32 * 8 / 2**30
    narrow, wide = (swept(model, tokens, Savings(head=head), memory=small).plan.forwards for head in (True, False))
    assert wide > narrow


def test_cells_share_a_pass_when_a_pass_is_dear():
    cells = [Cell(i, (), fork=1, first=i) for i in range(8)]  # type: ignore[arg-type]

    def starts(per_pass):
        return [g.start for g in make_groups(cells, 0, 8, 4, share_prefix=True, max_rows=100, per_pass=per_pass)[0]]

    assert starts(0.0) == list(range(8))
    assert starts(1e6) == [0]
    assert 1 < len(starts(30.0)) < 8


def test_the_cost_of_a_pass():
    narrow, wide = pass_cost(12, 128, 0), pass_cost(12, 768, 0)
    assert narrow > wide > 12 * TOUCH  # starting kernels is dear where tokens are cheap
    assert pass_cost(12, 768, 50257) > wide + 5 * TOUCH  # an unembedding of some five layers' weights
