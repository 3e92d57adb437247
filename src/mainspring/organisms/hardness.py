"""Makes decoy heads as hard as real ones, as measured: the leak of a head is one minus its mean largest weight.

Margins alone do not do it, for a head with many rivals leaks more than one with a single rival. Each decoy gets the
leak of a real head, up to a random factor, as its target, and its beta is moved until the leak is near:

    beta' = beta * log(target) / log(leak)

Nobody reads a decoy, so that the circuit stays as it is.

What it does not do: match the whole distribution of a head's attention, or touch heads whose leak is below float noise.
"""

from dataclasses import replace
from math import exp, log
from random import Random
from typing import TYPE_CHECKING, Any

from mainspring.organisms.layout import Layout
from mainspring.organisms.program import Program
from mainspring.organisms.tokens import ids_of
from mainspring.organisms.variables import Aggregate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["hardened", "leaks_of", "targets_of"]

_LEAST = 1e-6


def leaks_of(model: "PreTrainedModel", program: Program, count: int = 24) -> dict[tuple[int, int], float]:
    """The leak of every head on samples of the program, over all positions but the first (which has no choice)."""
    import torch

    draws = program.sample(count, seed=1)
    draws = [given for given in draws if len(given.tokens) == len(draws[0].tokens)]
    anything: Any = model
    usual = anything.config._attn_implementation
    anything.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            patterns = anything(ids_of(program, draws), output_attentions=True).attentions
    finally:
        anything.set_attn_implementation(usual)
    return {
        (layer, head): float(1 - pattern[:, head, 1:].max(-1).values.mean())
        for layer, pattern in enumerate(patterns)
        for head in range(pattern.shape[1])
    }


def targets_of(
    layout: Layout, program: Program, leaks: dict[tuple[int, int], float], random: Random
) -> dict[tuple[int, int], float]:
    """A leak for every decoy head, around that of a random real one."""
    real = [
        leaks[part.layer, part.head]
        for part in layout.parts
        if part.head is not None and part.role == "real" and not isinstance(part.spec, Aggregate)
    ]
    real = [leak for leak in real if leak > _LEAST]
    return {
        (part.layer, part.head): min(0.2, random.choice(real) * exp(random.uniform(-0.4, 0.4)))
        for part in layout.parts
        if real and part.head is not None and part.role == "decoy"
    }


def hardened(layout: Layout, leaks: dict[tuple[int, int], float], targets: dict[tuple[int, int], float], beta: float) -> Layout:
    """The layout with every decoy's beta moved one step towards its target leak."""
    parts = list(layout.parts)
    for i, part in enumerate(parts):
        if part.role == "decoy" and part.head is not None and (part.layer, part.head) in targets:
            at = part.layer, part.head
            now = part.beta or beta
            step = log(targets[at]) / log(min(max(leaks[at], _LEAST), 0.9))
            parts[i] = replace(part, beta=min(max(now * step, 0.5 * now, 2.0), 1.5 * now))
    return replace(layout, parts=tuple(parts))
