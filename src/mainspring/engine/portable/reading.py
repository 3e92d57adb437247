"""Reading what comes from outside: JSON without its ambiguities, and the header of a safetensors file before its numbers."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mainspring.engine.portable.allowed import DTYPES
from mainspring.engine.portable.limits import DEFAULT, Limits
from mainspring.errors import Malformed, TooLarge

__all__ = ["check_name", "check_selectors", "declared", "parse_json", "read_header", "read_tensors", "table_of"]

_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_HEADER_BYTES = 2**20


def parse_json(data: bytes | str, limits: Limits = DEFAULT) -> Any:
    """A JSON text that has one reading: no key twice, no NaN or infinity, no numbers beyond 64 bits, no half characters."""
    if len(data) > limits.document_bytes:
        raise TooLarge(f"the document has {len(data)} bytes; the limit is {limits.document_bytes}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        text.encode("utf-8")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float)
    except UnicodeError:
        raise Malformed("the document is not UTF-8") from None
    except RecursionError:
        raise Malformed("the document is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"the document is not JSON: {error.msg} at character {error.pos}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [k for k, _ in pairs]
        twice = next(k for k in keys if keys.count(k) > 1)
        raise Malformed(f"the key {twice[:40]!r} is given twice")
    return found


def _constant(word: str) -> Any:
    raise Malformed(f"{word} is not a number that travels")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise Malformed(f"the number {digits[:24]}... does not fit 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > 400 or not math.isfinite(found := float(digits)):
        raise Malformed(f"the number {digits[:24]} is not finite")
    return found


# ---- text ---------------------------------------------------------------------------------------------------------------------


def check_name(name: str, what: str) -> str:
    """A name that shows what it is: no control, invisible, direction-changing or half characters."""
    if not name or len(name) > 200:
        raise Malformed(f"{what} has {len(name)} characters; a name has 1 to 200")
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in name):
        raise Malformed(f"{what} {name.encode('ascii', 'backslashreplace').decode()!r} has invisible characters")
    return name


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_LONG_NUMBER = re.compile(r"\d{10}")


def check_selectors(text: str) -> str:
    """The text of a site or an index: plain ASCII outside quotes, numbers of at most nine digits, quotes as `check_name`."""
    for quoted in _QUOTED.findall(text):
        try:
            name = json.loads(quoted)
        except ValueError:
            raise Malformed(f"cannot read the quoted name {quoted[:80]!r}") from None
        if name:  # the module itself has the empty name
            check_name(name, "the name")
    bare = _QUOTED.sub('""', text)
    if not bare.isascii() or not bare.isprintable() or _LONG_NUMBER.search(bare):
        raise Malformed(
            f"the site {text[:80].encode('ascii', 'backslashreplace').decode()!r} is not plain text with short numbers"
        )
    return text


# ---- tensors ------------------------------------------------------------------------------------------------------------------

Table = Mapping[str, tuple[str, tuple[int, ...]]]


def table_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every tensor, by name."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    found = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in names:
            raise Malformed(f"the tensor {str(name)[:40]!r} is of a kind that does not travel")
        found[name] = names[tensor.dtype], tuple(tensor.shape)
    return found


def declared(document: Table, given: Table, limits: Limits = DEFAULT) -> None:
    """Refuse tensors that are not exactly those that the document declares."""
    if len(document) > limits.tensors:
        raise TooLarge(f"the document has {len(document)} tensors; the limit is {limits.tensors}")
    total = 0
    for dtype, shape in document.values():
        count = 1
        for n in shape:
            count *= n
            if count > limits.tensor_bytes:
                raise TooLarge(f"a tensor of shape {list(shape)[:8]} is beyond the limit of {limits.tensor_bytes} bytes")
        total += count * DTYPES[dtype].itemsize
    if total > limits.tensor_bytes:
        raise TooLarge(f"the tensors take {total} bytes; the limit is {limits.tensor_bytes}")
    if missing := sorted(document.keys() - given.keys()):
        raise Malformed(f"tensors are missing: {', '.join(missing[:5])}")
    if extra := sorted(given.keys() - document.keys()):
        raise Malformed(f"there are tensors that the document does not name: {', '.join(str(e)[:40] for e in extra[:5])}")
    for name, (dtype, shape) in document.items():
        if given[name] != (dtype, shape):
            have = given[name]
            raise Malformed(f"the tensor {name} is declared {dtype} {list(shape)} and comes as {have[0]} {list(have[1])}")


def read_header(data: bytes, size: int, limits: Limits = DEFAULT) -> Table:
    """Dtypes and shapes from the first bytes of a safetensors file of `size` bytes; the numbers must lie end to end behind it."""
    if size < 8 or len(data) < 8:
        raise Malformed("the tensors are not a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > _HEADER_BYTES or size > limits.tensor_bytes + _HEADER_BYTES + 8:
        raise TooLarge(f"the tensor file has a header of {length} and a length of {size} bytes, beyond the limits")
    if len(data) < 8 + length:
        raise Malformed("the tensor file ends within its header")
    header = parse_json(data[8 : 8 + length], limits)
    if not isinstance(header, dict):
        raise Malformed("the header of the tensor file is not an object")
    found, places = {}, []
    for name, about in header.items():
        if name == "__metadata__":
            continue
        match about:
            case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(start), int(stop)]} if (
                kind in _SAFETENSORS and len(shape) <= 16 and all(type(n) is int and n >= 0 for n in shape) and len(about) == 3
            ):
                dtype = _SAFETENSORS[kind]
                if math.prod(shape) * DTYPES[dtype].itemsize != stop - start:
                    raise Malformed(f"the tensor {name[:40]!r} is not as long as its shape says")
                found[name] = dtype, tuple(shape)
                places.append((start, stop))
            case _:
                raise Malformed(f"the tensor {name[:40]!r} has a header that cannot be read")
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise Malformed("the tensors overlap or leave gaps")
        end = stop
    if 8 + length + end != size:
        raise Malformed(f"the tensor file has {size} bytes; its header speaks of {8 + length + end}")
    return found


def read_tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose header was checked."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise Malformed(f"the tensor file is damaged: {str(error)[:200]}") from None
