"""What every experiment needs: a model, an input, the sites that a run reaches, and how its rows are told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mainspring.engine.places import Place
from mainspring.models.report import Row
from mainspring.sites import Site
from mainspring.trace import Trace

__all__ = ["Bench", "Found", "answer", "by_layer", "problem_of"]

Found = tuple[float, str]
"""The error at a site, and a complaint where it is not only a matter of size."""


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, an input, the sites that a run on it reaches, and the tolerance of the model's dtype."""

    model: Any
    inputs: Mapping[str, Any]
    places: Mapping[Site, Place]
    refusals: Mapping[Site, str]
    tol: float
    seed: int = 0

    def run(self, **options: Any) -> Trace:
        options.setdefault("until", "end")
        return self.model.run(dict(self.inputs), **options)

    @cached_property
    def kinds(self) -> frozenset[tuple[str, int | None]]:
        """One layer of each kind (by its sites and its window) in each stack, and the top of each stack."""
        found: dict[Any, tuple[str, int | None]] = {}
        for stack, tower in self.model.atlas.towers.items():
            found[stack] = (stack, None)
            for index, layer in enumerate(tower.layers):
                sites = tuple(s.name for s in self.places if (s.stack, s.layers) == (stack, index))
                window = getattr(getattr(layer, "self_attn", None), "sliding_window", None)
                found.setdefault((stack, sites, window), (stack, index))
        return frozenset(found.values())

    def sampled(self, last: bool = True) -> list[Site]:
        """The sites of one layer of each kind, and of the `last` layer of each stack too."""
        chosen = set(self.kinds)
        if last:
            chosen |= {(stack, len(tower.layers) - 1) for stack, tower in self.model.atlas.towers.items()}
        return [site for site in self.places if (site.stack, site.layers) in chosen]

    def noise(self, like: Tensor) -> Tensor:
        """Random numbers of the size of `like`."""
        drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(self.seed)).to(like)
        finite = torch.where(torch.isfinite(like), like, torch.zeros_like(like))
        return drawn * finite.float().square().mean().sqrt().clamp(min=1e-3).to(like.dtype)


def answer(trace: Trace) -> Tensor:
    """What the run computes: logits, or the first floating tensor of its output."""
    output = trace.output
    for name in ("logits", "last_hidden_state", "logits_per_image"):
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else (output,)
    return next(x for x in parts if isinstance(x, Tensor) and x.is_floating_point())


def _name(site: Site) -> str:
    return f"{site.stack} {site.layers}".strip() if site.layers is not None else site.stack


def by_layer(invariant: str, found: Mapping[Site, Found], tol: float) -> Iterator[Row]:
    """One row a layer, from (error, complaint) by site."""
    layers: dict[str, list[tuple[Site, float, str]]] = {}
    for site, (error, complaint) in found.items():
        layers.setdefault(_name(site), []).append((site, error, complaint))
    for layer, entries in layers.items():
        bad = [f"{s.name}{': ' + c if c else ''}" for s, e, c in entries if c or not e <= tol]
        largest = max((e for _, e, _ in entries if e == e), default=None)
        yield Row(invariant, layer, "failed" if bad else "ok", largest, "; ".join(bad))


def problem_of(error: Exception) -> Found:
    """An experiment that raised, as a complaint."""
    return float("inf"), f"{type(error).__name__}: {error}".splitlines()[0]
