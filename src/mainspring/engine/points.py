"""What a run touches: the points of a plan, and the modules through whose hooks they pass.

A plan that depends on the layout of the inputs alone is kept and used again, so its points are sorted and dealt out once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from mainspring.engine.forms import Form
from mainspring.engine.operations import Operation
from mainspring.engine.places import Place
from mainspring.sites import Site
from mainspring.vocabulary import LAYER_SITES, TOP_SITES
from mainspring.windows import Window

__all__ = ["Point", "Points"]


@dataclass(eq=False)
class Point:
    """A place that a run touches: its operations in order (with the index of their edit) and the sites read there.

    `views` has the sites among them that are seen through a basis, `windows` the selection of each operation on the shape last seen.
    """

    place: Place
    operations: list[tuple[int, Operation]] = field(default_factory=list)
    reads: list[Site] = field(default_factory=list)
    views: dict[Site, Place] | None = None
    windows: dict[int, tuple[Any, Window]] = field(default_factory=dict)

    @cached_property
    def only_edited(self) -> bool:
        """Whether nothing is read here, and the tensor that passes is the site's as it stands."""
        return not self.reads and type(self.place.form) is Form and not self.place.shared


@dataclass(frozen=True, eq=False)
class Points:
    """Points by the module at which they pass, and by where there: its input, its output, its attention function, inside it."""

    inputs: dict[nn.Module, list[Point]]
    outputs: dict[nn.Module, list[Point]]
    attention: dict[nn.Module, dict[str, Point]]
    inside: dict[nn.Module, dict[str, list[Point]]]

    @classmethod
    def of(cls, points: Iterable[Point]) -> "Points":
        """Deal out points; those of one module keep the order of the vocabulary."""
        dealt = cls({}, {}, {}, {})
        for point in sorted(points, key=_rank):
            place = point.place
            if place.end == "attention":
                dealt.attention.setdefault(place.module, {})[str(place.item)] = point
            elif place.end == "inside":
                dealt.inside.setdefault(place.module, {}).setdefault(str(place.item), []).append(point)
            else:
                side = dealt.inputs if place.end == "input" else dealt.outputs
                side.setdefault(place.module, []).append(point)
        return dealt


_ORDER = {name: i for i, name in enumerate((*TOP_SITES, *LAYER_SITES))}


def _rank(point: Point) -> int:
    """Sites that share a tensor are visited in the order of the vocabulary, in which one follows from the other.

    A head's share comes before the sum of all, a sum before what is added of it; raw module sites come last.
    """
    site = point.place.site
    return len(_ORDER) if site.stack == "module" else _ORDER.get(site.name, len(_ORDER))
