"""A map says where the sites of an architecture are: a declarative table from site names to taps.

A tap names a module (relative to the layer, or to the trunk for top sites), the end at which the site's tensor passes, and the form
it has there. Tables are plain dictionaries, so a family is a few table functions merged and a handful of names changed. What an
architecture cannot offer is an entry too: `Refused(reason)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from mainspring.engine.forms import (
    Flattened,
    Form,
    Half,
    Heads,
    HeadsFirst,
    HeadShare,
    InnerHeads,
    Masked,
    Packed,
    Scaled,
    Stretch,
    Unbatched,
)

__all__ = [
    "Dims",
    "Map",
    "Refused",
    "Stack",
    "Table",
    "Tap",
    "Tower",
    "When",
    "attention",
    "find_module",
    "flattened",
    "fused_qkv",
    "gated_mlp",
    "half",
    "into",
    "merged",
    "mixture",
    "outof",
    "packed",
    "parallel_residual",
    "plain_mlp",
    "refused",
    "scaled",
    "separate_qkv",
    "sequential_residual",
    "split_heads",
    "stretch",
    "unbatched",
    "within",
    "without_batch",
]


@dataclass(frozen=True)
class Dims:
    """The sizes of one stack's layer."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int


MakeForm = Callable[[Dims, nn.Module, Any], Form]


@dataclass(frozen=True)
class Tap:
    """One entry of a map. `form` makes the site's form from the layer's sizes, the tapped module and the configuration."""

    path: str
    end: Literal["input", "output", "attention", "inside"] = "output"
    item: int | str | None = None
    form: MakeForm = lambda dims, module, config: Form()
    shared: bool = False
    read_only: str = ""


@dataclass(frozen=True)
class Refused:
    """A site that the architecture does not offer, and why."""

    reason: str


Entry = Tap | Refused | str
"""A tap, a refusal, or the name of another site of the same layer that is the very same tensor."""

Table = Mapping[str, Entry]


@dataclass(frozen=True)
class When:
    """A table that holds only for layers that have the module `path`, or for which the predicate `path` is true."""

    path: str | Callable[[Any], bool]
    table: Table

    def holds(self, layer: nn.Module) -> bool:
        return find_module(layer, self.path) is not None if isinstance(self.path, str) else bool(self.path(layer))


@dataclass(frozen=True)
class Stack:
    """The layers of one tower.

    `layers`, `embed` and `final_norm` are paths from the trunk; `embed` None means the first layer's input. `tables` are merged in
    order. `config` is the path of the tower's own configuration; the names after it say where that holds its sizes.

    `residual` says what the stream is. "pre-norm" and "parallel": every sublayer adds to it, so resid_pre + attn.add
    (+ cross.add) (+ ssm.add) + mlp.add = resid_post. "post-norm": the stream is normalised after each addition, by the two
    modules of a layer that `norms` names: `resid_mid = norms[0](resid_pre + attn.add)` and
    `resid_post = norms[1](resid_mid + mlp.add)`. "normed": it is normalised before each:
    `resid_mid = norms[0](resid_pre) + attn.add` and `resid_post = norms[1](resid_mid) + mlp.add`.
    """

    layers: str = "layers"
    tables: tuple[Table | When, ...] = ()
    final_norm: str | Tap | Refused | None = "norm"
    embed: Entry | None = None
    residual: Literal["pre-norm", "parallel", "post-norm", "normed"] = "pre-norm"
    norms: tuple[str, ...] = ()
    config: str = ""
    width: str = "hidden_size"
    heads: str = "num_attention_heads"
    kv_heads: str = "num_key_value_heads"
    head_dim: str = "head_dim"
    dims: Callable[[Any, nn.Module], Dims] | None = None

    def table(self, layer: nn.Module) -> dict[str, Entry]:
        """The entries that hold for one layer."""
        out: dict[str, Entry] = {}
        for part in self.tables:
            if isinstance(part, When):
                if part.holds(layer):
                    out.update(part.table)
            else:
                out.update(part)
        return out


@dataclass(frozen=True)
class Tower:
    """A stack beside the main one, and where its trunk may stand.

    `stack` None means that the tower is an architecture of its own: its map is looked up by the `model_type` of the configuration
    at `config`, as is the language model of most vision-language models.
    """

    trunk: tuple[str, ...]
    stack: "Stack | Callable[[Any], Stack] | None" = None
    config: str = ""


