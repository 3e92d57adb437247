"""Truths of trained organisms as data, and a verification that can fail."""

import json
import math
from dataclasses import replace

import pytest
import torch

from mainspring import at
from mainspring.organisms import plant, recipe
from mainspring.organisms.registry import entries
from mainspring.organisms.trained import (
    Check,
    ChecksFailed,
    Place,
    TrainedRecipe,
    TrainedTruth,
    TruthMalformed,
    recipe_of,
    verify_trained,
)
from mainspring.organisms.truth import Edge, Node

TRUTH = TrainedTruth(
    organism="toy",
    seed=3,
    nodes=(Node(0, 1, "previous"), Node(2, None, "table"), Place("vision.layers.1.resid_post", "panel")),
    edges=(Edge("layers.0.head.1", "layers.2.mlp", "mlp", "previous"),),
    directions={"refusal": {"site": "layers.2.resid_post", "tensor": "direction/refusal"}},
    spans={"subject": "the two tokens of the name"},
    datasets={"find": {"seed": 1}, "judge": {"seed": 2}},
    known="trained, then measured by ablation",
    checks=(Check("accuracy", 0.99, 0.95, ">="), Check("without the head", 0.1, 0.3, "<=", "mean ablation")),
    limits=("one seed",),
    causal={"rule": ["a", "b"]},
)


def test_a_truth_survives_text_and_disk(tmp_path):
    assert TrainedTruth.from_json(TRUTH.to_json()) == TRUTH
    TRUTH.save(tmp_path)
    assert TrainedTruth.load(tmp_path) == TRUTH
    data = json.loads((tmp_path / "truth.json").read_text())
    assert data["kind"] == "trained"
    assert data["version"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("nodes"), "nodes"),
        (lambda d: d.update(nods=[]), "nods"),
        (lambda d: d["nodes"][0].update(layer="first"), "nodes.0"),
        (lambda d: d["nodes"][0].update(rol="backup"), "rol"),
        (lambda d: d["checks"][0].update(sense="=="), "sense"),
        (lambda d: d["checks"][0].update(value="high"), "checks.0.value"),
        (lambda d: d.update(version=2), "version 2"),
        (lambda d: d.pop("version"), "version None"),
        (lambda d: d.update(kind="planted"), "kind"),
        (lambda d: d.update(limits="none"), "limits"),
    ],
)
def test_a_truth_of_another_form_is_refused(change, message):
    data = json.loads(TRUTH.to_json())
    change(data)
    with pytest.raises(TruthMalformed, match=message):
        TrainedTruth.from_json(json.dumps(data))


def test_no_truth_at_all(tmp_path):
    for text, message in (("{", "not JSON"), ("[]", "not an object")):
        with pytest.raises(TruthMalformed, match=message):
            TrainedTruth.from_json(text)
    with pytest.raises(TruthMalformed, match=r"no truth\.json"):
        TrainedTruth.load(tmp_path)


def test_checks_hold_or_do_not():
    assert Check("a", 0.5, 0.5, ">=").holds
    assert Check("a", 0.5, 0.5, "<=").holds
    assert not Check("a", 0.4, 0.5, ">=").holds
    assert not Check("a", 0.6, 0.5, "<=").holds
    assert not Check("a", math.nan, 0.5, ">=").holds
    assert not Check("a", math.nan, 0.5, "<=").holds
    assert replace(TRUTH, checks=(*TRUTH.checks, Check("a", 1, 0, "<="))).failures == (Check("a", 1, 0, "<="),)
    with pytest.raises(ValueError, match="sense"):
        Check("a", 1, 0, ">")


def measure(model):
    """Does the answer need the MLPs? Measured, so that a damaged model fails."""
    text = "+ a 3 b 5 c 2 d 1 a"
    right = model.tokenizer.convert_tokens_to_ids("6")
    whole = model.run(text).logits[0, -1].argmax().item() == right
    broken = model.run(text, edits=at.layers[:].mlp.out.ablate("zero")).logits[0, -1].argmax().item() == right
    return Check("accuracy", float(whole), 0.95, ">="), Check("without the head", float(broken), 0.3, "<=")


