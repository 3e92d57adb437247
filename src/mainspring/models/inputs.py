"""From what a user has (text, tokens, chat messages, images, a module's own arguments) to what a model's forward takes.

Padding is decided here and nowhere else: runs pad on the right, where every causal model is exact; generation pads on the left.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mainspring.errors import EmptyBatch, InputError, MissingTokenizer, PositionError
from mainspring.models.words import whole_words
from mainspring.rows import Rows, Spans

if TYPE_CHECKING:
    from mainspring.models.maps import Map

__all__ = ["Prepared", "accepted", "check_vocabulary", "complete", "prepare_inputs", "takes_tokens", "token_rows"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Arguments for the model's forward, the layout of the rows, and the tokens and texts they came from."""

    kwargs: dict[str, Any]
    rows: dict[str, Rows] = field(default_factory=dict)
    tokens: Tensor | None = None
    text: tuple[str, ...] | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Texts:
    """The texts of a batch; `rendered` chats already hold their special tokens."""

    texts: tuple[str, ...]
    rendered: bool = False


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
        if images is not None:
            raise InputError("give images= beside text or messages; a dictionary of the model's own arguments holds its own")
        return _own_arguments(dict(inputs), spans, device, is_encoder_decoder(module))
    inputs = [inputs] if isinstance(inputs, Mapping) else inputs
    if images is not None:
        return _with_images(inputs, images, processor, spans, side, device)
    if inputs is None:
        raise EmptyBatch("there is nothing to run: pass text, tokens, messages or a dictionary of the model's own arguments")
    if isinstance(inputs, Tensor) and (inputs.is_floating_point() or not names & {"input_ids", "args", "kwargs"}):
        return _first_argument(inputs, module, spans, device)
    text: Texts | None = None
    mask: Tensor | None = None
    if isinstance(inputs, Tensor):
        ids = _token_tensor(inputs)
    else:
        text, rows_of_ids = _texts_or_ids(inputs, tokenizer)
        if text is not None:
            rows_of_ids = [list(_encode(t, text.rendered, tokenizer)["input_ids"]) for t in text.texts]
        for i, row in enumerate(rows_of_ids):
            if not row:
                raise EmptyBatch(f"row {i} of the inputs has no tokens")
        # encoders may count positions from the left, so they pad on the right
        ids, mask = _pad(rows_of_ids, "right" if is_encoder_decoder(module) else side, _pad_id(tokenizer, module))
    check_vocabulary(ids, vocabulary)
    ids = ids.to(device) if device is not None else ids
    kwargs: dict[str, Any] = {"input_ids": ids}
    layout = Rows.full(ids.shape[0], ids.shape[1]) if mask is None else Rows.of_mask(mask)
    if mask is not None and layout.padded and "attention_mask" in names:
        kwargs["attention_mask"] = mask.to(ids.device)
        if "position_ids" in names and not own_positions and any(layout.offsets):
            kwargs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(ids.device)
    if spans:
        layout = Rows(layout.lengths, layout.offsets, layout.width, _find_spans(spans, layout, text, tokenizer))
    rows = {"": layout}
    if is_encoder_decoder(module):
        kwargs["decoder_input_ids"] = _decoder_start(module, ids)
        rows = {"encoder": layout, "": Rows.full(ids.shape[0], 1)}
    return Prepared(kwargs, rows, ids, None if text is None else text.texts, ids.shape[0])


def token_rows(ids: Tensor, vocabulary: int | None, device: torch.device) -> Prepared:
    """What `prepare_inputs` makes of a tensor of tokens, all of them real, for a model of one stream: the most common input."""
    # each call into torch costs microseconds on the small models that are run thousands of times
    if ids.dtype is not torch.int64 or ids.ndim != 2:
        ids = _token_tensor(ids)
    batch, width = ids.shape
    if not batch or not width:
        raise EmptyBatch(f"the token tensor of shape {tuple(ids.shape)} is empty")
    if vocabulary is not None:
        check_vocabulary(ids, vocabulary)
    if ids.device != device:
        ids = ids.to(device)
    return Prepared({"input_ids": ids}, {"": full_rows(batch, width)}, ids, None, batch)


@lru_cache(maxsize=256)
def full_rows(batch: int, width: int) -> Rows:
    """The layout of a batch without padding."""
    return Rows.full(batch, width)


def complete(prepared: Prepared, names: frozenset[str], layout: "Map | None") -> dict[str, Any]:
    """All that a forward with the argument `names` is given for one pass: no cache, and with mere tokens their mask and positions.

    A decoder works both out by itself, but where no mask is given it looks in the positions for several texts packed into one row,
    which takes some percent of the time of a small model. A family whose map says that it has its own positions is left alone.
    """
    given, ids = prepared.kwargs, prepared.tokens
    if "use_cache" not in names:
        return given
    counts = layout is not None and layout.positions == "given"
    if counts and len(given) == 1 and type(ids) is Tensor and "attention_mask" in names and "position_ids" in names:
        return {"use_cache": False, **given, **_spelled_out(*ids.shape, ids.device)}
    return {"use_cache": False, **given}