@dataclass(frozen=True)
class Map:
    """An architecture family: its main tower, further towers, and sites outside any layer.

    `stack` may be a function of the configuration, for families whose layers differ from checkpoint to checkpoint. `trunk` lists
    paths to try; the first below which the layers exist is taken, so one map serves a bare model, a language model
    and a classifier. `positions` "own" means that the model works out positions from its mask or inputs; otherwise padded inputs
    are given explicit `position_ids`. Paths of `top` begin at the model or at the base model inside it. `images` names the way in
    which image tokens cover an image, one of `models.image_layouts.LAYOUTS`.
    """

    family: str
    model_types: tuple[str, ...]
    stack: Stack | Callable[[Any], Stack] | None = None
    trunk: tuple[str, ...] = ("model", "")
    config: str = ""
    towers: Mapping[str, Tower] = field(default_factory=dict)
    top: Table = field(default_factory=dict)
    positions: Literal["given", "own"] = "given"
    images: str = ""
    notes: str = ""

    @property
    def main(self) -> Tower:
        return Tower(self.trunk, self.stack, self.config)


def find_module(root: nn.Module, path: str) -> nn.Module | None:
    """The submodule at a dotted path, or None."""
    found: Any = root
    for word in path.split(".") if path else ():
        found = (
            found[int(word)] if word.lstrip("-").isdigit() and isinstance(found, nn.ModuleList) else getattr(found, word, None)
        )
        if not isinstance(found, nn.Module):
            return None
    return found


# ---- taps -----------------------------------------------------------------------------------------------------------------------


def outof(path: str, item: int | str | None = None, form: MakeForm | None = None, **options: Any) -> Tap:
    """What the module returns (of a tuple, its first entry)."""
    return Tap(path, "output", item, **({"form": form} if form else {}), **options)


def into(path: str, item: int | str | None = None, form: MakeForm | None = None, **options: Any) -> Tap:
    """What the module is given."""
    return Tap(path, "input", item, **({"form": form} if form else {}), **options)


def within(path: str, item: str, form: MakeForm | None = None, **options: Any) -> Tap:
    """What the module makes by a torch function inside its own forward; `engine.inside` lists the items."""
    return Tap(path, "inside", item, **({"form": form} if form else {}), **options)


def split_heads(of: Literal["q", "kv"] = "q") -> MakeForm:
    """The last axis holds heads (or key-value heads) one after another."""
    return lambda dims, module, config: Heads(dims.heads if of == "q" else dims.kv_heads)


def packed(part: str, layout: str) -> MakeForm:
    """One of q, k, v in a fused projection; see `engine.forms.Packed` for the layouts."""
    return lambda dims, module, config: Packed(part, layout, dims.heads, dims.kv_heads, dims.head_dim)


def scaled(name: str) -> MakeForm:
    """The output times a number of the configuration."""
    return lambda dims, module, config: Scaled(float(getattr(config, name)))


def stretch(place: Callable[[Any], tuple[int, int]]) -> MakeForm:
    """A part of the last axis, from one entry to another that the configuration tells."""
    return lambda dims, module, config: Stretch(*place(config))


def half(index: int, parts: int = 2) -> MakeForm:
    return lambda dims, module, config: Half(index, parts)


def flattened() -> MakeForm:
    return lambda dims, module, config: Flattened()


def unbatched(form: MakeForm = lambda dims, module, config: Form()) -> MakeForm:
    """The tensor has no batch axis; with one in front it has `form`."""
    return lambda dims, module, config: Unbatched(form(dims, module, config))


# ---- tables ---------------------------------------------------------------------------------------------------------------------


def merged(*tables: Table) -> dict[str, Entry]:
    """Tables laid over each other, later ones on top."""
    return {name: entry for table in tables for name, entry in table.items()}


def without_batch(*tables: Table) -> dict[str, Entry]:
    """The tables of a stack whose tensors have no batch axis: all tokens of a run stand in one row."""
    return {
        name: replace(entry, form=unbatched(entry.form)) if isinstance(entry, Tap) else entry
        for name, entry in merged(*tables).items()
    }


def refused(reason: str, *names: str) -> dict[str, Entry]:
    """The same reason for several sites."""
    return dict.fromkeys(names, Refused(reason))


def sequential_residual(mid: str) -> Table:
    """A residual stream with attention first; `mid` is the module whose input is the stream between attention and MLP."""
    return {"resid_pre": into(""), "resid_mid": into(mid, shared=True), "resid_post": outof("")}


