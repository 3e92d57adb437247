"""A direction, from two texts or one that is known, added to the residual stream behind a layer while the model writes.

    direction = mean over texts "plus" - mean over texts "minus" of resid_post[layer] at the last token
              or one of `figures.directions`
    resid_post[layer] at every token  +  strength * direction

Off-target: KL(untouched || steered) of the next token, in nats, averaged over texts that have nothing to do with it. Strength 1 adds the
whole difference. What it does not do: make the two texts differ in one thing only; choose pairs that do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mainspring.edits import Edit
from mainspring.errors import InputError
from mainspring.measure.metrics import kl_divergence
from mainspring.sites import at
from mainspring.views.specs import BarsView
from mainspring.workbench.figures.directions import Direction
from mainspring.workbench.figures.look import tokens_of

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["add_direction", "direction_between", "fitted", "off_target", "off_target_view", "state_norm"]


def direction_between(model: "Model", plus: Sequence[str], minus: Sequence[str], layer: int) -> Tensor:
    """[d] the mean difference behind a layer at the last token."""
    means = []
    for texts in (plus, minus):
        if not texts:
            raise InputError("a direction needs at least one text on either side")
        for text in texts:
            tokens_of(model, text)
        site = at.layers[layer].resid_post(pos=-1)
        means.append(model.run(list(texts), read=site)[site].float().mean(0))
    found = means[0] - means[1]
    if not float(found.norm()) > 0:
        raise InputError("both sides look the same behind this layer, so they give no direction")
    return found


def add_direction(direction: Tensor, layer: int, strength: float) -> Edit:
    """The edit."""
    return at.layers[layer].resid_post.add(strength * direction)


def state_norm(model: "Model", text: str, layer: int) -> float:
    """The mean length of the states behind a layer at the tokens of a text: what a direction is added to."""
    tokens_of(model, text)
    site = at.layers[layer].resid_post
    return float(model.run(text, read=site)[site].float().norm(dim=-1).mean())


def fitted(model: "Model", direction: Direction, layer: int) -> Tensor:
    """The vector of a direction, which has to be as long as the states behind a layer."""
    width = model.atlas.place(at.layers[layer].resid_post).sizes.get("dim")
    if direction.vector.shape[-1] != width:
        have = direction.vector.shape[-1]
        raise InputError(f"the direction {direction.name!r} has {have} entries; the states of this model have {width}")
    if not bool(torch.isfinite(direction.vector).all()):
        raise InputError(f"the direction {direction.name!r} has entries that are NaN or infinite")
    return direction.vector.to(model.device)


def off_target(model: "Model", edit: Edit, texts: Sequence[str]) -> list[float]:
    """For each text how far the edit moves its next token, in nats."""
    found = []
    for text in texts:
        tokens_of(model, text)
        plain = model.run(text, read=at.logits(pos=-1), until="end")
        metric = kl_divergence(plain)
        found.append(max(0.0, float(metric(model.run(text, edits=edit, read=metric.sites, until="end"))[0])))
    return found


def off_target_view(model: "Model", edit: Edit, texts: Sequence[str]) -> BarsView:
    """The same as bars."""
    values = off_target(model, edit, texts)
    return BarsView(names=tuple(texts), values=tuple(values), title="Off target: how far other texts move", y_title="KL, nats")