@lru_cache(maxsize=64)
def _spelled_out(batch: int, width: int, device: torch.device) -> dict[str, Tensor]:
    """Mask and positions of tokens without padding."""
    with torch.inference_mode(False):  # or a later run could take no gradients
        mask = torch.ones(batch, width, dtype=torch.bool, device=device)
        return {"attention_mask": mask, "position_ids": torch.arange(width, device=device)[None]}


def takes_tokens(module: nn.Module, names: frozenset[str]) -> bool:
    """Whether one stream of tokens is what a forward with the arguments `names` wants."""
    return "input_ids" in names and not is_encoder_decoder(module)


def is_encoder_decoder(module: nn.Module) -> bool:
    """Whether a model reads one text and writes another."""
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
        empty = [k for k, v in kwargs.items() if isinstance(v, Tensor) and 0 in v.shape]
        raise EmptyBatch(f"the inputs hold an empty tensor: {', '.join(empty)}")
    rows: dict[str, Rows] = {}
    for stack, prefix in (("encoder", ""), ("", "decoder_")) if encoder_decoder else (("", ""),):
        tokens = kwargs.get(f"{prefix}input_ids", kwargs.get(f"{prefix}inputs_embeds"))
        if tokens is None:
            continue
        mask = kwargs.get(f"{prefix}attention_mask")
        rows[stack] = Rows.of_mask(mask) if mask is not None and mask.ndim == 2 else Rows.full(*tokens.shape[:2])
    if spans:
        key = "encoder" if "encoder" in rows else ""
        layout = rows.get(key)
        if layout is None:
            raise PositionError("spans are stretches of tokens, and these inputs have no tokens")
        rows[key] = Rows(layout.lengths, layout.offsets, layout.width, _find_spans(spans, layout, None, None))
    tokens = kwargs.get("input_ids")
    batch = next(iter(rows.values())).batch if rows else tensors[0].shape[0]
    return Prepared(kwargs, rows, tokens if isinstance(tokens, Tensor) else None, None, batch)


def _first_argument(value: Tensor, module: nn.Module, spans: Any, device: torch.device | None) -> Prepared:
    """A tensor that is no tokens goes to the module's first argument (pixels, embeddings, features)."""
    if 0 in value.shape:
        raise EmptyBatch(f"the input tensor of shape {tuple(value.shape)} is empty")
    if spans:
        raise PositionError("spans are stretches of tokens, and these inputs have no tokens")
    first = next(iter(inspect.signature(module.forward).parameters))
    if first == "input_ids":
        raise InputError(f"tokens are integers, not {value.dtype}; embeddings are given as {{'inputs_embeds': tensor}}")
    value = value.to(device) if device is not None else value
    return Prepared({first: value}, {}, None, None, value.shape[0] if value.ndim else None)


def _token_tensor(ids: Tensor) -> Tensor:
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise InputError(f"tokens are integers, not {ids.dtype}")
    ids = ids.unsqueeze(0) if ids.ndim == 1 else ids
    if ids.ndim != 2:
        raise InputError(f"tokens have shape [pos] or [batch, pos], not {tuple(ids.shape)}")
    if 0 in ids.shape:
        raise EmptyBatch(f"the token tensor of shape {tuple(ids.shape)} is empty")
    return ids.long()


def _texts_or_ids(inputs: Any, tokenizer: Any) -> tuple[Texts | None, list[list[int]]]:
    if isinstance(inputs, str):
        inputs = [inputs]
    if not isinstance(inputs, Sequence):
        raise InputError(f"inputs are text, tokens, messages or a dictionary, not {type(inputs).__name__}")
    if not inputs:
        raise EmptyBatch("the batch is empty; pass at least one text")
    if all(isinstance(x, str) for x in inputs):
        _need(tokenizer, "text")
        return Texts(tuple(inputs)), []
    if (conversations := _conversations(inputs)) is not None:
        return Texts(_chat(conversations, tokenizer), rendered=True), []
    if all(_is_token(x) for x in inputs):
        return None, [list(inputs)]
    if all(isinstance(x, Tensor) for x in inputs):
        rows = [_token_tensor(x) for x in inputs if x.numel()]
        if any(len(row) != 1 for row in rows):
            raise InputError("a list of tensors has one row of tokens each: shape [pos] or [1, pos]")
        return None, [row[0].tolist() for row in rows] if len(rows) == len(inputs) else [[]]
    if all(isinstance(x, Sequence) and not isinstance(x, str) and all(_is_token(i) for i in x) for x in inputs):
        return None, [list(x) for x in inputs]
    raise InputError("a batch is a list of texts, of token lists or of conversations, not a mixture")