def parallel_residual() -> Table:
    """Attention and MLP read the same stream, so there is no stream between them."""
    reason = "attention and MLP run in parallel in this architecture, so no residual stream lies between them"
    return {"resid_pre": into(""), "resid_mid": Refused(reason), "resid_post": outof("")}


def attention(
    path: str = "self_attn",
    o: str = "o_proj",
    *,
    name: str = "attn",
    add: Entry | None = None,
    registered: bool | Literal["inside"] = True,
    kernel: str | None = None,
) -> Table:
    """What every attention module offers around its kernel.

    `o` is the output projection inside it. `registered` says that the module calls its kernel through transformers' registry, so
    that q, k, v, scores and pattern can be had; "inside" that it computes attention itself, by torch functions that are caught.
    `kernel` is the module that does so, where that is another one.
    """
    projection = f"{path}.{o}"
    unheard = Refused("this architecture computes attention inside its own module, without transformers' attention registry")
    caller = path if kernel is None else kernel
    own: dict[str, Entry] = {
        f"{name}.q": within(caller, "q", lambda dims, module, config: InnerHeads(dims.heads)),
        f"{name}.k": within(caller, "k", lambda dims, module, config: InnerHeads(dims.kv_heads, transposed=True)),
        f"{name}.v": within(caller, "v", lambda dims, module, config: InnerHeads(dims.kv_heads)),
        f"{name}.scores": within(caller, "scores", lambda dims, module, config: Masked(module)),
        f"{name}.pattern": within(caller, "pattern"),
    }
    inside: Table = {
        f"{name}.{item}": Tap(caller, "attention", item, lambda dims, module, config: HeadsFirst()) for item in ("q", "k", "v")
    } | {f"{name}.{item}": Tap(caller, "attention", item) for item in ("scores", "pattern")}
    return {
        **(own if registered == "inside" else inside if registered else dict.fromkeys(inside, unheard)),
        f"{name}.z": into(projection, form=split_heads()),
        f"{name}.head_out": outof(projection, form=lambda dims, module, config: HeadShare(module, dims.heads)),
        f"{name}.out": outof(path),
        f"{name}.add": add or f"{name}.out",
    }


def separate_qkv(path: str = "self_attn", q: str = "q_proj", k: str = "k_proj", v: str = "v_proj", name: str = "attn") -> Table:
    """Three projections."""
    return {
        f"{name}.q_proj": outof(f"{path}.{q}", form=split_heads()),
        f"{name}.k_proj": outof(f"{path}.{k}", form=split_heads("kv")),
        f"{name}.v_proj": outof(f"{path}.{v}", form=split_heads("kv")),
    }


def fused_qkv(module: str, layout: str, name: str = "attn") -> Table:
    """One projection that packs all three."""
    return {f"{name}.{part}_proj": outof(module, form=packed(part, layout)) for part in "qkv"}


def gated_mlp(
    path: str = "mlp", gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj", add: Entry | None = None
) -> Table:
    """down(act(gate x) * up x): `pre` is gate x, `post` the product."""
    return {
        "mlp.pre": outof(f"{path}.{gate}"),
        "mlp.up": outof(f"{path}.{up}"),
        "mlp.post": into(f"{path}.{down}"),
        "mlp.out": outof(path),
        "mlp.add": add or "mlp.out",
    }


def plain_mlp(path: str = "mlp", up: str = "fc1", down: str = "fc2", add: Entry | None = None) -> Table:
    """down(act(up x)): `pre` is up x."""
    return {
        "mlp.pre": outof(f"{path}.{up}"),
        "mlp.up": Refused("this MLP has no gate, so its only hidden input is mlp.pre"),
        "mlp.post": into(f"{path}.{down}"),
        "mlp.out": outof(path),
        "mlp.add": add or "mlp.out",
    }


def mixture(path: str = "mlp", router: str = "gate") -> Table:
    """A mixture of experts: its output and its router; experts share no neuron basis."""
    reason = "this layer is a mixture of experts: its experts have no common neuron basis"
    return {
        "mlp.pre": Refused(reason),
        "mlp.up": Refused(reason),
        "mlp.post": Refused(reason),
        # the logits that the router returns are for the books; those that choose the experts go through its softmax
        "mlp.router": within(f"{path}.{router}", "scores", flattened()),
        "mlp.out": outof(path),
        "mlp.add": "mlp.out",
    }
