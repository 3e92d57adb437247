"""Gradients at sites: against autograd by hand through plain hooks, and against finite differences, on a float64 copy."""

import pytest
import torch

import mainspring as ms
from conformance.oracles import Witness, worst
from conformance.zoo import CASES
from mainspring.sites import parse_site

NAMES = (
    "resid_pre", "resid_post", "attn.q", "attn.k", "attn.v", "attn.pattern", "attn.z", "attn.out", "mlp.post", "mlp.out", "ssm.y",
    "ssm.out", "cross.v", "cross.z",
)  # fmt: skip


def setting(name):
    """The case in float64, where torch can: it multiplies by experts in float32 at most."""
    case = CASES[name]
    dtype = torch.float32 if case.facts.get("experts") else torch.float64
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in case.inputs().items()}
    return case, Witness(case, dtype), ms.wrap(case.build().to(dtype)), inputs, dtype


def ours(trace):
    found = (getattr(trace.output, key, None) for key in ("logits", "last_hidden_state", "logits_per_image"))
    return next(x for x in found if isinstance(x, torch.Tensor))


def weights(like):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(3)).to(like.dtype)


@pytest.mark.parametrize("name", sorted(CASES))
def test_gradients_equal_autograd_by_hand(name):
    case, witness, model, inputs, dtype = setting(name)
    witness.run(inputs, grad=True)
    values = witness.passed
    metric = (witness.answer() * weights(witness.answer())).sum()
    sites = [s for s in witness.values if s in values and values[s].requires_grad and witness.visits[s] == 1]
    sites = [s for s in sites if parse_site(s).name in NAMES and model.can(s, "grad")]
    if not case.facts["registry"]:
        sites = [s for s in sites if parse_site(s).name not in ("attn.q", "attn.k", "attn.v", "attn.pattern")]
    expected = dict(zip(sites, torch.autograd.grad(metric, [values[s] for s in sites], allow_unused=True), strict=True))
    trace = model.run(inputs, read=sites, grad_of=lambda t: (ours(t) * weights(ours(t))).sum())
    tol, zero = (1e-4 if dtype == torch.float64 else 5e-3), 0
    for site in sites:
        want = torch.zeros_like(values[site]) if expected[site] is None else expected[site]
        got = trace.grad[site]
        if not want.any():
            zero += 1
            assert not got.any(), f"{site} should have no gradient"
            continue
        error = worst(got.reshape(want.shape).flatten()[None], want.flatten()[None])
        assert error <= tol, f"{site}: off by {error:.2g}"
    assert len(sites) - zero >= 5
    assert all(p.grad is None for p in model.module.parameters())


@pytest.mark.parametrize("name", sorted(n for n, c in CASES.items() if not c.facts.get("experts")))
def test_gradients_equal_finite_differences(name):
    """The slope is measured by plain hooks that move a layer's output; norms that compute in float32 limit its precision."""
    _, witness, model, inputs, _ = setting(name)
    site = "layers.0.resid_post"
    value = witness.run(inputs)[site].clone()
    weight = weights(witness.answer())
    trace = model.run(inputs, read=site, grad_of=lambda t: (ours(t) * weight).sum())
    gradient = trace.grad[site]
    direction = gradient / gradient.norm() + weights(value) / weights(value).norm()
    expected, best = float((gradient * direction).sum()), float("inf")
    for step in (1e-4, 1e-3):
        shift = direction * step * value.norm()
        ends = []
        for sign in (1, -1):
            witness.run(inputs, {site: lambda v, sign=sign, shift=shift: v + sign * shift})
            ends.append(float((witness.answer() * weight).sum()))
        best = min(best, abs((ends[0] - ends[1]) / float(2 * step * value.norm()) - expected) / abs(expected))
    assert best <= 1e-2
