"""The untrained Mamba twin of the facts organism: a stock Mamba whose early layers keep and whose late layers carry.

    early   a convolution over few tokens and a gate, no scan:    y = D x silu(gate)             `x_proj` is zero
    late    a scan and a constant gate, no convolution, no skip:  y = scan(x) silu(c)            `D` and the gate's weights are zero

with x = silu(conv(in)). So layers 0 and 1 are gated MLPs, the first over a token and the one before it; layers 2 and 3 move between
tokens what one layer of neurons says of each. What is left out is there in the architecture; it is zero, and stays zero in training.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.organisms.facts.build import orthonormal_rows
from mainspring.tasks.facts import WORDS

if TYPE_CHECKING:
    from transformers import MambaForCausalLM

__all__ = ["EARLY", "LATE", "build_model"]

EARLY, LATE = (0, 1), (2, 3)
REACH = {0: 2}
"""How many tokens a layer's convolution sees, if more than the one it stands at."""


def build_model(seed: int, *, width: int = 128, state: int = 16) -> "MambaForCausalLM":
    """Random weights of one seed; the global random state is left as it was."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        state_size=state,
        num_hidden_layers=len(EARLY + LATE),
        use_bias=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MambaForCausalLM(config)
        orthonormal_rows(model, width, len(WORDS))
        for layer, block in enumerate(model.backbone.layers):
            _restrict(block.mixer, layer)
    return model


def _restrict(mixer: Any, layer: int) -> None:
    taps, inner = mixer.conv1d.weight, mixer.intermediate_size
    torch.nn.init.normal_(taps, 0, 0.5)
    near = torch.zeros_like(taps)
    near[..., -REACH.get(layer, 1) :] = 1
    _keep_zero(taps, near)
    if layer in EARLY:
        _keep_zero(mixer.x_proj.weight)
        return
    gate = torch.ones_like(mixer.in_proj.weight)
    gate[inner:] = 0
    _keep_zero(mixer.in_proj.weight, gate)
    torch.nn.init.ones_(mixer.in_proj.bias[inner:])
    _keep_zero(mixer.D)


def _keep_zero(parameter: Tensor, free: Tensor | None = None) -> None:
    """Only the entries where `free` is 1 are learned; the others are zero."""
    with torch.no_grad():
        parameter.mul_(0 if free is None else free)
    if free is None:
        parameter.requires_grad_(False)
    else:
        parameter.register_hook(lambda gradient: gradient * free.to(gradient.device))
