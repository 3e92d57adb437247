"""The inside of state-space mixers, against a recurrence written out one token at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from conformance.zoo import CASES
from models.map_algebra import Bench, close, noise_like

FIRST = ["mamba", "mamba-bias", "jamba"]
SECOND = ["mamba2", "bamba", "falcon-h1"]
SITES = ("in", "gate", "conv", "dt", "B", "C", "y", "out", "add")


@pytest.fixture(scope="module", params=FIRST + SECOND)
def case(request: pytest.FixtureRequest) -> Bench:
    torch.set_num_threads(1)
    return Bench(request.param)


def mixer_of(case: Bench, layer: int = 0) -> Any:
    found = case.layer(layer)
    return getattr(found, "mixer", None) or found.mamba


def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """x, dt [b, p, channel]; a, b, c [.., channel, state]: h = exp(dt a) h + dt b x, y = c h + d x."""
    state, out = torch.zeros_like(b[:, 0]), []
    for t in range(x.shape[1]):
        state = torch.exp(dt[:, t, :, None] * a) * state + dt[:, t, :, None] * b[:, t] * x[:, t, :, None]
        out.append((state * c[:, t]).sum(dim=-1) + d * x[:, t])
    return torch.stack(out, dim=1)


def expected_y(case: Bench, mixer: Any, given: dict[str, Tensor]) -> Tensor:
    """The output projection's input from the sites before it."""
    x, gate, dt, b, c = (given[n] for n in ("conv", "gate", "dt", "B", "C"))
    a = -torch.exp(mixer.A_log)
    if case.name in FIRST:
        steps = functional.softplus(dt + mixer.dt_proj.bias)
        wide = [s[:, :, None].expand(*s.shape[:2], x.shape[2], s.shape[2]) for s in (b, c)]
        return scan(x, steps, a, *wide, mixer.D) * functional.silu(gate)
    multipliers = CASES[case.name].facts.get("multipliers")
    gate_by, dt_by = (multipliers["ssm_multipliers"][0], multipliers["ssm_multipliers"][4]) if multipliers else (1, 1)
    steps = functional.softplus(dt * dt_by + mixer.dt_bias)
    steps, a, d = (v.repeat_interleave(mixer.head_dim, dim=-1) for v in (steps, a, mixer.D))
    groups = [s.unflatten(-1, (mixer.n_groups, -1)).repeat_interleave(x.shape[2] // mixer.n_groups, dim=2) for s in (b, c)]
    mixed = scan(x, steps, a[:, None], *groups, d)
    gated = (mixed * functional.silu(gate * gate_by)).unflatten(-1, (mixer.n_groups, -1))
    normed = gated * torch.rsqrt(gated.pow(2).mean(-1, keepdim=True) + mixer.norm.variance_epsilon)
    return mixer.norm.weight * normed.flatten(-2)


def values(case: Bench, edits: Any = ()) -> dict[str, Tensor]:
    sites = {n: case.site(f"ssm.{n}", 0) for n in SITES}
    trace = case.run(list(sites.values()), edits)
    return {n: trace[s] for n, s in sites.items()}


@torch.no_grad()
def test_convolution_of_the_input(case: Bench):
    mixer, given = mixer_of(case), values(case)
    weight, bias = mixer.conv1d.weight, mixer.conv1d.bias
    padded = functional.pad(given["in"].mT, (weight.shape[-1] - 1, 0))
    channels = given["in"].shape[-1]
    multipliers = CASES[case.name].facts.get("multipliers")
    padded = padded * multipliers["ssm_multipliers"][1] if multipliers else padded
    out = functional.silu(functional.conv1d(padded, weight[:channels], bias[:channels], groups=channels)).mT
    close(given["conv"], out)


@torch.no_grad()
def test_scan(case: Bench):
    mixer, given = mixer_of(case), values(case)
    close(expected_y(case, mixer, given), given["y"], 1e-4)
    close(mixer.out_proj(given["y"]), given["out"])
    scale = (CASES[case.name].facts.get("multipliers") or {}).get("ssm_out_multiplier", 1.0)
    close(given["out"] * scale, given["add"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["gate", "conv", "dt", "B", "C"])
def test_the_scan_takes_what_is_written(case: Bench, name: str):
    before, site = values(case), case.site(f"ssm.{name}", 0)
    new = noise_like(before[name], 7)
    after = values(case, [site.set(new)])
    assert torch.equal(after[name], new)
    assert (after["y"] - before["y"]).abs().max() > 1e-2
    close(expected_y(case, mixer_of(case), after), after["y"], 1e-4)
    own = {"conv": ("gate",) if case.name in FIRST else ("gate", "dt", "B", "C")}.get(name, ("gate", "conv"))
    for other in own:  # what does not come after it stays as it was
        if other != name:
            assert torch.equal(after[other], before[other]), other


@torch.no_grad()
def test_a_channel_of_the_state_space_has_a_known_size(case: Bench):
    from mainspring.errors import SelectorError

    for name, axis in (("in", "channel"), ("dt", "channel"), ("B", "state")):
        site, size = case.site(f"ssm.{name}", 0), values(case)[name].shape[-1]
        assert case.run([site(**{axis: size - 1})]) is not None
        if case.name in FIRST and name == "dt":
            continue  # its size is known in the run only
        with pytest.raises(SelectorError, match="out of range"):
            case.run([site(**{axis: size})])
