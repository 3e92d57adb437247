"""What a metric looks at, and the last modules of a model run for nothing else.

columns   the positions whose logits are wanted: the last MLP and the unembedding run there alone
tokens    the entries of the vocabulary that are wanted: the unembedding gives these alone
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mainspring.engine.flow import Flow, active
from mainspring.engine.places import Place
from mainspring.engine.plan import Atlas
from mainspring.errors import SiteRefused
from mainspring.rows import Rows
from mainspring.selectors import PerRow
from mainspring.sites import Site

__all__ = ["Looks", "head_of", "last_mlp_only", "tokens_only"]


@dataclass(frozen=True, eq=False)
class Looks:
    """Bare sites inside the layers, logit sites, and the columns and the tokens of which logits are needed (None: all)."""

    sites: tuple[Site, ...]
    logits: tuple[Site, ...]
    columns: Tensor | None
    tokens: Tensor | None = None

    def picked(self, logits: Tensor, layout: Rows) -> dict[Site, Tensor]:
        """The values of the logit sites, from logits at the kept columns."""
        if self.columns is None:
            return {Site("logits"): logits}
        held, out = self.columns.tolist(), {}
        for site in self.logits:
            index = dict(site.select)["pos"]
            found = [held.index(c) for c in layout.positions(0, index, 0, layout.width)]
            single = isinstance(index, int | PerRow) or getattr(index, "part", None) is not None
            out[site] = logits[:, found[0]] if single else logits[:, found]
        return out

    @classmethod
    def of(cls, sites: tuple[Site, ...] | None, layout: Rows, narrow: bool) -> "Looks":
        """From a metric's sites; None means that it may look at all logits."""
        if sites is None:
            return cls((), (Site("logits"),), None)
        logits = tuple(s for s in sites if s.name == "logits")
        inner = tuple(dict.fromkeys(s.bare for s in sites if s.name != "logits"))
        selects = [dict(s.select) for s in logits]
        if not logits or not narrow or any(set(s) != {"pos"} for s in selects):
            return cls(inner, logits, None)
        columns = sorted({c for s in selects for c in layout.positions(0, s["pos"], 0, layout.width)})
        return cls(inner, logits, torch.tensor(columns))


@contextmanager
def last_mlp_only(atlas: Atlas, flow: Flow, columns: Tensor, acts: Mapping[Place, Any]) -> Iterator[None]:
    """Run the last layer's MLP only at the columns from which logits are wanted: nothing reads the others any more."""
    last = atlas.depth("") - 1
    try:
        module = atlas.place(Site("mlp.out", last)).module
    except SiteRefused:
        module = None
    own = set() if module is None else set(module.modules())
    beyond = {id(place.module) for place in acts}
    if module is None or any(id(m) in beyond for m in own) or module is atlas.layer("", last):
        yield
        return
    width: list[int] = []

    def narrow(mlp: nn.Module, args: tuple[Any, ...]) -> Any:
        if active.flow is not flow or len(args) != 1 or args[0].ndim != 3:
            return None
        width.append(args[0].shape[1])
        return (args[0][:, columns],)

    def scatter(mlp: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if active.flow is not flow or not width or not isinstance(output, Tensor):
            return None
        whole = output.new_zeros(output.shape[0], width.pop(), output.shape[2])
        whole[:, columns] = output
        return whole

    handles = [module.register_forward_pre_hook(narrow), module.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def head_of(atlas: Atlas) -> nn.Linear | None:
    """The unembedding, where it is a plain linear map, whose rows can be had apart."""
    head = getattr(atlas.module, "get_output_embeddings", lambda: None)()
    return head if type(head) is nn.Linear else None


@contextmanager
def tokens_only(atlas: Atlas, flow: Flow, tokens: Tensor) -> Iterator[None]:
    """Let the unembedding give the logits of some tokens, in their order; what scales or caps logits goes on as ever."""
    head = head_of(atlas)
    if head is None:
        raise SiteRefused("the unembedding of this model is not a plain linear map, so no rows of it can be had apart")
    rows = tokens.to(head.weight.device)
    weight, bias = head.weight[rows], None if head.bias is None else head.bias[rows]
    hidden: list[Tensor] = []

    def empty(module: nn.Module, args: tuple[Any, ...]) -> Any:
        if active.flow is not flow or len(args) != 1:
            return None
        hidden.append(args[0])
        return (args[0][:0],)

    def few(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
        if active.flow is not flow:
            return None
        return linear(hidden.pop(), weight, bias) if hidden else output[..., rows]

    handles = [head.register_forward_pre_hook(empty), head.register_forward_hook(few)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
