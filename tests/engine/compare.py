"""Our runs beside the oracle's."""

import torch

from engine.plain import Plain

__all__ = ["agree", "close", "touch"]


def close(a, b, tol=1e-4):
    """Equal up to `tol` of the largest entry; infinite in the same places."""
    assert a.shape == b.shape, f"{tuple(a.shape)} is not {tuple(b.shape)}"
    finite = torch.isfinite(b)
    assert torch.equal(finite, torch.isfinite(a))
    scale = max(1.0, float(b[finite].abs().max()))
    torch.testing.assert_close(a[finite], b[finite], atol=tol * scale, rtol=tol)


def agree(model, edits, functions, inputs, moved=True):
    """One run of ours and of the oracle: same logits, same value at every edited site. `moved`: the edit must matter."""
    oracle = Plain(model.module, model.family)
    plain = oracle.run(inputs)
    expected = oracle.run(inputs, functions)
    trace = model.run(inputs, edits=edits, read=list(functions), until="end")
    close(trace.logits, expected)
    for site in functions:
        close(trace[site], oracle.values[site])
    if moved:
        assert (expected - plain).abs().max() > 1e-3, "the edit changed nothing, so the comparison would prove nothing"
    return trace


def touch(value, index, fn):
    """A copy of `value` in which `index` went through fn."""
    out = value.clone()
    out[index] = fn(value[index])
    return out
