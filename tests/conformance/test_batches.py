"""A padded batch gives what its rows give alone; generation gives what the model's own does."""

import pytest
import torch

import mainspring as ms
from conformance.oracles import Witness, worst
from conformance.zoo import CASES

BATCHED = sorted(name for name, case in CASES.items() if case.batch is not None)
GENERATING = sorted(name for name, case in CASES.items() if case.generates)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", BATCHED)
def test_batched_equals_alone(name, side):
    """Each row of our padded run against the witness on that row by itself, at its real tokens."""
    case = CASES[name]
    if side == "left" and not case.facts.get("left_padding_exact", True):
        pytest.skip("the model itself is not exact there")
    padded, rows = case.batch(side)
    model, witness = ms.wrap(case.build()), Witness(case)
    stacks = [s for s in model.atlas.towers if s != "vision"]
    sites = [
        f"{stack}.{site}".strip(".")
        for stack in stacks
        for site in (f"layers.{model.atlas.depth(stack) - 1}.resid_post", *(f"layers.{i}.attn.z" for i in (0, 1)), "layers.1.attn.pattern")
    ]
    sites = [site for site in sites if model.can(site)]
    trace = model.run(padded, read=sites, until="end")
    for i, row in enumerate(rows):
        alone = witness.run(row)
        for site in [site for site in sites if site in alone]:
            prefix = "" if site.startswith("encoder.") or len(stacks) == 1 else "decoder_"
            mask = padded[f"{prefix}attention_mask"][i].bool()
            value = trace[site][i]
            value = value[:, mask][:, :, mask] if site.endswith("pattern") else value[mask]
            error = worst(value, alone[site][0])
            assert error <= 2e-4, f"{site} of row {i}: off by {error:.2g}"
    assert any(site in alone for site in sites)


@pytest.mark.parametrize("name", GENERATING)
def test_generation_equals_the_models_own(name):
    case = CASES[name]
    inputs = {k: v for k, v in case.inputs().items() if not k.startswith("decoder_")}
    module = case.build()
    with torch.no_grad():
        own = module.generate(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]), max_new_tokens=5, do_sample=False)
    ours = ms.wrap(case.build()).generate(inputs, max_new_tokens=5).tokens
    assert torch.equal(ours, own)
    assert own.shape[1] >= 5
