"""Grids of edit sets: one edit at every place of a site, with the axes kept for the picture."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from mainspring.edits import Edit, Edits
from mainspring.errors import InputError, SelectorError
from mainspring.sites import Site

__all__ = ["Grid", "grid"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Edit sets in row-major order of `labels`: (axis, its values) pairs."""

    cells: tuple[Edits, ...]
    labels: tuple[tuple[str, tuple[Any, ...]], ...]

    def __iter__(self) -> Iterator[Edits]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


def grid(site: Site, edit: Callable[[Site], Edit], *, layers: int | None = None, **axes: Any) -> Grid:
    """One edit set for every layer that `site` names and every value of the given selectors.

    Args:
        site: a site, with a wildcard or slice over layers for a layer axis.
        edit: makes the edit at one place, as `lambda s: s.patch(clean)`.
        layers: how many layers the model has; needed for a wildcard.
        axes: selectors and what they run over: a number (0 up to it) or a sequence of indices or spans.
    """
    if not site.is_single and layers is None:
        raise InputError(f"{site} runs over layers; say how many the model has (layers=model.n_layers)")
    singles = site.expand(layers or 1) if not site.is_single else (site,)
    values = {}
    for key, given in axes.items():
        values[key] = tuple(range(given)) if isinstance(given, int) else tuple(given)
        if not values[key]:
            raise SelectorError(f"the grid's axis {key} is empty")
    cells = tuple(
        Edits((edit(single(**dict(zip(values, chosen, strict=True)))),))
        for single in singles
        for chosen in product(*values.values())
    )
    labels: tuple[tuple[str, tuple[Any, ...]], ...] = tuple(values.items())
    if not site.is_single:
        labels = (("layer", tuple(single.layers for single in singles)), *labels)
    return Grid(cells, labels)
