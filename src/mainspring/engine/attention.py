"""One attention function, registered with transformers, through which q, k, v, scores and pattern are read and edited.

While a run wants attention internals, the configuration of the attention modules it names points to a registered name such as
`mainspring:sdpa`. The function behind it looks whether the calling thread has a run that wants something of this very module; if
not, it calls the model's own kernel. The mask counterpart of each name is the mask function of the kernel it stands for, so that
kernel gets just what it would have got. A module whose scores or pattern are wanted computes its softmax explicitly.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mainspring.engine.flow import active

__all__ = ["PREFIX", "explicit_attention", "kernel_name", "routed"]

PREFIX = "mainspring:"
_lock = threading.Lock()
_routed: dict[int, tuple[Any, str, int]] = {}
"""By id of a configuration: the configuration, its own implementation, and how many runs route it now."""


def kernel_name(config: Any) -> str:
    """The model's own attention implementation, also while runs route it."""
    name = getattr(config, "_attn_implementation", None) or "eager"
    return name.removeprefix(PREFIX)


@contextmanager
def routed(configs: Iterable[Any]) -> Iterator[None]:
    """Within this block attention modules of these configurations call `_attention`; nests and overlaps between threads."""
    distinct = {id(c): c for c in configs}
    with _lock:
        for key, config in distinct.items():
            _, own, count = _routed.get(key, (config, kernel_name(config), 0))
            if count == 0:
                _register(own)
                config._attn_implementation_internal = PREFIX + own
            _routed[key] = (config, own, count + 1)
    try:
        yield
    finally:
        with _lock:
            for key, config in distinct.items():
                _, own, count = _routed[key]
                if count > 1:
                    _routed[key] = (config, own, count - 1)
                else:
                    del _routed[key]
                    config._attn_implementation_internal = own


def _register(own: str) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = PREFIX + own
    if name in ALL_ATTENTION_FUNCTIONS:
        return

    def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
        return _attention(own, module, query, key, value, attention_mask, kwargs)

    if own in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])
    AttentionInterface.register(name, attention)


def _attention(
    own: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    flow = active.flow
    wanted = flow.attention.get(module) if flow is not None else None
    if flow is None or wanted is None:
        return _kernel(own, module)(module, query, key, value, mask, **kwargs)

    def visit(name: str) -> Callable[[Tensor], Tensor]:
        return lambda raw: flow.passing(wanted[name], raw) if name in wanted else raw

    query, key, value = visit("q")(query), visit("k")(key), visit("v")(value)
    if "scores" not in wanted and "pattern" not in wanted:
        return _kernel(own, module)(module, query, key, value, mask, **kwargs)
    if own == "eager" and mask is None:
        kwargs["is_causal"] = False  # an eager kernel forbids only what its mask forbids
    return explicit_attention(module, query, key, value, mask, kwargs, visit("scores"), visit("pattern"))


def _kernel(own: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if own in ALL_ATTENTION_FUNCTIONS:
        return ALL_ATTENTION_FUNCTIONS[own]
    # "eager" is no entry of the registry: every modeling file brings its own
    return sys.modules[type(module).__module__].eager_attention_forward


def explicit_attention(
    module: nn.Module,
    query: Float[Tensor, "b head query d"],
    key: Float[Tensor, "b kv_head key d"],
    value: Float[Tensor, "b kv_head key dv"],
    mask: Tensor | None,
    options: dict[str, Any],
    on_scores: Callable[[Tensor], Tensor] | None,
    on_pattern: Callable[[Tensor], Tensor] | None,
) -> tuple[Float[Tensor, "b query head dv"], Float[Tensor, "b head query key"]]:
    """Attention with its softmax written out; returns the mix of values, and the pattern.

    Scores are what the softmax sees: scaled, soft-capped, biased and masked, with -inf where attention is forbidden. A query
    that may look at nothing has an all-zero pattern.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scaling = options.get("scaling")
    scores = torch.matmul(query, key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if (softcap := options.get("softcap")) is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if (bias := options.get("position_bias")) is not None:
        scores = scores + bias
    blocked = _blocked(module, mask, query, key, options)
    if blocked is None and mask is not None:
        scores = scores + mask[..., : key.shape[-2]]
    elif blocked is not None:
        if mask is not None and mask.is_floating_point():
            scores = scores + mask[..., : key.shape[-2]]
        scores = scores.masked_fill(blocked, float("-inf"))
    if on_scores is not None:
        scores = on_scores(scores)
    sinks = options.get("s_aux")
    if sinks is not None:  # a learned score that takes weight and gives no value
        column = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)
        pattern = _softmax(torch.cat([scores, column], dim=-1), query.dtype)[..., :-1]
    else:
        pattern = _softmax(scores, query.dtype)
    if on_pattern is not None:
        pattern = on_pattern(pattern)
    dropped = nn.functional.dropout(pattern, p=options.get("dropout", 0.0), training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2).contiguous(), pattern


def _blocked(module: nn.Module, mask: Tensor | None, query: Tensor, key: Tensor, options: dict[str, Any]) -> Tensor | None:
    """Where attention is forbidden, broadcastable over [b, h, q, k]; None where a mask only biases."""
    if mask is not None:
        mask = mask[..., : key.shape[-2]]
        if mask.dtype == torch.bool:
            return ~mask
        return mask <= torch.finfo(mask.dtype).min / 2
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    queries, keys = query.shape[-2], key.shape[-2]
    if not causal or queries == 1:
        return None
    # kernels that take no mask are causal from the first key on
    return torch.ones(queries, keys, dtype=torch.bool, device=query.device).triu(1 + keys - queries)


def _softmax(scores: Tensor, dtype: torch.dtype) -> Tensor:
    pattern = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(dtype)
    return pattern.nan_to_num(0.0)
