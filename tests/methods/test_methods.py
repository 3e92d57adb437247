"""Every method stands its trial, and the trials catch methods that are wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mainspring as ms
from mainspring import find, methods, views
from mainspring.errors import InputError
from mainspring.measure.scores import Scores
from mainspring.methods import Trial, check_method, method
from mainspring.organisms.registry import entries
from methods.trials import TRIALS

DOCS = Path(__file__).parents[2] / "docs"

for name in find.__all__:
    getattr(find, name)
REGISTERED = dict(methods.methods())


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_every_method_stands_its_trial(name):
    findings = check_method(REGISTERED[name], TRIALS[name]())
    assert not [str(finding) for finding in findings if not finding.holds]


def test_every_method_has_a_trial_and_no_trial_is_left_over():
    assert set(REGISTERED) == set(TRIALS)


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_every_method_is_public_documented_and_shown(name):
    found = REGISTERED[name]
    room, function = name.split(".")
    assert getattr(getattr(ms, room), function) is found.run
    page, _, section = found.page.partition("#")
    text = (DOCS / page).read_text()
    titles = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
    assert section in titles
    assert function in text
    assert found.organism in [entry.name for entry in entries()]
    assert found.about


@pytest.mark.parametrize("name", ["find.induction_heads", "find.logit_lens"])
def test_its_view_is_drawn(name):
    trial = TRIALS[name]()
    view = trial.run(trial.open()).view()
    assert views.svg(view).startswith("<svg")


# ---- the trials catch what is wrong ----


def tiny():
    from conformance.zoo import CASES

    return ms.wrap(CASES["gpt2"].build())


IDS = torch.tensor([[5, 6, 7, 8], [9, 3, 4, 11]])


def norms(model, ids=IDS):
    """The length of what every layer leaves behind."""
    trace = model.run(ids, read=ms.at.layers[:].resid_post)
    return scores(trace[ms.at.layers[:].resid_post].double().norm(dim=-1).mean((1, 2)))


def scores(values):
    return Scores(values, ("layer",), (tuple(map(str, range(len(values)))),), "length")


def trial(run=norms, **changed):
    sound = Trial(
        open=tiny,
        run=run,
        control=lambda on: scores(torch.zeros(3)),
        poison=lambda on: scores(-run(on).values),
        score=lambda found: float(found.values.sum()),
        bar=1e-3,
        numbers=lambda found: found.values,
    )
    return replace(sound, **changed)


NORMS = methods.Method("tests.norms", norms, "recall", "zero", "find.md#patching")


def failing(trial):
    return {finding.name for finding in check_method(NORMS, trial) if not finding.holds}


def test_a_sound_method_has_no_findings():
    assert failing(trial()) == set()


def drawn(model):
    return scores(torch.rand(3, generator=torch.Generator().manual_seed(torch.seed() % 1000)))


def of_caller(model):
    torch.rand(1)
    return norms(model)


def heavier(model):
    found = norms(model)
    with torch.no_grad():
        next(model.module.parameters()).mul_(1.5)
    return found


def hooked(model):
    model.module.register_forward_hook(lambda *a: None)
    return norms(model)


def thawed(model):
    next(model.module.parameters()).requires_grad_(not next(model.module.parameters()).requires_grad)
    return norms(model)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (heavier, "the model is as before"),
        (hooked, "the model is as before"),
        (of_caller, "no random numbers of the caller's are used"),
        (lambda model: scores(torch.full((3,), float("nan"))), "numbers are finite where there are any"),
    ],
)
def test_what_a_method_must_not_do(run, name):
    assert name in failing(trial(run))


def test_a_method_that_differs_from_run_to_run():
    count = iter(range(100))
    assert "two runs are equal" in failing(trial(lambda model: scores(norms(model).values + next(count))))


def test_a_method_that_depends_on_how_rows_are_batched():
    assert "the same numbers: one row" in failing(trial(others={"one row": lambda on: norms(on, IDS[:1])}))


def test_a_bar_that_anything_reaches():
    found = failing(trial(bar=-1e9))
    assert found == {"its control does not: zero", "its poison does not"}


def test_a_method_that_is_not_right():
    assert failing(trial(bar=1e9)) == {"reaches its bar"}


def test_a_method_needs_its_organism_control_page_and_docstring():
    def bare(model):
        pass

    bare.__module__ = "mainspring.find.bare"
    with pytest.raises(InputError, match="no docstring"):
        method(organism="recall", control="none", page="find.md#patching")(bare)
    assert "find.bare" not in methods.methods()
