"""What a picture shows, as small frozen values that any renderer can draw."""

from dataclasses import dataclass

__all__ = ["GraphEdge", "GraphNode", "GraphView"]


@dataclass(frozen=True)
class GraphNode:
    """A component: `layer` is -1 before the first layer, and the number of layers behind the last."""

    id: str
    layer: int
    kind: str


@dataclass(frozen=True)
class GraphEdge:
    """`source` feeds `target` through its input `via`; `weight` is a size, `sign` -1, 0 or 1."""

    source: str
    target: str
    weight: float = 1.0
    sign: int = 0
    via: str = ""


@dataclass(frozen=True)
class GraphView:
    """Components by layer and what flows between them."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    title: str = ""
