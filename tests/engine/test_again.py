"""The same edits asked for again get the plan of the run before; what changed meanwhile is seen all the same."""

import pytest
import torch

import mainspring as ms
from engine.tiny import BUILD
from mainspring import at
from mainspring.engine import plan as plans
from mainspring.errors import DtypeMismatch, EditNeverFired, PositionError, ShapeMismatch

TOKENS, OTHERS = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[2, 7, 1, 8, 2]])
resid = at.layers[1].resid_post


@pytest.fixture
def prepared(monkeypatch):
    """The edits that were made ready, in order."""
    seen, usual = [], plans.prepare

    def prepare(edit, *rest):
        seen.append(edit)
        return usual(edit, *rest)

    monkeypatch.setattr(plans, "prepare", prepare)
    return seen


def alone(model, tokens, edits):
    """What a model that was never asked before says."""
    return ms.wrap(model.module).run(tokens, edits=edits).logits


@pytest.mark.parametrize(
    "edit",
    [
        resid(pos=-1).set(torch.arange(24.0)),
        resid(pos=[0, 2]).add(torch.arange(24.0)),
        resid.scale(0.5),
        resid(dim=3).clamp(-0.1, 0.1),
        at.layers[:].mlp.out(pos=2).set(1.5),
        resid.apply(lambda v: v.flip(-1)),
    ],
    ids=lambda edit: edit.op,
)
def test_edits_are_made_ready_once_for_texts_of_one_length(model, prepared, edit):
    edits = [edit]
    assert model.run(TOKENS, edits=edits).logits.equal(alone(model, TOKENS, edits))
    prepared.clear()
    trace = model.run(OTHERS, edits=edits)
    assert not prepared
    assert trace.fired == {edit: 3 if edit.site.layers != 1 else 1}
    assert trace.logits.equal(alone(model, OTHERS, edits))


def test_an_equal_edit_of_another_value_is_another_edit(model):
    first, second = resid(pos=-1).set(torch.zeros(24)), resid(pos=-1).set(torch.ones(24))
    model.run(TOKENS, edits=[first])
    assert model.run(TOKENS, edits=[second]).logits.equal(alone(model, TOKENS, [second]))
    assert model.run(TOKENS, edits=[first, second]).logits.equal(alone(model, TOKENS, [first, second]))
    assert model.run(TOKENS, edits=[second, first]).logits.equal(alone(model, TOKENS, [first]))


@pytest.mark.parametrize("tokens", [torch.tensor([[3, 1, 4]]), OTHERS.repeat(2, 1), [[3, 1, 4, 1, 5], [3, 1]]])
def test_another_layout_is_planned_anew(model, tokens):
    edits = [resid(pos=-1).set(torch.arange(24.0))]
    model.run(TOKENS, edits=edits)
    assert model.run(tokens, edits=edits).logits.equal(alone(model, tokens, edits))
    beyond = [resid(pos=4).set(0.0)]
    model.run(TOKENS, edits=beyond)
    with pytest.raises(PositionError):
        model.run(torch.tensor([[3, 1, 4]]), edits=beyond)


def test_reads_and_where_to_stop_are_planned_anew(model):
    edits = [resid.scale(2.0)]
    assert model.run(TOKENS, edits=edits).stopped_after is None
    trace = model.run(TOKENS, edits=edits, read=resid)
    assert trace.stopped_after == "layers.1"
    assert trace[resid].equal(ms.wrap(model.module).run(TOKENS, edits=edits, read=resid)[resid])
    assert model.run(TOKENS, edits=edits).stopped_after is None


def test_a_constant_written_into_between_runs_is_seen(model):
    value = torch.zeros(24)
    edits = [resid(pos=-1).set(value)]
    before = model.run(TOKENS, edits=edits).logits
    value.add_(torch.arange(24.0))
    after = model.run(TOKENS, edits=edits).logits
    assert not after.equal(before)
    assert after.equal(alone(model, TOKENS, edits))


def test_a_constant_of_another_form_is_refused_as_ever(model):
    value = torch.nn.Parameter(torch.zeros(24))
    edits = [resid.add(value)]
    model.run(TOKENS, edits=edits)
    value.data = torch.zeros(24, dtype=torch.float64)
    with pytest.raises(DtypeMismatch):
        model.run(TOKENS, edits=edits)
    value.data = torch.zeros(23)
    with pytest.raises(ShapeMismatch):
        model.run(TOKENS, edits=edits)
    value.data = torch.ones(24)
    assert model.run(TOKENS, edits=edits).logits.equal(alone(model, TOKENS, edits))


def test_a_model_that_was_cast_is_planned_anew():
    model = ms.wrap(BUILD["gpt2"]())
    edits = [resid.add(torch.ones(24))]
    model.run(TOKENS, edits=edits)
    model.module.to(torch.bfloat16)
    with pytest.raises(DtypeMismatch):
        model.run(TOKENS, edits=edits)


def test_what_is_worked_out_from_values_is_worked_out_each_time(model):
    directions = torch.eye(24)[:1].clone()
    trace = model.run(OTHERS, read=resid)
    edits = [resid(pos=0).project_out(directions), resid(pos=1).patch(trace)]
    before = model.run(TOKENS, edits=edits, read=resid)[resid]
    directions.copy_(torch.eye(24)[5:6])
    trace[resid].fill_(2.0)
    after = model.run(TOKENS, edits=edits, read=resid)[resid]
    assert before[0, 0, 0].abs() < 1e-5 < before[0, 0, 5].abs()
    assert after[0, 0, 5].abs() < 1e-5 < after[0, 0, 0].abs()
    assert after[0, 1].eq(2.0).all()


def test_a_trained_constant_gets_its_gradient_in_every_run(model):
    value = torch.nn.Parameter(torch.zeros(24))
    edits = [resid(pos=-1).set(value)]

    def gradient(of, tokens):
        return torch.autograd.grad(of.run(tokens, edits=edits, differentiable=True).logits[0, -1, 3], value)[0]

    for tokens in (TOKENS, OTHERS):
        found = gradient(model, tokens)
        assert found.abs().sum() > 0
        assert found.equal(gradient(ms.wrap(model.module), tokens))


def test_an_edit_that_never_fires_is_an_error_in_every_run(model):
    edits = [resid(pos=slice(5, 9)).scale(2.0)]
    for _ in range(2):
        with pytest.raises(EditNeverFired):
            model.run(TOKENS, edits=edits)
