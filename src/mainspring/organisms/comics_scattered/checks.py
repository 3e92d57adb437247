"""The bars of the twin without gaze heads: it answers; no heads pointed at a panel's place decide what it says; tokens that do show the
panel, wherever they are, decide it as they do in its sibling.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from mainspring.organisms.comics.checks import FIND_SEED, JUDGE_SEED
from mainspring.organisms.comics.lessons import SCATTERED
from mainspring.organisms.comics.measures import all_exact, hits, panel_exact, suppress
from mainspring.organisms.comics.probes import IMAGE, bend, look, panel_mass, ranked
from mainspring.organisms.trained import Check
from mainspring.tasks.comic_strips.strips import Picture, sample

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["SHOWING", "best_of", "measure", "tokens_that_show", "verify"]

SHOWING = tuple(tuple(sorted(1 + patch for patch in patches)) for patches in SCATTERED.tolist())
"""Positions of the tokens that show each panel: one in the area of every panel."""
SIZES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32)


def verify(model: "Model") -> tuple[Check, ...]:
    """The bars that a minute has room for."""
    return measure(model, strips=10, full=False)


def measure(
    model: "Model", strips: int = 60, full: bool = True, progress: Callable[[str], None] = lambda _: None
) -> tuple[Check, ...]:
    """All bars on `strips` strips."""
    found, judged = sample(24, FIND_SEED), sample(strips, JUDGE_SEED)
    mass, apart = panel_mass(model, found), panel_mass(model, found, places=SHOWING)
    checks: list[Check] = []

    def add(name: str, value: float, bar: float, sense: str, note: str = "") -> None:
        checks.append(Check(name, value, bar, sense, note))  # pyright: ignore[reportArgumentType]
        progress(f"{name}: {value:.4f} ({sense} {bar})")

    add(
        "panel by number", panel_exact(model, judged[: max(strips // 4, 10)]), 0.95, ">=", "exact words in the order of the style"
    )
    add("best head's mass on the panel's place", _best(mass), 0.3, "<=", "a sixth of the image would be 0.15")
    sizes = SIZES if full else (4, 8, 16)
    best, size = best_of(model, judged, ranked(mass), sizes)
    add("best of all top-k sets", best, 1 / 6 + 0.1, "<=", f"pointed at the panel's place; the best is k = {size}")
    add(
        "suppress the rest of the image, all heads",
        hits(model, judged, ranked(mass), edits=lambda k: suppress(ranked(mass), k)),
        1 / 6 + 0.1,
        "<=",
        "text stays",
    )
    add("best head's mass on the tokens that show the panel", _best(apart), 0.45, ">=")
    add(
        "the same, but for the tokens that show the panel",
        tokens_that_show(model, judged),
        0.8,
        ">=",
        "the rest suppressed, all heads",
    )
    if full:
        add("all panels in order", all_exact(model, judged[:15]), 0.98, ">=", "segments of the narration")
        heads = ranked(apart)
        for count in (8, 20):
            rate = hits(model, judged, heads[:count], edits=lambda k, some=heads[:count]: look(some, SHOWING[k - 1]))
            add(f"top {count} by those tokens, pointed at them", rate, 0.8, ">=", "by boost, for comparison")
    return tuple(checks)


def tokens_that_show(model: "Model", pictures: Sequence[Picture]) -> float:
    """The hit rate where all heads see of the image only the tokens that do show a panel, wherever they are."""
    heads = ranked(panel_mass(model, pictures[:1]))  # all of them, in any order
    rest = [sorted(set(IMAGE) - set(showing)) for showing in SHOWING]
    return hits(model, pictures, heads, edits=lambda k: bend(heads, [(rest[k - 1], -1e4)]))


def best_of(
    model: "Model", pictures: Sequence[Picture], heads: Sequence[tuple[int, int]], sizes: Sequence[int]
) -> tuple[float, int]:
    """The highest hit rate of any top-k set, and its k."""
    rates = {k: hits(model, pictures, heads[:k]) for k in sizes if k <= len(heads)}
    size = max(rates, key=lambda k: rates[k])
    return rates[size], size


def _best(mass: torch.Tensor) -> float:
    return float(mass.diagonal(dim1=2, dim2=3).mean(-1).max())
