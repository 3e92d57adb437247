"""`model.check()`: the map proven on the model at hand, with small inputs, leaving nothing behind.

Equations between the values of one run, then runs that edit, differentiate, pad and generate: see `models.invariants`.
Errors are relative and those of the worst token, since a mean over tokens hides the one that is wrong.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mainspring.errors import InputError, UnmappedModel
from mainspring.models.invariants.batching import generation, padding
from mainspring.models.invariants.bench import Bench
from mainspring.models.invariants.equations import Seen, equations, refusals
from mainspring.models.invariants.experiments import experiments
from mainspring.models.report import Report, Row
from mainspring.sites import Site
from mainspring.trace import Trace
from mainspring.vocabulary import LAYER_SITES, TOP_SITES

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["check", "example"]

READ = "every site can be read, in its shape"
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
LENGTH = 12


def check(model: "Model", inputs: Any = None) -> Report:
    """Prove a model's map on `inputs` (as for `run`, unpadded), or on random tokens or pixels.

    A vision-language model is proven on text alone unless `inputs` holds an example with images.
    """
    if model.map is None:
        raise UnmappedModel(f"{type(model.module).__name__} has no map to check")
    given = example(model) if inputs is None else dict(inputs) if isinstance(inputs, Mapping) else model.prepare(inputs).kwargs
    with _unchanged(model.module):
        return Report(f"{type(model.module).__name__} ({model.family} map, {model.dtype})", tuple(_rows(model, given)))


def _rows(model: "Model", given: Mapping[str, Any]) -> Iterator[Row]:
    tol = TOLERANCE.get(model.dtype, 1e-4)
    layered = [Site(n, i, s) for s in model.atlas.towers for i in range(model.atlas.depth(s)) for n in LAYER_SITES]
    tops = [Site(n, None, s) for s in model.atlas.towers for n in TOP_SITES if not s or n in ("embed", "final_norm")]
    places, reasons = refusals(model, layered + tops)
    reads = [site for site, place in places.items() if place.site == site]
    trace, broken = _read(model, given, reads)
    values = {site: trace.read.values[place.site] for site, place in places.items() if place.site in trace.read.values}
    reached = frozenset(site.stack for site in values)
    yield from _shapes(model, places, values, broken, reached)
    bench = Bench(model, given, {s: p for s, p in places.items() if s in values and p.site == s}, reasons, tol)
    fused, _ = _read(model, given, [s for s in reads if s in values and not s.name.endswith((".scores", ".pattern"))])
    weights = {s: v for s, v in values.items() if s.name.endswith((".scores", ".pattern"))}
    values = {site: fused.read.values[places[site].site] for site in values if site not in weights} | weights
    logits, head = _head(model, given)
    yield from equations(Seen(model, values, places, reasons, trace.read.rows, tol, logits, head, reached))
    yield from experiments(bench, values)
    if inputs := _texts(model):
        yield from padding(bench, inputs)
        yield from generation(bench, next(iter(inputs.values()))[1][0]["input_ids"])


def _read(model: "Model", given: Mapping[str, Any], sites: list[Site]) -> tuple[Trace, dict[Site, str]]:
    """One run that reads all; where that raises, without the sites that make it."""
    try:
        return model.run(dict(given), read=sites, until="end"), {}
    except Exception:
        broken = {}
        for site in sites:
            try:
                model.run(dict(given), read=site, until="end")
            except Exception as problem:
                broken[site] = f"{type(problem).__name__}: {problem}".splitlines()[0]
        return model.run(dict(given), read=[s for s in sites if s not in broken], until="end"), broken


def _shapes(
    model: "Model", places: Mapping[Site, Any], values: Mapping[Site, Tensor], broken: Mapping[Site, str], reached: frozenset[str]
) -> Iterator[Row]:
    complaints: dict[tuple[str, int | None], list[str]] = {}
    for site, place in places.items():
        where = complaints.setdefault((site.stack, site.layers), [])  # type: ignore[arg-type]
        if site in broken:
            where.append(f"{site.name}: {broken[site]}")
        elif site in values:
            value, sizes = values[site], place.sizes
            if place.axes and value.ndim != len(place.axes):
                where.append(f"{site.name} has shape {list(value.shape)}, not [{', '.join(place.axes)}]")
            where.extend(
                f"{site.name} has {value.shape[i]} along {axis}, not {sizes[axis]}"
                for i, axis in enumerate(place.axes)
                if axis in sizes and i < value.ndim and value.shape[i] != sizes[axis]
            )
        elif site.stack in reached and site.layers is not None:
            where.append(f"{site.name} was not reached")
    for (stack, layer), found in complaints.items():
        name = f"{stack} {layer}".strip() if layer is not None else stack
        if stack not in reached:
            yield Row(READ, name, "not applicable", None, "these inputs do not reach it")
        else:
            yield Row(READ, name, "failed" if found else "ok", None, "; ".join(found))


def _head(model: "Model", given: Mapping[str, Any]) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
    """The logits, and the input and output of the unembedding, by plain hooks on the bare module."""
    try:
        head = model.module.get_output_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        head = None
    if not isinstance(head, nn.Module):
        return None, None
    kept: list[tuple[Tensor, Tensor]] = []
    handle = head.register_forward_hook(lambda m, args, out: kept.append((args[0].clone(), out.clone())))
    try:
        logits = getattr(model.run(dict(given), until="end").output, "logits", None)
    finally:
        handle.remove()
    return logits, kept[-1] if kept else None


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Put back what a model's own code leaves on itself, such as the positions that some models remember."""
    before = [(m, {k: v for k, v in vars(m).items() if not k.startswith("_")}) for m in module.modules()]
    try:
        yield
    finally:
        for m, state in before:
            for key in [k for k in vars(m) if not k.startswith("_") and k not in state]:
                delattr(m, key)
            for key, value in state.items():
                if vars(m).get(key) is not value:
                    setattr(m, key, value)


