"""A circuit: the edges that are said to do the work, with all that is needed to judge the claim again.

The same edges score differently by sign policy, ablation and counting rule, so a circuit holds them; and the fingerprint of
the model that it was found on. It prints as a table, travels as JSON and runs: every edge outside carries its other value.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mainspring.engine.edges.anatomy import Runner, anatomy_of
from mainspring.engine.edges.graph import COUNTING, Graph
from mainspring.engine.edges.names import Edge, Receiver, Sender, parse_sender
from mainspring.engine.edges.patch import run_wired
from mainspring.engine.edges.scores import SIGNS, EdgeScores
from mainspring.engine.edges.senders import as_shares
from mainspring.engine.edges.wiring import Source
from mainspring.errors import InputError
from mainspring.trace import Trace

if TYPE_CHECKING:
    from mainspring.views.specs import GraphView

__all__ = ["ABLATIONS", "Circuit", "model_fingerprint"]

ABLATIONS = ("resample", "mean", "zero")
"""What edges outside a circuit carry: the values of another input, a mean over reference inputs, or nothing."""


@dataclass(frozen=True)
class Circuit:
    """Edges of a graph, the score of each where it was found by one, and how they were chosen and are to be tested."""

    graph: Graph
    edges: tuple[Edge, ...]
    scores: tuple[float, ...] = ()
    sign: str = "absolute"
    ablation: str = "resample"
    over: tuple[str, ...] = ("batch", "pos")
    counting: str = "input"
    fingerprint: str = ""
    method: str = ""

    def __post_init__(self) -> None:
        for name, known in (("sign", SIGNS), ("ablation", ABLATIONS), ("counting", COUNTING)):
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(known)}")
        if len(set(self.edges)) != len(self.edges):
            raise InputError("a circuit names an edge twice")
        for edge in self.edges:
            self.graph.edge(edge)
        if self.scores and len(self.scores) != len(self.edges):
            raise InputError(f"there are {len(self.scores)} scores for {len(self.edges)} edges")

    # ---- making one ----

    @classmethod
    def of(cls, model: Runner, edges: Any, **options: Any) -> "Circuit":
        """These edges of a model: edges, their texts or texts with wildcards."""
        graph = anatomy_of(model).graph
        return cls(graph, graph.select(edges), fingerprint=model_fingerprint(model.atlas.module), **options)

    @classmethod
    def of_nodes(cls, model: Runner, nodes: Iterable[str], **options: Any) -> "Circuit":
        """Every edge between these heads and MLPs, the embedding and the logits: all others are ablated as a whole."""
        graph = anatomy_of(model).graph
        chosen = {Sender("embed"), *(parse_sender(node) for node in nodes)}
        if strange := next((s for s in chosen if s not in set(graph.senders)), None):
            raise InputError(f"{strange} is no node of {graph}")
        edges = [e for e in graph.edges if e.sender in chosen and _holds(chosen, graph, e.receiver)]
        return cls.of(model, edges, method="all edges between nodes", **options)

    @classmethod
    def from_scores(cls, model: Runner, scores: EdgeScores, count: int, *, sign: str = "absolute", **options: Any) -> "Circuit":
        """The best edges, as many as the counting rule allows."""
        counting, graph = options.get("counting", "input"), scores.graph
        kept: list[Edge] = []
        for edge in scores.top(len(scores), sign):
            if graph.count([*kept, edge], counting) > count:
                break
            kept.append(edge)
        mean = scores.of(kept) if kept else None
        edges = mean.edges if mean is not None else ()
        values = tuple(mean.mean.tolist()) if mean is not None else ()
        return cls(graph, edges, values, sign, fingerprint=model_fingerprint(model.atlas.module), method=scores.method, **options)

    # ---- what it is ----

    def __len__(self) -> int:
        """Its size by its own counting rule."""
        return self.graph.count(self.edges, self.counting)

    def __contains__(self, edge: Edge | str) -> bool:
        return self.graph.edge(edge) in self.edges

    @property
    def share(self) -> float:
        """Its size as a part of the whole graph's."""
        return len(self) / self.graph.count(rule=self.counting)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The heads and MLPs that send along its edges or receive, in order."""
        ends = {str(e.sender) for e in self.edges} | {n for e in self.edges for n in _targets(self.graph, e.receiver)}
        return tuple(str(s) for s in self.graph.senders if str(s) in ends and s.kind != "embed")

    def connected(self) -> "Circuit":
        """Without the edges that lie on no way from the embedding to the logits, whatever their scores."""
        reached, wanted = {"embed"}, {"logits"}
        for edge in sorted(self.edges, key=lambda e: self.graph.receivers.index(e.receiver)):
            if str(edge.sender) in reached:
                reached.update(_targets(self.graph, edge.receiver))
        for edge in sorted(self.edges, key=lambda e: -self.graph.receivers.index(e.receiver)):
            if wanted & set(_targets(self.graph, edge.receiver)):
                wanted.add(str(edge.sender))
        kept = [
            i for i, e in enumerate(self.edges) if str(e.sender) in reached and wanted & set(_targets(self.graph, e.receiver))
        ]
        scores = tuple(self.scores[i] for i in kept) if self.scores else ()
        return replace(self, edges=tuple(self.edges[i] for i in kept), scores=scores)

    # ---- using it ----

    def run(
        self, model: Runner, inputs: Any, other: Any = None, *, reference: Any = None, read: Any = None, spans: Any = None,
        any_model: bool = False,
    ) -> Trace:  # fmt: skip
        """Run the model with every edge outside the circuit ablated.

        `other` gives the counterfactual inputs (or trace, or shares) of "resample", `reference` what "mean" averages. A model
        with other weights than those of the fingerprint is refused, unless `any_model`.
        """
        graph = anatomy_of(model).graph
        if graph != self.graph:
            raise InputError(f"this circuit is of {self.graph}, not of {graph}")
        if self.fingerprint and not any_model and self.fingerprint != model_fingerprint(model.atlas.module):
            raise InputError("this circuit was found on other weights; pass any_model=True to run it all the same")
        if self.ablation == "resample" and other is None:
            raise InputError("this circuit is tested by resampling: pass counterfactual inputs as other=")
        shares = as_shares(model, other if self.ablation == "resample" else self.ablation, reference, self.over)
        return run_wired(model, inputs, [Source(self.edges, shares, outside=True)], read=read, spans=spans)

    def view(self) -> "GraphView":
        """Nodes by layer, and edges with the size and sign of their scores."""
        from mainspring.views.specs import GraphEdge, GraphNode, GraphView

        nodes = [GraphNode("embed", -1, "embed")]
        nodes += [GraphNode(n, parse_sender(n).layer, parse_sender(n).kind) for n in self.nodes]
        nodes.append(GraphNode("logits", self.graph.layers, "logits"))
        edges = []
        for edge, score in zip(self.edges, self.scores or (None,) * len(self.edges), strict=True):
            size, sign = (1.0, 0) if score is None else (abs(score), (score > 0) - (score < 0))
            for target in _targets(self.graph, edge.receiver):
                edges.append(GraphEdge(str(edge.sender), target, size, sign, edge.receiver.kind))
        return GraphView(tuple(nodes), tuple(edges), self._head())

    # ---- writing it ----

    def to_json(self) -> str:
        graph = {"heads": self.graph.heads, "kv_heads": self.graph.kv_heads, "parallel": list(self.graph.parallel)}
        data = {"format": "mainspring.circuit", "version": 1, "graph": graph, "edges": [e.text for e in self.edges]}
        data |= {"scores": list(self.scores), "sign": self.sign, "ablation": self.ablation, "over": list(self.over)}
        data |= {"counting": self.counting, "fingerprint": self.fingerprint, "method": self.method}
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Circuit":
        """Read what `to_json` wrote."""
        try:
            data: dict[str, Any] = json.loads(text)
            if (data.pop("format"), data.pop("version")) != ("mainspring.circuit", 1):
                raise InputError("this is no circuit of a version that this release reads")
            shape = data.pop("graph")
            graph = Graph(int(shape["heads"]), int(shape["kv_heads"]), tuple(bool(p) for p in shape["parallel"]))
            edges = tuple(graph.edge(str(e)) for e in data.pop("edges"))
            scores, over = tuple(float(s) for s in data.pop("scores")), tuple(str(a) for a in data.pop("over"))
            return cls(graph, edges, scores, over=over, **{k: str(v) for k, v in data.items()})
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no circuit ({type(error).__name__}: {error})") from None

    def _head(self) -> str:
        return f"{len(self)} of {self.graph.count(rule=self.counting)} edges"

    def _lines(self) -> Iterator[str]:
        ablation = f"mean over {' and '.join(self.over)}" if self.ablation == "mean" else self.ablation
        yield f"Circuit: {self._head()} (counted by {self.counting}), outside: {ablation}, sign: {self.sign}"
        if self.method:
            yield f"found by {self.method}"
        order = sorted(range(len(self.edges)), key=lambda i: -abs(self.scores[i])) if self.scores else range(len(self.edges))
        for i in order:
            yield f"{self.scores[i]:+10.4f}  {self.edges[i]}" if self.scores else f"  {self.edges[i]}"

    def __str__(self) -> str:
        return "\n".join(self._lines())


def _targets(graph: Graph, receiver: Receiver) -> list[str]:
    """The nodes behind a receiver input: a key-value head serves all query heads of its group."""
    if receiver.kind in ("k", "v"):
        first = receiver.head * graph.group
        return [f"layers.{receiver.layer}.head.{h}" for h in range(first, first + graph.group)]
    return [receiver.node]


def _holds(chosen: set[Sender], graph: Graph, receiver: Receiver) -> bool:
    """Whether one of the nodes behind a receiver input is chosen; the logits always are."""
    return receiver.kind == "logits" or any(parse_sender(target) in chosen for target in _targets(graph, receiver))


def model_fingerprint(module: nn.Module) -> str:
    """A short text that changes with the weights: names, shapes and an even sample of the entries of every parameter."""
    digest = hashlib.sha256(type(module).__name__.encode())
    with torch.no_grad():
        for name, p in module.named_parameters():
            digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
            digest.update(p.detach().flatten()[:: max(1, p.numel() // 256)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
