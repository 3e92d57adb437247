"""What is said when a role's token holds what the same role's token holds in another story.

Two stories are told alike but need not stand word under word: a role finds its token in each. A site is given without its position.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mainspring.edits import Edits
from mainspring.sites import at
from mainspring.tasks.stories import Stories

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["Pair", "accuracy", "by_layer", "said", "shares"]


@dataclass(frozen=True, eq=False)
class Pair:
    """Base and source stories, row by row, and the answers that rival explanations give for an exchange, by name: [row] tokens."""

    base: Stories
    source: Stories
    answers: Mapping[str, Tensor]


def said(model: "Model", given: Stories, edits: Any = None) -> Tensor:
    """[row] the token that the model answers with."""
    last = at.logits(pos=-1)
    return model.run(given.prompt, edits=edits, read=last)[last].argmax(-1).cpu()


def accuracy(model: "Model", given: Stories, edits: Any = None) -> float:
    """The share of stories that are answered right."""
    return float((said(model, given, edits) == given.answer).float().mean())


def shares(model: "Model", pair: Pair, places: Sequence[tuple[Any, str]]) -> dict[str, float]:
    """How often each of the pair's answers is said when these sites, each at its role, hold what they hold in the source story."""
    reads = [site(pos=pair.source.places[role]) for site, role in places]
    source = model.run(pair.source.prompt, read=reads)
    edits = Edits(site(pos=pair.base.places[role]).set(source[read]) for (site, role), read in zip(places, reads, strict=True))
    answer = said(model, pair.base, edits)
    return {name: float((answer == wanted).float().mean()) for name, wanted in pair.answers.items()}


def by_layer(model: "Model", pair: Pair, roles: Sequence[str]) -> str:
    """A table for the card: what the residual stream behind every layer carries at each role."""
    names = list(pair.answers)
    head = [f"{role}: {name}" for role in roles for name in names]
    lines = ["| behind | " + " | ".join(head) + " |", "| --- |" + " --- |" * len(head)]
    for layer in range(-1, model.n_layers):
        site = at.embed if layer < 0 else at.layers[layer].resid_post
        rows = [shares(model, pair, [(site, role)]) for role in roles]
        cells = " | ".join(f"{row[name]:.2f}" for row in rows for name in names)
        lines.append(f"| {'the embedding' if layer < 0 else f'layer {layer}'} | {cells} |")
    return "\n".join(lines)
