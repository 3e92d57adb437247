"""How strips are asked about and described: 35 words, two styles, four kinds of prompt.

    vqa   <style> panel <number> :   colour shape action .        of that panel
    this  <style> this :             colour shape action .        of a panel that the text does not name
    all   <style> all                <number> : a b c .           six times, panels in order
    tour  <style> this all           <number> : a b c .           six times, numbers in order, panels in any order

The style word is `plain` (colour shape action) or `flip` (action shape colour): it must be read from the text.
"""

from collections.abc import Sequence
from typing import Literal

from mainspring.errors import InputError, nearest
from mainspring.tasks.comic_strips.strips import ACTIONS, COLOURS, SHAPES, Figure

__all__ = ["IMAGE", "KINDS", "NUMBERS", "SPECIALS", "STYLES", "WORDS", "Kind", "Style", "described", "listing", "prompt"]

Kind = Literal["vqa", "this", "all", "tour"]
Style = Literal["plain", "flip"]
KINDS, STYLES = ("vqa", "this", "all", "tour"), ("plain", "flip")
IMAGE = "<img>"
SPECIALS = ("<pad>", "<bos>", IMAGE, "<eos>")
NUMBERS = ("one", "two", "three", "four", "five", "six")
WORDS = (*SPECIALS, "plain", "flip", "panel", "all", "this", ":", ".", *NUMBERS, *COLOURS, *SHAPES, *ACTIONS)


def prompt(kind: str, style: str = "plain", panel: int = 1, image: bool = True) -> str:
    """The text that asks; `panel` counts from 1 and matters for `vqa` alone. The image comes first."""
    if kind == "vqa" and not 1 <= panel <= len(NUMBERS):
        raise InputError(f"there are words for panels 1 to {len(NUMBERS)}, not for {panel}; ask `this`, and steer")
    number = NUMBERS[panel - 1] if kind == "vqa" else ""
    asks = {
        "vqa": f"{style} panel {number} :",
        "this": f"{style} this :",
        "all": f"{style} all",
        "tour": f"{style} this all",
    }
    if kind not in asks:
        raise InputError(f"there is no kind of prompt {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
    if style not in STYLES:
        raise InputError(f"there is no style {style!r}{nearest(style, STYLES)}; there are {', '.join(STYLES)}")
    return f"{IMAGE} {asks[kind]}" if image else asks[kind]


def described(figure: Figure, style: str = "plain") -> tuple[str, str, str]:
    """The three words of a figure in the order of the style."""
    colour, shape, action = figure.words
    return (colour, shape, action) if style == "plain" else (action, shape, colour)


def listing(figures: Sequence[Figure], style: str = "plain") -> tuple[str, ...]:
    """The narration of figures under the numbers one, two, ...; six tokens each."""
    return tuple(w for number, f in zip(NUMBERS, figures, strict=False) for w in (number, ":", *described(f, style), "."))
