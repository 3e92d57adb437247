"""A map for a decoder whose architecture has none: found in its module tree and in one tiny forward pass, and proven before use.

The tree says where the layers are and which linear maps are queries, keys, values and hidden neurons; the tensors of the pass say
which modules add to the residual stream and where it can be read. What comes out is an ordinary `Map`. It is used only if the
algebra of a map holds on the very model: what is added is the whole change of the stream, heads add up, values mix to z, and a
write to the stream moves all that reads it. Otherwise `UnmappedModel` says what did not hold.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from mainspring.errors import UnmappedModel
from mainspring.models.maps import (
    Dims,
    Entry,
    MakeForm,
    Map,
    Refused,
    Stack,
    When,
    attention,
    find_module,
    flattened,
    fused_qkv,
    half,
    into,
    merged,
    outof,
    parallel_residual,
    refused,
    separate_qkv,
)
from mainspring.models.observe import Call, SeenLayer, adds_up, evaluating, same, tiny_inputs, watch
from mainspring.models.proof import failures

__all__ = ["find_map"]

_PART = r"(?i)w?_?({0}|{1})(_?(proj|projection|lin|linear|layer))?"
_QUERY, _KEY, _VALUE = (re.compile(_PART.format(word[0], word)) for word in ("query", "key", "value"))
_FUSED = re.compile(r"(?i)w?_?(qkv|query_key_value|c_attn)(_?proj)?")

Kernel = bool | Literal["inside"]


def find_map(module: nn.Module) -> Map:
    """A proven map of a decoder; raises UnmappedModel with what did not hold."""
    name, config = type(module).__name__, getattr(module, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", False) or not hasattr(module, "get_input_embeddings"):
        raise UnmappedModel(f"{name} is not a decoder of transformers")
    if any(p.device.type == "meta" for p in module.parameters()):
        raise UnmappedModel(f"{name} has no weights yet (it is on the meta device)")
    with evaluating(module):
        return _proven(module, name, config)


def _proven(module: nn.Module, name: str, config: Any) -> Map:
    trunk, layers_path = _find_layers(module)
    inputs = tiny_inputs(module)
    try:
        calls = watch(module, inputs)
    except Exception as error:  # whatever an unknown model raises on plain tokens
        raise UnmappedModel(f"{name} does not run on plain tokens: {error}") from error
    prefix = f"{trunk}.{layers_path}" if trunk else layers_path
    layers = find_module(module, prefix)
    assert isinstance(layers, nn.ModuleList)
    kinds: dict[Any, _Layer] = {}
    for i, layer in enumerate(layers):
        if _kind(layer) not in kinds:
            kinds[_kind(layer)] = _Layer(SeenLayer(_below(calls, f"{prefix}.{i}")), config)
    first, model_type = next(iter(kinds.values())), getattr(config, "model_type", name)
    wrong: list[str] = []
    for kernel in (True, "inside", False):
        for packing in ("thirds", "per_group", "") if first.fused and kernel else ("",):
            stack = Stack(
                layers_path,
                tuple(When(_alike(kind), layer.table(kernel, packing)) for kind, layer in kinds.items()),
                final_norm=_final_norm(calls, trunk, f"{prefix}.{len(layers) - 1}"),
                residual="parallel" if all(layer.mid is None for layer in kinds.values()) else "pre-norm",
                dims=lambda config, layer: first.dims,
            )
            found = Map(model_type, (model_type,), stack, trunk=(trunk,), notes="Found by structure and proven on this model.")
            failed = failures(module, found, inputs)
            if not failed:
                return found
            wrong = failed
    raise UnmappedModel(f"the structure of {name} fits no map: {'; '.join(wrong)}")


def _find_layers(module: nn.Module) -> tuple[str, str]:
    """The path of the trunk and, from there, of the list of layers: the longest list of modules that hold linear maps."""
    lists = [
        (len(child), path)
        for path, child in module.named_modules()
        if isinstance(child, nn.ModuleList) and len(child) and sum(_is_linear(m) for m in child[0].modules()) >= 4
    ]
    if not lists:
        raise UnmappedModel(f"{type(module).__name__} has no list of layers")
    longest = max(size for size, _ in lists)
    path = next(path for size, path in lists if size == longest)
    trunk, _, last = path.rpartition(".")
    return trunk, last


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def _sizes(module: nn.Module) -> tuple[int, int]:
    """In and out features of a linear map."""
    weight: Any = module.weight
    return tuple(weight.shape) if type(module).__name__ == "Conv1D" else tuple(weight.shape)[::-1]  # type: ignore[return-value]


def _below(calls: list[Call], path: str) -> list[Call]:
    """The calls at and below a path, renamed from there on."""
    inside = [c for c in calls if c.path == path or c.path.startswith(path + ".")]
    if not inside or inside[0].path != path:
        raise UnmappedModel(f"the module {path} was not called with a tensor")
    return [Call(c.path[len(path) + 1 :], c.module, c.given, c.returned) for c in inside]


def _kind(layer: nn.Module) -> tuple[tuple[str, str], ...]:
    """Layers with the same modules are of one kind."""
    return tuple((path, type(m).__name__) for path, m in layer.named_modules())


def _alike(kind: Any) -> Callable[[nn.Module], bool]:
    return lambda layer: _kind(layer) == kind


def _final_norm(calls: list[Call], trunk: str, last: str) -> str | None:
    """The module of the trunk that reads what the last layer returns."""
    stream = next(c.returned for c in calls if c.path == last)
    begin = trunk + "." if trunk else ""
    index = max(i for i, c in enumerate(calls) if c.path == last or c.path.startswith(last + "."))
    for call in calls[index + 1 :]:
        if call.path.startswith(begin) and same(call.given, stream) and call.returned.shape == stream.shape:
            return call.path[len(begin) :]
    return None


class _Layer:
    """What one layer's tensors say about its parts. Raises UnmappedModel where they fit no pattern."""

    def __init__(self, seen: SeenLayer, config: Any) -> None:
        self.seen, self.config = seen, config
        self.linears = [c for c in seen.calls if _is_linear(c.module)]
        self.width = seen.pre.shape[-1]
        self._find_attention()
        self._find_mlp()
        self._find_sums()

    # ---- attention ----

    def _find_attention(self) -> None:
        groups: dict[str, dict[str, str]] = {}
        for call in self.linears:
            parent, _, word = call.path.rpartition(".")
            for part, pattern in (("q", _QUERY), ("k", _KEY), ("v", _VALUE), ("qkv", _FUSED)):
                if pattern.fullmatch(word):
                    groups.setdefault(parent, {})[part] = word
        parents = [p for p, parts in groups.items() if p and (parts.keys() >= {"q", "k", "v"} or "qkv" in parts)]
        if not parents:
            raise UnmappedModel("no module of a layer holds projections to queries, keys and values")
        self.path, self.parts = parents[0], groups[parents[0]]
        self.fused = "q" not in self.parts
        inside = [c for c in self.linears if c.path.startswith(self.path + ".")]
        own = {f"{self.path}.{word}" for word in self.parts.values()}
        heads = getattr(self.config, "num_attention_heads", None)
        out = [c for c in inside if c.path not in own and _sizes(c.module)[1] == self.width]
        if not out or not heads or _sizes(out[-1].module)[0] % heads:
            raise UnmappedModel(f"{self.path} has no output projection of whole heads")
        self.o = out[-1].path
        mixed = _sizes(out[-1].module)[0]
        head_dim = mixed // heads
        if self.fused:
            kv_width = (_sizes(self.seen.call(f"{self.path}.{self.parts['qkv']}").module)[1] - mixed) // 2
        else:
            kv_width = _sizes(self.seen.call(f"{self.path}.{self.parts['v']}").module)[1]
        self.dims = Dims(self.width, heads, kv_width // head_dim, head_dim)

    # ---- MLP ----

    def _find_mlp(self) -> None:
        rest = [c for c in self.linears if not c.path.startswith(self.path + ".")]
        down = [c for c in rest if _sizes(c.module)[1] == self.width]
        self.down = down[-1] if down else None
        self.hidden: dict[str, Entry] = {}
        if self.down is None:  # experts, or something else that ends in no linear map
            own = [c for c in self.seen.calls[1:] if "." not in c.path and c.path != self.path.partition(".")[0]]
            branches = [c for c in own if c.returned.shape == self.seen.post.shape and not self._is_norm(c)]
            if not branches:
                raise UnmappedModel("a layer has no MLP that can be told from its other modules")
            self.mlp = branches[-1].path
            return
        self.mlp = self.down.path.rpartition(".")[0]
        neurons = _sizes(self.down.module)[0]
        ins = [c for c in rest if c is not self.down and _sizes(c.module)[1] in (neurons, 2 * neurons)]
        self.hidden = self._hidden(ins, self.down.given, neurons)

    def _hidden(self, ins: list[Call], post: Tensor, neurons: int) -> dict[str, Entry]:
        """Which linear map is activated and which multiplies: told by what the activation module was given."""
        leaves = [c for c in self.seen.calls if not list(c.module.parameters()) and c.given.shape == post.shape]
        for call in ins:
            fused = _sizes(call.module)[1] == 2 * neurons
            pieces = list(call.returned.chunk(2, dim=-1)) if fused else [call.returned]
            for index, piece in enumerate(pieces):
                activated = next((c for c in leaves if same(c.given, piece)), None)
                if activated is None:
                    continue
                rest: list[tuple[str, int | None, Tensor]] = [(c.path, None, c.returned) for c in ins if c is not call]
                for path, part, other in [(call.path, 1 - index, pieces[1 - index])] if fused else rest:
                    if same(activated.returned * other, post):
                        pre, up = (half(index), half(part)) if part is not None else (None, None)
                        return {"mlp.pre": outof(call.path, form=self._form(pre)), "mlp.up": outof(path, form=self._form(up))}
                if len(ins) == 1 and not fused and same(activated.returned, post):
                    return {
                        "mlp.pre": outof(call.path, form=self._form(None)),
                        "mlp.up": Refused("this MLP has no gate, so its only hidden input is mlp.pre"),
                    }
        return {}

    def _form(self, form: MakeForm | None) -> MakeForm | None:
        assert self.down is not None
        return flattened() if self.down.given.ndim == 2 and form is None else form

    def _is_norm(self, call: Call) -> bool:
        """Norms have no matrices, nor has dropout."""
        return all(p.ndim == 1 for p in call.module.parameters())

    # ---- the stream ----

    def _find_sums(self) -> None:
        """Which modules' outputs, added to the stream, make it what the layer returns; and where it stands between them."""
        seen = self.seen
        later = seen.after(self.path)
        # what the MLP or its down projection returns, or a norm or dropout behind it; and likewise for attention
        behind_mlp = [c for c in seen.after(self.mlp) if self.mlp] if self.mlp else []
        mlps = [c for c in [seen.call(self.mlp) if self.mlp else None, self.down, *behind_mlp] if c is not None]
        attentions = [seen.call(self.path), seen.call(self.o), *(c for c in later if c not in behind_mlp and not self._in_mlp(c))]
        attentions, mlps = ([c for c in calls if self._stream(c).shape == seen.pre.shape] for calls in (attentions, mlps))
        fits = [(a, m) for a in attentions for m in mlps if adds_up(seen.pre, self._stream(a) + self._stream(m), seen.post)]
        if not fits:
            raise UnmappedModel("no two modules of a layer add up to what it changes of the stream")
        self.attn_add, self.mlp_add = fits[0]
        attended = self._stream(self.attn_add)
        self.mid = next((c for c in later if adds_up(seen.pre, attended, self._stream(c, given=True))), None)

    def _in_mlp(self, call: Call) -> bool:
        return bool(self.mlp) and (call.path == self.mlp or call.path.startswith(self.mlp + "."))

    def _stream(self, call: Call, given: bool = False) -> Tensor:
        value = call.given if given else call.returned
        return value.reshape(self.seen.pre.shape) if value.numel() == self.seen.pre.numel() else value

    # ---- the table ----

    def table(self, kernel: Kernel, packing: str) -> dict[str, Entry]:
        inner = self.o[len(self.path) + 1 :]
        own = same(self._stream(self.seen.call(self.path)), self._stream(self.seen.call(self.o)))
        out = outof(self.path if own else self.o)
        unproven = "the structure of this model does not tell where this is"
        if not self.fused:
            projections = separate_qkv(self.path, self.parts["q"], self.parts["k"], self.parts["v"])
        elif packing:
            projections = fused_qkv(f"{self.path}.{self.parts['qkv']}", packing)
        else:
            projections = refused(unproven, *(f"attn.{part}_proj" for part in "qkv"))
        return merged(
            self._residual(),
            attention(self.path, inner, registered=kernel),
            {"attn.out": out, "attn.add": "attn.out" if out.path == self.attn_add.path else outof(self.attn_add.path)},
            projections,
            refused(unproven, "mlp.pre", "mlp.up", "mlp.post"),
            self.hidden,
            self._mlp(),
        )

    def _residual(self) -> dict[str, Entry]:
        if self.mid is None:
            return dict(parallel_residual())
        form = flattened() if self.mid.given.ndim == 2 else None
        return {"resid_pre": into(""), "resid_mid": into(self.mid.path, form=form, shared=True), "resid_post": outof("")}

    def _mlp(self) -> dict[str, Entry]:
        if self.down is None:
            return {"mlp.out": outof(self.mlp), "mlp.add": outof(self.mlp_add.path)}
        own = bool(self.mlp) and same(self.seen.call(self.mlp).returned, self.down.returned)
        form = flattened() if self.down.returned.ndim == 2 else None
        out = outof(self.mlp) if own else outof(self.down.path, form=form)
        add: Entry = "mlp.out" if self.mlp_add.path == out.path else outof(self.mlp_add.path)
        return {"mlp.post": into(self.down.path, form=self._form(None)), "mlp.out": out, "mlp.add": add}
