"""From what a user has (text, tokens, chat messages, images, a module's own arguments) to what a model's forward takes.

Padding is decided here and nowhere else: runs pad on the right, where every causal model is exact; generation pads on the left.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.errors import EmptyBatch, InputError, MissingTokenizer, PositionError
from mainspring.rows import Rows, Spans

__all__ = ["Prepared", "accepted", "prepare_inputs"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Arguments for the model's forward, the layout of the rows, and the tokens and texts they came from."""

    kwargs: dict[str, Any]
    rows: dict[str, Rows] = field(default_factory=dict)
    tokens: Tensor | None = None
    text: tuple[str, ...] | None = None
    batch: int | None = None


def accepted(module: nn.Module) -> frozenset[str]:
    """The argument names of a module's forward."""
    return frozenset(inspect.signature(module.forward).parameters)


def prepare_inputs(
    inputs: Any,
    *,
    module: nn.Module,
    names: frozenset[str],
    tokenizer: Any = None,
    processor: Any = None,
    images: Any = None,
    spans: Mapping[str, Any] | None = None,
    side: str = "right",
    own_positions: bool = False,
    vocabulary: int | None = None,
    device: torch.device | None = None,
) -> Prepared:
    """Tokenize, pad and lay out the inputs of one run."""
    if isinstance(inputs, Mapping) and "role" not in inputs:
        return _own_arguments(dict(inputs), spans, device, _encoder_decoder(module))
    if images is not None:
        return _with_images(inputs, images, processor, spans, device)
    if inputs is None:
        raise EmptyBatch("there is nothing to run: pass text, tokens, messages or a dictionary of the model's own arguments")
    text: tuple[str, ...] | None = None
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        return _first_argument(inputs, module, device)
    if isinstance(inputs, Tensor):
        ids = _token_tensor(inputs)
        rows_of_ids = None
    else:
        texts, rows_of_ids = _texts_or_ids(inputs, tokenizer)
        if texts is not None:
            text = tuple(texts)
            rows_of_ids = _tokenize(texts, tokenizer)
        assert rows_of_ids is not None
        for i, row in enumerate(rows_of_ids):
            if not row:
                raise EmptyBatch(f"row {i} of the inputs has no tokens")
        ids = None
    kwargs: dict[str, Any] = {}
    if ids is None:
        assert rows_of_ids is not None
        ids, mask = _pad(rows_of_ids, side, _pad_id(tokenizer, module))
    else:
        mask = None
    _check_vocabulary(ids, vocabulary)
    ids = ids.to(device) if device is not None else ids
    kwargs["input_ids"] = ids
    layout = Rows.full(*ids.shape) if mask is None else Rows.of_mask(mask)
    if mask is not None and layout.padded and "attention_mask" in names:
        kwargs["attention_mask"] = mask.to(ids.device)
        if "position_ids" in names and not own_positions and any(layout.offsets):
            kwargs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(ids.device)
    if spans:
        layout = Rows(layout.lengths, layout.offsets, layout.width, _find_spans(spans, layout, text, tokenizer))
    rows = {"": layout}
    if _encoder_decoder(module):
        kwargs["decoder_input_ids"] = _decoder_start(module, ids)
        rows = {"encoder": layout, "": Rows.full(ids.shape[0], 1)}
    return Prepared(kwargs, rows, ids, text, ids.shape[0])


def _encoder_decoder(module: nn.Module) -> bool:
    return bool(getattr(getattr(module, "config", None), "is_encoder_decoder", False))


def _decoder_start(module: nn.Module, ids: Tensor) -> Tensor:
    start = getattr(module.config, "decoder_start_token_id", None)  # type: ignore[union-attr]
    if start is None:
        raise InputError("this encoder-decoder names no decoder_start_token_id; pass decoder_input_ids in a dictionary")
    return ids.new_full((ids.shape[0], 1), start)


