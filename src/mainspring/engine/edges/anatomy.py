"""What stands between the residual stream and the inputs of heads and MLPs, found by watching one small forward pass.

The map says where residuals, projections and outputs are. The norm in front of a projection is the module whose output is
the very tensor that the projection is given, so no name is relied on. What the pass shows must add up: each sublayer reads
the stream of its layer, through its norm alone, and adds to it. Where it does not, edges have no meaning and the
architecture is refused with the reason.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mainspring.edits import Edits
from mainspring.engine.edges.graph import Graph
from mainspring.engine.edges.watching import Watched, norm_before, watching
from mainspring.engine.forms import Flattened, Form, HeadShare, Scaled
from mainspring.engine.places import Place
from mainspring.engine.plan import make_plan
from mainspring.engine.run import execute
from mainspring.errors import SiteRefused
from mainspring.sites import Site

__all__ = ["Anatomy", "Layer", "Link", "Runner", "anatomy_of", "arguments"]


@runtime_checkable
class Runner(Protocol):
    """What is needed of a model."""

    atlas: Any
    _names: frozenset[str]

    def prepare(self, inputs: Any, *, spans: Any = None) -> Any: ...
    def run(self, inputs: Any, *, read: Any = None, edits: Any = None, grad_of: Any = None, spans: Any = None) -> Any: ...


def arguments(model: Runner, prepared: Any) -> dict[str, Any]:
    """The arguments of one forward pass, which keeps no cache."""
    spare = {"use_cache": False} if "use_cache" in model._names else {}
    return spare | dict(prepared.kwargs)


@dataclass(frozen=True, eq=False)
class Link:
    """How what attention returns becomes what is added to the stream: times `factor`, or through a root-mean-square `norm`."""

    factor: float = 1.0
    norm: nn.Module | None = None

    def scale(self, out: Tensor, add: Tensor | None) -> Tensor | float:
        """What each head's share of `out` is multiplied with to be its share of `add`: the norm is linear given its scale."""
        if self.norm is None:
            return self.factor
        assert add is not None
        with torch.no_grad():
            # on entries this large the norm's epsilon is beyond rounding, so what comes out is its gain
            gain = self.norm(torch.full_like(out[:1, :1], 1e3)).to(torch.promote_types(out.dtype, torch.float32))
            plain = out.to(gain.dtype) * gain
            ratio = (plain * add).sum(-1, keepdim=True) / (plain * plain).sum(-1, keepdim=True).clamp(min=1e-30)
            return gain * ratio


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: where its sublayers read the stream (`pre`, `middle`), the norms behind, and where their inputs can be written.

    `entry` is the input of the MLP's outermost module. A norm is None where a sublayer reads the stream itself.
    """

    pre: Place
    middle: Place
    parallel: bool
    projections: Mapping[str, Place]
    attn_norm: nn.Module | None
    mlp_norm: nn.Module | None
    entry: Place
    z: Place
    share: HeadShare
    out: Place
    add: Place
    link: Link
    mlp_add: Place


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The layers of a model, the input of its final norm, and its graph."""

    layers: tuple[Layer, ...]
    final: Place
    graph: Graph


_lock = threading.Lock()


def anatomy_of(model: Runner) -> Anatomy:
    """The anatomy of a model, watched once and remembered with its map."""
    atlas = model.atlas
    if "edges" not in atlas.__dict__:
        with _lock:  # watching changes the modes of modules, so two threads must not do it at once
            if "edges" not in atlas.__dict__:
                atlas.__dict__["edges"] = _observe(model)
    return atlas.__dict__["edges"]


_SITES = ("resid_pre", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.z", "attn.head_out", "attn.out", "attn.add", "mlp.out",
          "mlp.add", "resid_post")  # fmt: skip


def _observe(model: Runner) -> Anatomy:
    atlas = model.atlas
    depth = atlas.depth("")
    for i in range(depth):
        for other in ("cross.out", "ssm.out"):
            if _offers(atlas, Site(other, i)):
                what = "cross-attention" if other[0] == "c" else "a state-space mixer"
                raise _refusal(f"layer {i} has {what}, which is neither a head nor an MLP of this graph")
    read = [Site(name, i) for i in range(depth) for name in _SITES]
    for site in read:
        atlas.place(site)  # refuses with the map's reason
    read += [s for i in range(depth) if _offers(atlas, s := Site("resid_mid", i))]
    size = atlas.vocabulary
    if size is None:
        raise _refusal("this model does not take tokens")
    tokens = (torch.arange(3, 15) * 7 % size).reshape(2, 6).tolist()
    prepared = model.prepare(tokens)
    plan = make_plan(atlas, tuple(read), Edits(), prepared.rows, batch=prepared.batch, until="end")
    with watching(atlas.module) as watched:
        try:
            trace = execute(atlas, arguments(model, prepared), plan, prepared.rows, batch=prepared.batch)
        except (AttributeError, TypeError, ValueError) as error:  # what models say when they miss an image, or another stream
            raise _refusal(f"this model does not run on text alone ({error})") from error
    names = {m: name for name, m in atlas.module.named_modules()}
    layers = tuple(_layer(atlas, i, watched, trace, names) for i in range(depth))
    heads = {trace[Site("attn.z", i)].shape[2] for i in range(depth)}
    groups = {trace[Site("attn.k_proj", i)].shape[2] for i in range(depth)}
    if len(heads) > 1 or len(groups) > 1:
        raise _refusal("its layers differ in their number of heads")
    graph = Graph(heads.pop(), groups.pop(), tuple(layer.parallel for layer in layers))
    if not _offers(atlas, Site("final_norm")):
        raise _refusal("it has no final norm in front of its head")
    norm = atlas.place(Site("final_norm"))
    last = trace[Site("resid_post", depth - 1)]
    if norm.end != "output" or norm.module not in watched.given or not _close(_shaped(watched.given[norm.module], last), last):
        raise _refusal("its final norm does not read the residual stream behind the last layer")
    return Anatomy(layers, _entrance(norm.module, names), graph)


