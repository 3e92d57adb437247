"""A map laid over one model: which module, argument and form each site is, worked out once and remembered."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mainspring.engine.forms import Flattened, Form, Half, Stretch
from mainspring.engine.places import Place
from mainspring.errors import SiteRefused, UnknownSite, UnmappedModel, nearest
from mainspring.models.maps import Dims, Entry, Map, Refused, Stack, Tap, Tower, find_module
from mainspring.sites import Site
from mainspring.vocabulary import LAYER_SITES

__all__ = ["Atlas", "Resolved", "resolve_tower"]


@dataclass(frozen=True, eq=False)
class Resolved:
    """A tower on a model: its table, its trunk and layers, and the configuration with its sizes."""

    stack: Stack
    trunk: nn.Module
    layers: nn.ModuleList
    config: Any


class Atlas:
    """The sites of one model. `place` gives a site's place or refuses with the reason; `unmapped` says why there is no map."""

    def __init__(self, module: nn.Module, layout: Map | None, maps: Mapping[str, Map]) -> None:
        self.module, self.map, self.unmapped = module, layout, ""
        self.towers: dict[str, Resolved] = {}
        self.plans: dict[Any, Any] = {}
        self._places: dict[Site, Place | SiteRefused] = {}
        self._tables: dict[tuple[str, int], dict[str, Entry]] = {}
        if layout is not None:
            self.towers[""] = resolve_tower(module, layout.main, maps, layout.family)
            for name, tower in layout.towers.items():
                self.towers[name] = resolve_tower(module, tower, maps, layout.family)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, asked anew each time since a model may be cast."""
        first = self._first
        return torch.get_default_dtype() if first is None else first.dtype

    @property
    def device(self) -> torch.device:
        first = self._first
        return torch.device("cpu") if first is None else first.device

    @cached_property
    def _first(self) -> nn.Parameter | None:
        return next((p for p in self.module.parameters() if p.is_floating_point()), None)

    @cached_property
    def vocabulary(self) -> int | None:
        """How many tokens the model embeds; None where it embeds none, or in several tables."""
        try:
            table = self.module.get_input_embeddings()  # type: ignore[operator]
        except Exception:
            return None
        size = getattr(table, "num_embeddings", None)
        return size if isinstance(size, int) else None

    def depth(self, stack: str) -> int:
        """How many layers a stack has."""
        return len(self._tower(stack).layers) if stack != "module" else 0

    def layer(self, stack: str, index: int) -> nn.Module:
        return self._tower(stack).layers[index]

    def place(self, site: Site) -> Place:
        """The place of a bare site that names at most one layer, by a non-negative index."""
        found = self._places.get(site)
        if found is None:
            try:
                found = self._find(site)
            except SiteRefused as error:
                found = error
            self._places[site] = found
        if isinstance(found, SiteRefused):
            raise SiteRefused(str(found), found.reason)
        return found

    def _tower(self, stack: str) -> Resolved:
        if self.map is None:
            raise UnmappedModel(
                f"{type(self.module).__name__} has no map, so it offers only its own modules: at.module[path].input and .output"
                + (f" ({self.unmapped})" if self.unmapped else "")
            )
        if stack not in self.towers:
            known = ", ".join(f"{name}.layers" for name in self.towers if name) or "only the main stack"
            raise SiteRefused(f"{type(self.module).__name__} has no {stack} stack ({known})", f"this model has no {stack} stack")
        return self.towers[stack]

    def _find(self, site: Site) -> Place:
        if site.stack == "module":
            return self._module_place(site)
        tower = self._tower(site.stack)
        if site.layers is None:
            return self._top_place(site, tower)
        assert isinstance(site.layers, int)
        layer = tower.layers[site.layers]
        table = self._tables.setdefault((site.stack, site.layers), tower.stack.table(layer))
        name, entry = site.name, table.get(site.name)
        while isinstance(entry, str):
            name, entry = entry, table.get(entry)
        if name != site.name and not isinstance(entry, Refused) and entry is not None:
            return self.place(Site(name, site.layers, site.stack))
        if entry is None:
            reason = _absent(site.name)
            raise SiteRefused(f"{site}: {reason}", reason)
        return self._tapped(site, entry, layer, tower)

    def _tapped(self, site: Site, entry: Entry, base: nn.Module, tower: Resolved) -> Place:
        if isinstance(entry, Refused):
            raise SiteRefused(f"{site}: {entry.reason}", entry.reason)
        assert isinstance(entry, Tap)
        module = find_module(base, entry.path)
        if module is None:
            reason = f"this {'layer' if site.layers is not None else 'model'} has no module {entry.path}"
            raise SiteRefused(f"{site}: {reason}", reason)
        dims = dims_of(tower)
        axes = site.axes or ()
        sizes = {"dim": dims.width, "head": dims.heads, "kv_head": dims.kv_heads, "head_dim": dims.head_dim}
        form = entry.form(dims, module, tower.config)
        sizes |= _features(site, entry, module, form)
        return Place(site, module, entry.end, entry.item, form, axes, sizes, entry.shared, entry.read_only)

    def _top_place(self, site: Site, tower: Resolved) -> Place:
        assert self.map is not None
        if site.stack == "" and site.name in self.map.top:
            entry = self.map.top[site.name]
            if isinstance(entry, str):
                return self.place(Site(entry))
            # a model with a head holds the base model, whose paths are the same for all heads
            inner = getattr(self.module, "base_model", self.module)
            path = entry.path if isinstance(entry, Tap) else ""
            return self._tapped(site, entry, self.module if find_module(self.module, path) is not None else inner, tower)
        if site.name == "embed":
            entry = tower.stack.embed or Tap("", "input")
            base = tower.trunk if tower.stack.embed is not None else tower.layers[0]
            return self._tapped(site, entry, base, tower)
        if site.name == "final_norm":
            if tower.stack.final_norm is None:
                raise SiteRefused(f"{site}: this stack has no final norm", "this stack has no final norm")
            norm = tower.stack.final_norm
            return self._tapped(site, Tap(norm) if isinstance(norm, str) else norm, tower.trunk, tower)
        if site.name == "logits" and site.stack == "":
            return self._logits(site)
        imageless = site.stack == "" and site.name in ("image_tokens", "projector")
        reason = "this model has no images" if imageless else "this stack has no such site"
        raise SiteRefused(f"{site}: {reason}", reason)

    def _logits(self, site: Site) -> Place:
        name = type(self.module).__name__
        out = getattr(self.module, "get_output_embeddings", lambda: None)()
        if "Classification" in name and "TokenClassification" not in name:
            axes = ("batch", "vocab")
        elif out is not None or any(
            word in name for word in ("TokenClassification", "LMHead", "CausalLM", "MaskedLM", "ConditionalGeneration")
        ):
            axes = ("batch", "pos", "vocab")
        else:
            reason = f"{name} has no head that gives logits"
            raise SiteRefused(f"{site}: {reason}", reason)
        size = getattr(out, "out_features", None)
        return Place(site, self.module, "output", "logits", Form(), axes, {"vocab": size} if size else {})

    def _module_place(self, site: Site) -> Place:
        path, _, end = site.name.rpartition(".")
        module = find_module(self.module, path)
        if module is None:
            known = [name for name, _ in self.module.named_modules()]
            raise UnknownSite(f"{type(self.module).__name__} has no module {path!r}{nearest(path, known)}")
        return Place(site, module, "input" if end == "input" else "output")


def resolve_tower(root: nn.Module, tower: Tower, maps: Mapping[str, Map], family: str) -> Resolved:
    """Find a tower's trunk and layers on a model."""
    config = getattr(root, "config", None)
    for word in tower.config.split(".") if tower.config else ():
        config = getattr(config, word, None)
    stack = tower.stack
    if stack is None:
        inner = maps.get(getattr(config, "model_type", ""))
        if inner is None or inner.stack is None:
            raise UnmappedModel(f"the {family} model holds a {getattr(config, 'model_type', None)!r} tower, which has no map")
        stack = inner.stack
    if not isinstance(stack, Stack):
        stack = stack(config)
    if stack.config:
        for word in stack.config.split("."):
            config = getattr(config, word, config)
    for path in tower.trunk:
        trunk = find_module(root, path)
        layers = find_module(trunk, stack.layers) if trunk is not None else None
        if trunk is not None and isinstance(layers, nn.ModuleList) and len(layers):
            return Resolved(stack, trunk, layers, config)
    raise UnmappedModel(
        f"{type(root).__name__} is a {family} model, but none of {', '.join(repr(t) for t in tower.trunk)} holds {stack.layers}"
    )