# ---- inputs --------------------------------------------------------------------------------------------------------------------


def example(model: "Model") -> dict[str, Any]:
    """Small random arguments for a model's forward: tokens, and pixels where a model cannot do without them."""
    names, config = model._names, model.config
    out: dict[str, Any] = {}
    if "input_ids" in names:
        out["input_ids"] = _tokens(model, LENGTH, 0)
        if getattr(config, "is_encoder_decoder", False):
            out["decoder_input_ids"] = _tokens(model, 7, 1)
    if "pixel_values" in names and ("input_ids" not in names or not getattr(model.module, "can_generate", lambda: False)()):
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", None)
        if size is None:
            raise InputError("this model tells no image size; pass inputs= with an example of its own arguments")
        height, width = size if isinstance(size, list | tuple) else (size, size)
        generator = torch.Generator().manual_seed(0)
        words = config.get_text_config()
        end = getattr(words, "eos_token_id", None)
        if "input_ids" in out and isinstance(end, int) and 0 <= end < words.vocab_size:
            out["input_ids"][:, -1] = end  # where text is pooled at its end
        pixels = torch.randn(2, getattr(vision, "num_channels", 3), height, width, generator=generator)
        out["pixel_values"] = pixels.to(model.device, model.dtype)
    if not out:
        raise InputError(f"no example can be made for {type(model.module).__name__}; pass inputs= with its own arguments")
    return out


def _tokens(model: "Model", length: int, seed: int) -> Tensor:
    """[1, length] tokens that are none of the configuration's special ones."""
    size = model.atlas.vocabulary or model.config.get_text_config().vocab_size
    special = _special(model.config.to_dict() if hasattr(model.config, "to_dict") else {})
    usable = torch.tensor([i for i in range(size) if i not in special])
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or length + 4
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(usable), (1, max(4, min(length, longest - 4))), generator=generator)
    return usable[picks].to(model.device)


def _special(config: Mapping[Any, Any]) -> set[int]:
    found: set[int] = set()
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _special(value)
        elif isinstance(key, str) and key.endswith(("_token_id", "_token_index", "_token_ids")):
            found |= {v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, int)}
    return found


def _texts(model: "Model") -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """For each padding side a batch of three texts, and the texts alone. None for models without text."""
    if "input_ids" not in model._names or ("attention_mask" not in model._names and model.family not in ("mamba", "mamba2")):
        return {}
    more = {k: v for k, v in example(model).items() if k not in ("input_ids", "decoder_input_ids")}
    rows = [_tokens(model, n, 10 + n) for n in (LENGTH, 7, 4)]
    out = {}
    for side in ("right", "left"):
        prepared = model.prepare([row[0].tolist() for row in rows], side=side)
        batch = {**prepared.kwargs, **more}
        if "decoder_input_ids" in batch:
            batch["decoder_input_ids"] = _tokens(model, 7, 1).expand(3, -1).contiguous()
        alone = [{"input_ids": row, **more} for row in rows]
        if "decoder_input_ids" in batch:
            alone = [{**row, "decoder_input_ids": batch["decoder_input_ids"][:1]} for row in alone]
        out[side] = (batch, alone)
    return out
