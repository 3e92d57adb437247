"""Edits read from text, for the command line: ``layers.2.mlp.out(pos=-1).scale(0.5)``.

Arguments are numbers, words (`zero`, `mean`, `resample`) or, for `patch`, a quoted text that is run first and patched from.
"""

import json
import re
from collections.abc import Callable

from mainspring.edits import Edit
from mainspring.errors import EditError
from mainspring.sites import parse_site
from mainspring.trace import Trace

__all__ = ["parse_edit"]

_EDIT = re.compile(r"(?P<site>.+)\.(?P<verb>set|add|scale|ablate|patch|clamp|mask)\((?P<args>[^()]*|\".*\")\)\s*", re.DOTALL)


def parse_edit(text: str, run: Callable[[str, str], Trace] | None = None) -> Edit:
    """Read an edit. `run(prompt, site)` gives the trace that a `patch("prompt")` takes its value from."""
    match = _EDIT.fullmatch(text.strip())
    if not match:
        raise EditError(
            f"cannot read the edit {text!r}; examples: layers.2.mlp.out(pos=-1).scale(0), "
            'layers.*.attn.z(head=3).ablate(mean), layers.4.resid_post(pos=-1).patch("another prompt")'
        )
    site, verb, args = parse_site(match["site"]), match["verb"], match["args"].strip()
    if verb == "patch":
        try:
            prompt = json.loads(args)
        except ValueError:
            prompt = None
        if run is None or not isinstance(prompt, str):
            raise EditError(f"{text!r}: patch takes a prompt in double quotes, which is run first")
        return site.patch(run(prompt, str(site.bare)))
    if verb == "ablate":
        return site.ablate(args.strip("'\"") or "zero")
    if verb == "mask":
        if args:
            raise EditError(f"{text!r}: mask() takes nothing; name what it blocks on the site, as attn.scores(key=3).mask()")
        return site.mask()
    numbers = []
    for piece in args.split(",") if args else []:
        try:
            numbers.append(float(piece))
        except ValueError:
            raise EditError(f"{text!r}: {verb} takes numbers here, not {piece.strip()!r}") from None
    if verb == "clamp":
        if len(numbers) != 2:
            raise EditError(f"{text!r}: clamp takes two numbers, clamp(low,high)")
        return site.clamp(*numbers)
    if len(numbers) != 1:
        raise EditError(f"{text!r}: {verb} takes one number here; tensors are given in Python")
    return getattr(site, verb)(numbers[0])
