"""What the pictures are drawn with: the contenders' colours and a few SVG shapes."""

from __future__ import annotations

from html import escape

COLOURS = {
    "bare": "#222222",
    "plain hooks": "#8a8a8a",
    "plain loop": "#8a8a8a",
    "hand-batched": "#222222",
    "hand-batched whole": "#9a7b4f",
    "mainspring": "#d55e00",
    "nnsight": "#0072b2",
    "TransformerLens": "#009e73",
    "pyvene": "#cc79a7",
    "interp-engine": "#b8860b",
}


def header(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12" fill="#222">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    )


def text(x: float, y: float, words: str, **attributes: object) -> str:
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(words)}</text>'


def dot(x: float, y: float, colour: str, *, filled: bool, title: str) -> str:
    fill = colour if filled else "#ffffff"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{colour}" stroke-width="1.4">'
        f"<title>{escape(title)}</title></circle>"
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, *, opacity: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-opacity="{opacity}" stroke-width="1"/>'
    )
