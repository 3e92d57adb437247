"""Edits and traces on disk: JSON says what, safetensors hold the numbers. No pickle, no code.

`document_of(edits)` and `edits_of(document, tensors)` are inverse to each other for everything but `apply(fn)`. Files are written
to a neighbour first and then moved into place, so a failure never leaves half a file or destroys the old one.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mainspring.edits import Edit, Edits, as_edits
from mainspring.errors import BrokenCheckpoint, EditError, LoadError, NotPortable
from mainspring.rows import Rows
from mainspring.selectors import as_index, format_index, parse_index
from mainspring.sites import Site, parse_site
from mainspring.trace import Trace, Values

__all__ = ["document_of", "edits_of", "load_edits", "load_trace", "save_edits", "save_trace"]

VERSION = 1


def document_of(edits: Edit | Iterable[Edit]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON document and the tensors of some edits. Traces that they patch from are kept as far as the edits need them."""
    tensors: dict[str, Tensor] = {}
    traces: list[dict[str, Any]] = []
    seen: dict[tuple[int, str, str], int] = {}

    def hold(tensor: Tensor) -> dict[str, str]:
        name = f"t{len(tensors)}"
        tensors[name] = tensor.detach().contiguous().cpu().clone()
        return {"tensor": name}

    def keep(trace: Trace, site: Site) -> dict[str, int]:
        key = (id(trace), site.name, site.stack)
        if key not in seen:
            seen[key] = len(traces)
            chosen = {s: v for s, v in trace.read.items() if (s.name, s.stack) == (site.name, site.stack)}
            values = {str(s): hold(v)["tensor"] for s, v in chosen.items()}
            rows = {stack: _rows_out(r) for stack, r in trace.read.rows.items()}
            traces.append({"values": values, "rows": rows, "layers": dict(trace.read.n_layers)})
        return {"trace": seen[key]}

    def out(edit: Edit, key: str, value: Any) -> Any:
        if callable(value) and not isinstance(value, Trace | Tensor | Site):
            raise NotPortable(f"{edit} holds a Python function, which is not written as data; use the other verbs, or keep it in code")
        if isinstance(value, Tensor):
            return hold(value)
        if isinstance(value, Trace):
            return keep(value, edit["site"] or edit.site)
        if isinstance(value, Site):
            return {"site": str(value)}
        if key in ("row", "pos"):
            return {"index": format_index(value)}
        return list(value) if isinstance(value, tuple) else value

    listed = [
        {"site": str(e.site), "op": e.op, "params": {k: out(e, k, v) for k, v in e.params}} for e in as_edits(edits)
    ]
    return {"mainspring": "edits", "version": VERSION, "edits": listed, "traces": traces}, tensors


def edits_of(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Edits:
    """The edits that `document_of` wrote."""
    if document.get("mainspring") != "edits" or document.get("version") != VERSION:
        raise EditError(f"this is not a document of edits in version {VERSION}")
    traces = [_trace_in(t, tensors) for t in document["traces"]]

    def value(given: Any) -> Any:
        if isinstance(given, dict):
            (kind, held), *rest = given.items()
            if rest or kind not in ("tensor", "trace", "site", "index"):
                raise EditError(f"cannot read the parameter {given!r} of an edit")
            if kind == "tensor":
                return tensors[held]
            return traces[held] if kind == "trace" else parse_site(held) if kind == "site" else parse_index(held)
        return tuple(given) if isinstance(given, list) else given

    found = []
    for entry in document["edits"]:
        params = {k: value(v) for k, v in entry["params"].items()}
        if entry["op"] == "apply":
            raise NotPortable("a document of edits cannot hold apply(fn)")
        if any(k in ("row", "pos") for k in params):
            params = {k: as_index(v, k) if k in ("row", "pos") else v for k, v in params.items()}
        found.append(Edit(parse_site(entry["site"]), entry["op"], tuple(params.items())))
    return Edits(found)


def save_edits(edits: Edit | Iterable[Edit], path: str | os.PathLike[str]) -> None:
    """Write `path`.json and `path`.safetensors."""
    from safetensors.torch import save

    document, tensors = document_of(edits)
    base = Path(path)
    _replace(base.with_suffix(".safetensors"), save(tensors))
    _replace(base.with_suffix(".json"), json.dumps(document, indent=1).encode())


def load_edits(path: str | os.PathLike[str]) -> Edits:
    """Read what `save_edits` wrote."""
    base = Path(path)
    file = base.with_suffix(".json")
    if not file.is_file():
        raise LoadError(f"there is no file {file}")
    try:
        document = json.loads(file.read_text())
    except ValueError as error:
        raise BrokenCheckpoint(f"{file} is not JSON: {error}") from None
    return edits_of(document, _open(base.with_suffix(".safetensors"))[0])


def save_trace(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write a trace to one safetensors file. Edits are kept as text beside their counts."""
    from safetensors.torch import save

    tensors = {f"read/{site}": v for site, v in trace.read.items()} | {f"grad/{site}": v for site, v in trace.grad.items()}
    for name in ("tokens", "metric", "new_tokens"):
        if (value := getattr(trace, name, None)) is not None:
            tensors[name] = value
    try:
        tensors["logits"] = trace.logits
    except KeyError:
        pass
    about = {
        "mainspring": "trace",
        "version": VERSION,
        "rows": {stack: _rows_out(r) for stack, r in trace.read.rows.items()},
        "layers": dict(trace.read.n_layers) | dict(trace.grad.n_layers),
        "stopped_after": trace.stopped_after,
        "text": trace.text,
        "fired": [[str(edit), count] for edit, count in trace.fired.items()],
    }
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    _replace(Path(path), save(tensors, {"mainspring": json.dumps(about)}))


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Read what `save_trace` wrote. The model's full output object is not kept, its logits are."""
    tensors, metadata = _open(Path(path))
    try:
        about = json.loads(metadata["mainspring"])
    except (KeyError, ValueError):
        raise BrokenCheckpoint(f"{path} holds no trace; it was not written by Trace.save") from None
    rows = {stack: _rows_in(r) for stack, r in about["rows"].items()}

    def values(prefix: str, what: str) -> Values:
        found = {parse_site(k.removeprefix(prefix)): v for k, v in tensors.items() if k.startswith(prefix)}
        return Values(found, rows, about["layers"], what)

    output = {"logits": tensors["logits"]} if "logits" in tensors else None
    text = None if about["text"] is None else tuple(about["text"])
    return Trace(
        values("read/", "value"),
        values("grad/", "gradient"),
        {},
        output,
        tensors.get("tokens"),
        about["stopped_after"],
        text,
        tensors.get("metric"),
    )


def _rows_out(rows: Rows) -> dict[str, Any]:
    spans = {name: [list(p) for p in places] for name, places in rows.spans.items()}
    return {"lengths": list(rows.lengths), "offsets": list(rows.offsets), "width": rows.width, "spans": spans}


def _rows_in(given: Mapping[str, Any]) -> Rows:
    spans = {name: tuple((a, b) for a, b in places) for name, places in given["spans"].items()}
    return Rows(tuple(given["lengths"]), tuple(given["offsets"]), given["width"], spans)


def _trace_in(given: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Trace:
    values = {parse_site(site): tensors[name] for site, name in given["values"].items()}
    return Trace(Values(values, {stack: _rows_in(r) for stack, r in given["rows"].items()}, given["layers"]))


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise LoadError(f"there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise BrokenCheckpoint(f"{path} is damaged ({error}); write or fetch it again") from None


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(content)
    os.replace(draft, path)