def _layer(atlas: Any, i: int, watched: Watched, trace: Any, names: Mapping[nn.Module, str]) -> Layer:
    place = {name: atlas.place(Site(name, i)) for name in _SITES}
    pre, post = trace[Site("resid_pre", i)], trace[Site("resid_post", i)]
    attended, added = trace[Site("attn.add", i)], trace[Site("mlp.add", i)]
    if i and not _close(trace[Site("resid_post", i - 1)], pre):
        raise _refusal(f"the stream changes between layers {i - 1} and {i}")
    if not _close(pre + attended + added, post):
        raise _refusal(f"what the sublayers of layer {i} add is not what the residual stream gains (post-norm, or scaled)")
    projections = {part: place[f"attn.{part}_proj"] for part in "qkv"}
    norms = set()
    for part, tap in projections.items():
        norms.add(_stream_norm(tap.module, pre, watched, f"the {part} projection of layer {i}"))
    if len(norms) != 1:
        raise _refusal(f"the projections of layer {i} read different norms")
    entry = _mlp_entry(atlas, i, watched)
    middle = pre + attended
    norm, read = norm_before(entry, watched)
    reads_pre, reads_middle = _close(_shaped(read, pre), pre), _close(_shaped(read, pre), middle)
    if not reads_pre and not reads_middle:
        raise _refusal(f"the MLP of layer {i} reads the stream neither before nor after attention through a norm alone")
    parallel = not reads_middle
    stream = place["resid_pre"] if parallel else atlas.place(Site("resid_mid", i))
    if not parallel and not _close(trace[Site("resid_mid", i)], middle):
        raise _refusal(f"resid_mid of layer {i} is not what its MLP reads")
    share = place["attn.head_out"].form
    if not isinstance(share, HeadShare):
        raise _refusal(f"the output of attention in layer {i} is no sum over heads")
    link = _link(place["attn.out"], place["attn.add"], trace[Site("attn.out", i)], attended, i)
    return Layer(
        place["resid_pre"], stream, parallel, projections, norms.pop(), norm,
        _entrance(entry, names, watched.given[entry].ndim == 2), place["attn.z"], share, place["attn.out"], place["attn.add"],
        link, place["mlp.add"],
    )  # fmt: skip


def _link(out: Place, add: Place, returned: Tensor, added: Tensor, i: int) -> Link:
    if add is out:
        return Link()
    if isinstance(add.form, Scaled):
        return Link(add.form.factor)
    if type(add.form) is Form and add.end == "output":
        link = Link(norm=add.module)
        if _close((returned * link.scale(returned, added)).to(added), added):
            return link
    raise _refusal(f"what attention adds in layer {i} is no linear function of its output, given the norm's scale")


def _stream_norm(module: nn.Module, stream: Tensor, watched: Watched, what: str) -> nn.Module | None:
    if module not in watched.given:
        raise _refusal(f"{what} is not called as a module")
    norm, read = norm_before(module, watched)
    if not _close(_shaped(read, stream), stream):
        raise _refusal(f"{what} does not read the residual stream through a norm alone")
    return norm


def _mlp_entry(atlas: Any, i: int, watched: Watched) -> nn.Module:
    """The outermost module below the layer that holds the MLP; where it has none of its own, its first projection."""
    layer = atlas.layer("", i)
    inner = [atlas.place(Site("mlp.out", i)).module]
    if _offers(atlas, Site("mlp.pre", i)):
        inner.append(atlas.place(Site("mlp.pre", i)).module)
    found = []
    for module in inner:
        holders = [child for child in layer.modules() if child is not layer and any(m is module for m in child.modules())]
        outer = next(iter([h for h in holders if h in watched.given]), None)  # modules come parents first
        if outer is None:
            raise _refusal(f"the MLP of layer {i} is not called with a tensor")
        found.append(outer)
    return min(found, key=lambda module: watched.turn[module])


def _entrance(module: nn.Module, names: Mapping[nn.Module, str], flat: bool = False) -> Place:
    site = Site(f"{names[module]}.input", stack="module")
    return Place(site, module, "input", None, Flattened() if flat else Form())


def _offers(atlas: Any, site: Site) -> bool:
    try:
        atlas.place(site)
    except SiteRefused:
        return False
    return True


def _shaped(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(like.shape) if value.numel() == like.numel() else value


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    tolerance = 1e-4 if b.dtype in (torch.float32, torch.float64) else 3e-2
    return bool((a.float() - b.float()).abs().max() <= tolerance * (1e-6 + b.float().abs().max()))


def _refusal(reason: str) -> SiteRefused:
    return SiteRefused(f"this model has no edges: {reason}", reason)
