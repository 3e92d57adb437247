"""Mamba and Mamba-2: layers of one state-space mixer, without attention and without an MLP.

The tables of the mixers serve the hybrids too. The sites, in the order of the computation: `ssm.in` and `ssm.gate` are parts of
the input projection; `ssm.conv` is what the scan reads, after convolution and activation; `ssm.dt` is the step size before its
bias and softplus; `ssm.B` and `ssm.C` are what the scan takes; `ssm.y` is what the output projection reads: the scan, gated and,
in Mamba-2, normed. Channels of `ssm.dt` are the heads in Mamba-2, and `ssm.B` and `ssm.C` hold its groups one after another.
"""

from typing import Any

from mainspring.engine.forms import HeadsFirst
from mainspring.models.maps import (
    Entry,
    Map,
    Stack,
    Table,
    half,
    into,
    outof,
    refused,
    stretch,
    within,
)
from mainspring.vocabulary import LAYER_SITES

NO_ATTENTION = refused(
    "this layer mixes tokens with a state-space model, not with attention", *(n for n in LAYER_SITES if n.startswith("attn."))
)


def mixer(path: str, rank: str, state: str, add: Entry | None = None) -> Table:
    """A Mamba mixer. `rank` and `state` name the widths of the step size's bottleneck and of the state in the configuration."""

    def part(index: int) -> Any:
        def place(config: Any) -> tuple[int, int]:
            start = int(getattr(config, rank)) + index * getattr(config, state)
            return start, start + getattr(config, state)

        return stretch(place)

    return {
        "ssm.in": outof(f"{path}.in_proj", form=half(0)),
        "ssm.gate": outof(f"{path}.in_proj", form=half(1)),
        "ssm.conv": into(f"{path}.x_proj", shared=True),
        # the module multiplies by the weight of dt_proj without calling it: [b, channel, p]
        "ssm.dt": within(path, "product", form=lambda dims, module, config: HeadsFirst()),
        "ssm.B": outof(f"{path}.x_proj", form=part(0)),
        "ssm.C": outof(f"{path}.x_proj", form=part(1)),
        "ssm.y": into(f"{path}.out_proj"),
        "ssm.out": outof(path),
        "ssm.add": add or "ssm.out",
    }


def grouped_mixer(path: str, add: Entry | None = None) -> Table:
    """A Mamba-2 mixer: one input projection to gate, [x, B, C] and dt; x, B and C go through the convolution together."""

    def part(start: str, stop: str) -> Any:
        return stretch(lambda config: (_edges(config)[start], _edges(config)[stop]))

    return {
        "ssm.gate": outof(f"{path}.in_proj", form=part("gate", "x")),
        "ssm.in": outof(f"{path}.in_proj", form=part("x", "B")),
        "ssm.dt": outof(f"{path}.in_proj", form=part("dt", "end")),
        "ssm.conv": within(path, "split", form=part("conv x", "conv B")),
        "ssm.B": within(path, "split", form=part("conv B", "conv C")),
        "ssm.C": within(path, "split", form=part("conv C", "conv end")),
        "ssm.y": into(f"{path}.out_proj"),
        "ssm.out": outof(path),
        "ssm.add": add or "ssm.out",
    }


def _edges(config: Any) -> dict[str, int]:
    """Where the parts of the input projection and of the convolution's output begin."""
    if hasattr(config, "mamba_n_heads"):
        heads, groups, state = config.mamba_n_heads, config.mamba_n_groups, config.mamba_d_state
        inner = heads * config.mamba_d_head
    else:
        heads, groups, state = config.num_heads, config.n_groups, config.state_size
        inner = int(config.expand * config.hidden_size)
    shared = groups * state
    conv = {"conv x": 0, "conv B": inner, "conv C": inner + shared, "conv end": inner + 2 * shared}
    return {"gate": 0, "x": inner, "B": 2 * inner, "dt": 2 * inner + 2 * shared, "end": 2 * inner + 2 * shared + heads} | conv


ONE_MIXER = "a layer of this architecture is one state-space mixer and no MLP"

LAYER = {
    "resid_pre": into(""),
    "resid_post": outof(""),
    **NO_ATTENTION,
    **refused(ONE_MIXER, "resid_mid", *(n for n in LAYER_SITES if n.startswith("mlp."))),
}

NOTES = "resid_pre + ssm.add is resid_post."


def _map(family: str, table: Table) -> Map:
    return Map(family, (family,), Stack("layers", (LAYER, table), final_norm="norm_f"), trunk=("backbone", ""), notes=NOTES)


MAPS = (_map("mamba", mixer("mixer", "time_step_rank", "state_size")), _map("mamba2", grouped_mixer("mixer")))