TOY = TrainedRecipe("toy", "a toy", lambda *_: None, measure, minutes=0.1)


@pytest.fixture
def folder(tmp_path):
    shipped = recipe("recall")
    planted = plant(shipped.program(), disguise=shipped.disguise, measure=False)
    planted.save(tmp_path)
    TRUTH.save(tmp_path)
    return tmp_path


def test_a_truth_that_holds(folder):
    checks = verify_trained(folder, TOY)
    assert [(check.name, check.value) for check in checks] == [("accuracy", 1.0), ("without the head", 0.0)]


def test_a_damaged_model_fails(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors = {name: torch.zeros_like(t) if "mlp" in name else t for name, t in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ChecksFailed, match=r"truth of toy no longer holds: accuracy is 0, bar >= 0\.95") as caught:
        verify_trained(folder, TOY)
    assert len(caught.value.checks) == 2
    assert [check.name for check in caught.value.failed] == ["accuracy"]


MISSED = Check("speed", 0.4, 0.9, ">=", "a bar that it never reached")


def measured_with(value):
    return replace(TOY, verify=lambda model: (*measure(model), replace(MISSED, value=value)))


def test_a_bar_that_is_recorded_as_not_held_is_no_claim(folder):
    with pytest.raises(ChecksFailed, match=r"speed is 0\.4, bar >= 0\.9"):
        verify_trained(folder, measured_with(0.4))  # not recorded at all
    replace(TRUTH, checks=(*TRUTH.checks, replace(MISSED, value=0.95))).save(folder)
    with pytest.raises(ChecksFailed, match=r"speed is 0\.4, bar >= 0\.9"):
        verify_trained(folder, measured_with(0.4))  # recorded as held
    replace(TRUTH, checks=(*TRUTH.checks, MISSED)).save(folder)
    for value in (0.4, 0.1, 0.95):
        assert verify_trained(folder, measured_with(value))[-1] == replace(MISSED, value=value)
    with pytest.raises(ChecksFailed, match="speed is nan"):
        verify_trained(folder, TOY)  # what was missed has to be measured all the same


def test_what_was_missed_excuses_no_other_claim(folder):
    replace(TRUTH, checks=(*TRUTH.checks, MISSED)).save(folder)
    worse = replace(TOY, verify=lambda model: (replace(measure(model)[0], value=0.5), measure(model)[1], MISSED))
    with pytest.raises(ChecksFailed) as caught:
        verify_trained(folder, worse)
    assert [check.name for check in caught.value.failed] == ["accuracy"]
    assert "speed" not in str(caught.value)


def test_an_organism_of_which_nothing_holds_is_broken_whatever_was_recorded(folder):
    replace(TRUTH, checks=(MISSED,)).save(folder)
    with pytest.raises(ChecksFailed, match="not one bar is held"):
        verify_trained(folder, replace(TOY, verify=lambda model: (MISSED,)))


def test_a_claim_cannot_be_dropped_in_silence(folder):
    less = replace(TOY, verify=lambda model: measure(model)[:1])
    with pytest.raises(ChecksFailed, match="without the head is nan"):
        verify_trained(folder, less)
    replace(TRUTH, checks=()).save(folder)
    with pytest.raises(ChecksFailed, match="nothing was measured"):
        verify_trained(folder, replace(TOY, verify=lambda model: ()))


def test_recipes_are_found_by_name():
    with pytest.raises(TruthMalformed, match="no recipe for 'no-such'"):
        recipe_of("no-such")


SHIPPED = [found for found in entries() if found.kind == "trained" and found.folder is not None]


@pytest.mark.parametrize("found", SHIPPED, ids=lambda found: found.name)
def test_what_a_shipped_organism_never_reached_stands_in_its_card(found):
    truth, card = TrainedTruth.load(found.folder), (found.folder / "card.md").read_text()
    assert any(check.holds for check in truth.checks)
    for check in truth.failures:
        assert f"| {check.name} | {check.value:.3f} | {check.sense} {check.bar:g} |" in card