def _own_arguments(kwargs: dict[str, Any], spans: Any, device: torch.device | None, encoder_decoder: bool) -> Prepared:
    kwargs = {k: v.to(device) if isinstance(v, Tensor) and device is not None else v for k, v in kwargs.items()}
    tensors = [v for v in kwargs.values() if isinstance(v, Tensor) and v.ndim]
    if not tensors:
        raise EmptyBatch("the dictionary of inputs holds no tensors")
    if any(0 in t.shape for t in tensors):
        raise EmptyBatch("the inputs hold an empty tensor: " + ", ".join(k for k, v in kwargs.items() if isinstance(v, Tensor) and 0 in v.shape))
    rows: dict[str, Rows] = {}
    for stack, prefix in (("encoder", ""), ("", "decoder_")) if encoder_decoder else (("", ""),):
        tokens = kwargs.get(f"{prefix}input_ids", kwargs.get(f"{prefix}inputs_embeds"))
        if tokens is None:
            continue
        mask = kwargs.get(f"{prefix}attention_mask")
        rows[stack] = Rows.of_mask(mask) if mask is not None and mask.ndim == 2 else Rows.full(*tokens.shape[:2])
    if spans:
        key = "" if "" in rows else "encoder"
        layout = rows[key]
        rows[key] = Rows(layout.lengths, layout.offsets, layout.width, _find_spans(spans, layout, None, None))
    tokens = kwargs.get("input_ids")
    batch = next(iter(rows.values())).batch if rows else tensors[0].shape[0]
    return Prepared(kwargs, rows, tokens if isinstance(tokens, Tensor) else None, None, batch)


def _first_argument(value: Tensor, module: nn.Module, device: torch.device | None) -> Prepared:
    """A floating tensor goes to the module's first argument (pixels, embeddings, features)."""
    if 0 in value.shape:
        raise EmptyBatch(f"the input tensor of shape {tuple(value.shape)} is empty")
    first = next(iter(inspect.signature(module.forward).parameters))
    value = value.to(device) if device is not None else value
    return Prepared({first: value}, {}, None, None, value.shape[0] if value.ndim else None)


def _token_tensor(ids: Tensor) -> Tensor:
    if ids.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise InputError(f"tokens are integers, not {ids.dtype}")
    ids = ids.unsqueeze(0) if ids.ndim == 1 else ids
    if ids.ndim != 2:
        raise InputError(f"tokens have shape [pos] or [batch, pos], not {tuple(ids.shape)}")
    if 0 in ids.shape:
        raise EmptyBatch(f"the token tensor of shape {tuple(ids.shape)} is empty")
    return ids.long()


def _texts_or_ids(inputs: Any, tokenizer: Any) -> tuple[list[str] | None, list[list[int]] | None]:
    if isinstance(inputs, str):
        return [inputs], None
    if isinstance(inputs, Mapping):
        inputs = [inputs]
    if not isinstance(inputs, Sequence):
        raise InputError(f"inputs are text, tokens, messages or a dictionary, not {type(inputs).__name__}")
    if not inputs:
        raise EmptyBatch("the batch is empty; pass at least one text")
    if all(isinstance(x, str) for x in inputs):
        return list(inputs), None
    if all(isinstance(x, Mapping) and "role" in x for x in inputs):
        return [_chat([inputs], tokenizer)[0]], None
    if all(isinstance(x, Sequence) and x and all(isinstance(m, Mapping) for m in x) for x in inputs):
        return _chat(inputs, tokenizer), None
    if all(isinstance(x, int) and not isinstance(x, bool) for x in inputs):
        return None, [list(inputs)]
    if all(isinstance(x, Tensor) for x in inputs):
        return None, [_token_tensor(x)[0].tolist() for x in inputs]
    if all(isinstance(x, Sequence) and all(isinstance(i, int) for i in x) for x in inputs):
        return None, [list(x) for x in inputs]
    raise InputError("a batch is a list of texts, of token lists or of conversations, not a mixture")


def _chat(conversations: Sequence[Any], tokenizer: Any) -> list[str]:
    _need(tokenizer, "chat messages")
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("this tokenizer has no chat template; set tokenizer.chat_template, or pass plain text")
    return [tokenizer.apply_chat_template(list(c), tokenize=False, add_generation_prompt=True) for c in conversations]


def _need(tokenizer: Any, what: str) -> None:
    if tokenizer is None:
        raise MissingTokenizer(f"{what} needs a tokenizer; pass tokens, or wrap with ms.wrap(module, tokenizer=...)")


