"""A plot as SVG: how a cost grows, one panel a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 30, 40
INK, RULE, COLOR = "#57606a", "#d0d7de", "#0969da"


class Line(NamedTuple):
    """One panel: what grows, what it costs, and the points."""

    x_name: str
    y_name: str
    xs: Sequence[float]
    ys: Sequence[float]


def draw(lines: Sequence[Line]) -> str:
    """Return all panels side by side; every y axis begins at 0."""
    panels = "".join(_panel(line, number * WIDTH) for number, line in enumerate(lines))
    total = WIDTH * len(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {HEIGHT}" '
        f'width="{total}" height="{HEIGHT}" font-family="sans-serif" font-size="11" fill="{INK}">'
        f'<rect width="{total}" height="{HEIGHT}" fill="#ffffff"/>{panels}</svg>\n'
    )


def _panel(line: Line, left: float) -> str:
    highest = _round_up(max(line.ys))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return round(left + LEFT + width * value / max(line.xs), 1)

    def y(value: float) -> float:
        return round(TOP + height * (1 - value / highest), 1)

    parts = [f'<text x="{left + LEFT}" y="18" font-weight="bold">{escape(line.y_name)}</text>']
    for step in range(5):
        value = highest * step / 4
        parts.append(
            f'<line x1="{x(0)}" x2="{x(max(line.xs))}" y1="{y(value)}" y2="{y(value)}" '
            f'stroke="{RULE}"/><text x="{left + LEFT - 6}" y="{y(value) + 4}" '
            f'text-anchor="end">{value:g}</text>'
        )
    points = [(x(each), y(value)) for each, value in zip(line.xs, line.ys, strict=True)]
    path = " ".join(f"{a},{b}" for a, b in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOR}" stroke-width="2"/>')
    for (a, b), value in zip(points, line.ys, strict=True):
        parts.append(f'<circle cx="{a}" cy="{b}" r="3" fill="{COLOR}"/>')
        parts.append(f'<text x="{a}" y="{b - 8}" text-anchor="middle">{value:.1f}</text>')
    for each in line.xs:
        if each >= max(line.xs) / 20:
            place = f'x="{x(each)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle"'
            parts.append(f"<text {place}>{each:g}</text>")
    parts.append(
        f'<text x="{x(max(line.xs) / 2)}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(line.x_name)}</text>"
    )
    return "".join(parts)


def _round_up(value: float) -> float:
    step = 10.0 ** (len(str(int(value))) - 1)
    return (value // step + 1) * step