def dims_of(tower: Resolved) -> Dims:
    """The sizes of a tower's layers, from its configuration."""
    stack, config = tower.stack, tower.config
    if stack.dims is not None:
        return stack.dims(config, tower.layers[0])
    width, heads = getattr(config, stack.width, 0), getattr(config, stack.heads, None) or 1
    kv_heads = getattr(config, stack.kv_heads, None) or heads
    return Dims(width, heads, kv_heads, getattr(config, stack.head_dim, None) or width // heads)


def _features(site: Site, entry: Tap, module: nn.Module, form: Form) -> dict[str, int]:
    """The length of a neuron, channel or expert axis, where the tapped module tells it."""
    weight = getattr(module, "weight", None)
    last = (site.axes or ("",))[-1]
    if last not in ("neuron", "channel", "expert", "state"):
        return {}
    if isinstance(form, Stretch):
        return {last: form.stop - form.start}
    if weight is None or weight.ndim != 2 or not (type(form) is Form or isinstance(form, Half | Flattened)):
        return {}
    inward, outward = (0, 1) if type(module).__name__ == "Conv1D" else (1, 0)
    size = weight.shape[inward if entry.end == "input" else outward]
    return {last: size // form.parts if isinstance(form, Half) else size}


def _absent(name: str) -> str:
    part = name.partition(".")[0]
    return {
        "ssm": "this layer has no state-space mixer",
        "cross": "this layer has no cross-attention",
        "attn": "this layer has no attention of that form",
        "mlp": "this layer has no MLP of that form" if name != "mlp.router" else "this layer is not a mixture of experts",
    }.get(part, f"this architecture has no {name}; a layer's sites are {', '.join(LAYER_SITES)}")
