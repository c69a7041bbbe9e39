"""Where a figure stands: in the page, whose ink it takes, or in a file of its own with a background and captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

from limit_lab.report.figures import GRID, INK, MUTED

#: Page colours by the hex codes that figures are drawn in; the code itself stays as the fallback.
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line"}
PAPER = "#ffffff"
MARGIN, GAP, CAPTION = 12.0, 16.0, 20.0
#: An upper bound for the mean width of a letter in a caption.
LETTER = 7.2
FONT = "font: 600 11px 'DejaVu Sans', Verdana, sans-serif"


def themed(figure: str) -> str:
    """The figure with the ink of the page around it, which follows a dark theme."""
    for colour, variable in VARIABLES.items():
        figure = figure.replace(colour, f"var({variable}, {colour})")
    return figure


def standalone(title: str, panels: Sequence[tuple[str, str]]) -> str:
    """An SVG file of captioned figures in one row, on paper of its own, so that it reads on dark and light pages."""
    x, parts, height = MARGIN, [], 0.0
    for caption, figure in panels:
        head, body = figure.split(">", 1)
        width, tall = _size(head)
        head = re.sub(r'\s(width|height)="[^"]*"', "", head)
        parts.append(f'<text x="{x:g}" y="{MARGIN + 11:g}" fill="{INK}" style="{FONT}">{escape(caption)}</text>')
        parts.append(f'{head} x="{x:g}" y="{MARGIN + CAPTION:g}" width="{width:g}" height="{tall:g}">{body}')
        x += max(width, LETTER * len(caption)) + GAP
        height = max(height, tall)
    total = (round(x - GAP + MARGIN, 1), round(height + CAPTION + 2 * MARGIN, 1))
    size = f'width="{total[0]:g}" height="{total[1]:g}" viewBox="0 0 {total[0]:g} {total[1]:g}"'
    paper = f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>'
    inside = "\n".join([f"<title>{escape(title)}</title>", paper, *parts])
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{inside}\n</svg>\n'


def _size(head: str) -> tuple[float, float]:
    """Width and height of a figure, in points, from its viewBox."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    if found is None:
        raise ValueError(f"no viewBox in {head[:200]}")
    return float(found[1]), float(found[2])
