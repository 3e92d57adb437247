"""A padded batch gives what its rows give alone; generation gives what the model's own does."""

import pytest
import torch

import mainspring as ms
from conformance.oracles import Witness, worst
from conformance.zoo import CASES

BATCHED = [
    (name, side)
    for name, case in sorted(CASES.items())
    for side in ("left", "right")
    # one reference is not exact under left padding itself
    if case.batch is not None and (side == "right" or case.facts.get("left_padding_exact", True))
]
GENERATING = sorted(name for name, case in CASES.items() if case.generates)


@pytest.mark.parametrize(("name", "side"), BATCHED)
def test_batched_equals_alone(name, side):
    """Each row of our padded run against the witness on that row by itself, at its real tokens."""
    case = CASES[name]
    padded, rows = case.batch(side)
    model, witness = ms.wrap(case.build()), Witness(case)
    stacks = [s for s in model.atlas.towers if s != "vision"]
    sites = []
    for stack in stacks:
        names = ("layers.-1.resid_post", "layers.0.attn.z", "layers.1.attn.z", "layers.1.attn.pattern")
        sites += [f"{stack}.{name}".strip(".").replace("-1", str(model.atlas.depth(stack) - 1)) for name in names]
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