def _is_token(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _conversations(inputs: Any) -> list[list[Any]] | None:
    """Chat messages as a list of conversations; None where the inputs are none."""

    def message(x: Any) -> bool:
        return isinstance(x, Mapping) and "role" in x

    if not isinstance(inputs, Sequence) or isinstance(inputs, str) or not inputs:
        return None
    if all(message(x) for x in inputs):
        return [list(inputs)]
    if all(isinstance(x, Sequence) and not isinstance(x, str) and x and all(message(m) for m in x) for x in inputs):
        return [list(x) for x in inputs]
    return None


def _chat(conversations: Sequence[Any], tokenizer: Any) -> tuple[str, ...]:
    _need(tokenizer, "chat messages")
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("this tokenizer has no chat template; set tokenizer.chat_template, or pass plain text")
    return tuple(tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations)


def _need(tokenizer: Any, what: str) -> None:
    if tokenizer is None:
        raise MissingTokenizer(f"{what} needs a tokenizer; pass tokens, or wrap with ms.wrap(module, tokenizer=...)")


def _encode(text: str, rendered: bool, tokenizer: Any, **options: Any) -> Any:
    """One text as the tokenizer gives it; a chat that was rendered already holds its special tokens."""
    bos = getattr(tokenizer, "bos_token", None)
    rendered = rendered or bool(getattr(tokenizer, "chat_template", None) and bos and text.startswith(bos))
    with whole_words(tokenizer):
        return tokenizer(text, add_special_tokens=not rendered, **options)


def _pad_id(tokenizer: Any, module: nn.Module) -> int:
    config: Any = getattr(module, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for owner, name in ((text, "pad_token_id"), (tokenizer, "pad_token_id"), (text, "eos_token_id")):
        found = getattr(owner, name, None)
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


def check_vocabulary(ids: Tensor, size: int | None) -> None:
    """Refuse tokens that a table of `size` embeddings does not have; a size of None passes all."""
    if size is None or ids.device.type != "cpu":
        return
    if ids.numel() <= 512:  # for a few tokens Python is faster than a kernel
        rows = ids.tolist()
        low, high = min(map(min, rows)), max(map(max, rows))
    else:
        low, high = (int(x) for x in torch.aminmax(ids))
    if low < 0 or high >= size:
        raise InputError(f"token {low if low < 0 else high} is outside the vocabulary of {size}")


def _with_images(inputs: Any, images: Any, processor: Any, spans: Any, side: str, device: torch.device | None) -> Prepared:
    if processor is None:
        raise MissingTokenizer(
            "images need the model's processor; load the model from a folder that has one, or ms.wrap(module, processor=...)"
        )
    text = inputs
    if (conversations := _conversations(inputs)) is not None:
        text = [processor.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
    with whole_words(getattr(processor, "tokenizer", None)):
        encoded = dict(processor(text=text, images=images, return_tensors="pt", padding=True, padding_side=side))
    prepared = _own_arguments(encoded, spans, device, False)
    shown = (text,) if isinstance(text, str) else None if text is None else tuple(text)
    return Prepared(prepared.kwargs, prepared.rows, prepared.tokens, shown, prepared.batch)


def _find_spans(spans: Mapping[str, Any], layout: Rows, text: Texts | None, tokenizer: Any) -> Spans:
    """Each span as a (start, stop) per row: given so, once for all rows or per row, or as a piece of the text."""
    out = {}
    for name, given in spans.items():
        once = isinstance(given, str) or _is_pair(given) or not isinstance(given, Sequence)
        per_row = [given] * layout.batch if once else list(given)
        if len(per_row) != layout.batch:
            raise PositionError(f"span {name!r} has {len(per_row)} entries for {layout.batch} rows")
        out[name] = tuple(_place(name, x, i, layout, text, tokenizer) for i, x in enumerate(per_row))
    return out


def _is_pair(x: Any) -> bool:
    return isinstance(x, Sequence) and len(x) == 2 and all(isinstance(i, int) for i in x)


def _place(name: str, given: Any, row: int, layout: Rows, text: Texts | None, tokenizer: Any) -> tuple[int, int]:
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
    begin = text.texts[row].find(given)
    if not given or begin < 0:
        raise PositionError(f"span {name!r}: row {row} does not contain {given!r}")
    try:
        offsets = _encode(text.texts[row], text.rendered, tokenizer, return_offsets_mapping=True)["offset_mapping"]
    except (NotImplementedError, KeyError, TypeError):
        raise PositionError(f"this tokenizer does not tell where tokens stand in text; give {name!r} as (start, stop)") from None
    inside = [i for i, (a, b) in enumerate(offsets) if a < begin + len(given) and b > begin and b > a]
    if not inside:
        raise PositionError(f"span {name!r}: no token of row {row} covers {given!r}")
    return inside[0], inside[-1] + 1
