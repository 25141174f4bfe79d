"""A line chart as SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 900, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 220, 40, 50
#: The colours of Okabe and Ito, which colour-blind people tell apart; further lines are dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("none", "7 4", "2 3", "10 4 2 4")
LEAST_TICKS = 4

Line = Sequence[tuple[float, float]]


def line_chart(lines: Mapping[str, Line], *, title: str, x_label: str, y_label: str) -> str:
    """An SVG document with these named lines, each of (x, y) points; those that are not finite are left out."""
    kept = {name: [point for point in line if all(map(math.isfinite, point))] for name, line in lines.items()}
    points = [point for line in kept.values() for point in line] or [(0.0, 0.0)]
    x_low, x_high = _spread(min(x for x, _ in points), max(x for x, _ in points))
    y_low, y_high = _spread(min(y for _, y in points), max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    right, bottom = place(x_high, y_low)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text((LEFT + right) / 2, TOP - 16, title, "middle"),
        _text((LEFT + right) / 2, HEIGHT - 12, x_label, "middle"),
        f'<g transform="translate(18 {(TOP + bottom) / 2:.1f}) rotate(-90)">{_text(0, 0, y_label, "middle")}</g>',
    ]
    for value in _ticks(x_low, x_high):
        x, _ = place(value, y_low)
        parts += [_line(x, TOP, x, bottom), _text(x, bottom + 18, f"{value:g}", "middle")]
    for value in _ticks(y_low, y_high):
        _, y = place(x_low, value)
        parts += [_line(LEFT, y, right, y), _text(LEFT - 6, y + 4, f"{value:g}", "end")]
    for index, (name, line) in enumerate(kept.items()):
        dash = DASHES[index // len(COLOURS) % len(DASHES)]
        style = f'fill="none" stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="2" stroke-dasharray="{dash}"'
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        y = TOP + 8 + index * min(18, (bottom - TOP) / len(kept))
        parts += [
            f'<polyline {style} points="{drawn}"/>',
            f'<polyline {style} points="{right + 14:.1f},{y:.1f} {right + 42:.1f},{y:.1f}"/>',
            _text(right + 50, y + 4, name, "start"),
        ]
    return "\n".join([*parts, "</svg>\n"])


def _spread(low: float, high: float) -> tuple[float, float]:
    """The range with a margin; one value alone gets room on both sides."""
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float) -> Iterator[float]:
    """Round values in the range: a few multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / LEAST_TICKS))
    step = max(factor * power for factor in (1, 2, 5) if factor * power * LEAST_TICKS <= high - low)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield number * step


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