def _tokenize(texts: list[str], tokenizer: Any) -> list[list[int]]:
    _need(tokenizer, "text")
    chat = bool(getattr(tokenizer, "chat_template", None))
    bos = getattr(tokenizer, "bos_token", None)
    out = []
    for text in texts:
        # a rendered chat already holds its special tokens
        special = not (chat and bos and text.startswith(bos))
        out.append(list(tokenizer(text, add_special_tokens=special)["input_ids"]))
    return out


def _pad_id(tokenizer: Any, module: nn.Module) -> int:
    config = getattr(module, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for found in (getattr(text, "pad_token_id", None), getattr(tokenizer, "pad_token_id", None), getattr(text, "eos_token_id", None)):
        found = found[0] if isinstance(found, list | tuple) and found else found
        if isinstance(found, int) and found >= 0:
            return found
    return 0


def _pad(rows: list[list[int]], side: str, pad: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return ids, mask


def _check_vocabulary(ids: Tensor, size: int | None) -> None:
    if size is None or ids.device.type != "cpu":
        return
    low, high = (int(x) for x in torch.aminmax(ids))
    if low < 0 or high >= size:
        raise InputError(f"token {low if low < 0 else high} is outside the vocabulary of {size}")


def _with_images(inputs: Any, images: Any, processor: Any, spans: Any, device: torch.device | None) -> Prepared:
    if processor is None:
        raise MissingTokenizer(
            "images need the model's processor; load the model from a folder that has one, or ms.wrap(module, processor=...)"
        )
    conversation = isinstance(inputs, Sequence) and not isinstance(inputs, str) and inputs and isinstance(inputs[0], Mapping)
    text = processor.apply_chat_template(list(inputs), tokenize=False, add_generation_prompt=True) if conversation else inputs
    encoded = dict(processor(text=text, images=images, return_tensors="pt", padding=True))
    prepared = _own_arguments(encoded, spans, device, False)
    shown = (text,) if isinstance(text, str) else tuple(text)
    return Prepared(prepared.kwargs, prepared.rows, prepared.tokens, shown, prepared.batch)


def _find_spans(spans: Mapping[str, Any], layout: Rows, text: tuple[str, ...] | None, tokenizer: Any) -> Spans:
    """Each span as a (start, stop) per row: given so, once for all rows or per row, or as a piece of the text."""
    out = {}
    for name, given in spans.items():
        per_row = [given] * layout.batch if isinstance(given, str) or _is_pair(given) else list(given)
        if len(per_row) != layout.batch:
            raise PositionError(f"span {name!r} has {len(per_row)} entries for {layout.batch} rows")
        out[name] = tuple(_place(name, x, i, layout, text, tokenizer) for i, x in enumerate(per_row))
    return out


def _is_pair(x: Any) -> bool:
    return isinstance(x, Sequence) and len(x) == 2 and all(isinstance(i, int) for i in x)


def _place(name: str, given: Any, row: int, layout: Rows, text: tuple[str, ...] | None, tokenizer: Any) -> tuple[int, int]:
    length = layout.lengths[row]
    if _is_pair(given):
        start, stop = (i + length if i < 0 else i for i in given)
        if not 0 <= start < stop <= length:
            raise PositionError(f"span {name!r} of row {row} is {tuple(given)}, but the row has {length} tokens")
        return start, stop
    if not isinstance(given, str):
        raise PositionError(f"span {name!r} of row {row} is a piece of text or a (start, stop) pair, not {given!r}")
    if text is None:
        raise PositionError(f"span {name!r} is given as text, but the inputs are tokens; give (start, stop) instead")
    begin = text[row].find(given)
    if begin < 0:
        raise PositionError(f"span {name!r}: row {row} does not contain {given!r}")
    try:
        offsets = tokenizer(text[row], return_offsets_mapping=True)["offset_mapping"]
    except (NotImplementedError, KeyError, TypeError):
        raise PositionError(f"this tokenizer does not tell where tokens stand in text; give {name!r} as (start, stop)") from None
    inside = [i for i, (a, b) in enumerate(offsets) if a < begin + len(given) and b > begin and b > a]
    if not inside:
        raise PositionError(f"span {name!r}: no token of row {row} covers {given!r}")
    return inside[0], inside[-1] + 1
