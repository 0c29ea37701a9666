"""Charts as SVG that is read on a light page and on a dark one: bars in groups, and lines."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 44, 40
COLOURS = ("#3b82c4", "#e08a1e", "#4d9d6b", "#b05fa8", "#8a8a8a")
_STYLE = "font: 12px sans-serif; fill: #888"


def bars(
    title: str, groups: Sequence[str], series: Mapping[str, Sequence[float]], *, unit: str
) -> str:
    """Draw a bar for each value of each series, group by group."""
    top = max((value for values in series.values() for value in values), default=0) or 1.0
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = room * 0.8 / len(series)
    drawn = []
    for place, values in enumerate(series.values()):
        for index, value in enumerate(values):
            height = (HEIGHT - TOP - BOTTOM) * value / top
            x = LEFT + index * room + room * 0.1 + place * width
            y = HEIGHT - BOTTOM - height
            drawn.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width * 0.94:.1f}" height="{height:.1f}"'
                f' fill="{COLOURS[place]}"/>'
            )
    for index, group in enumerate(groups):
        drawn.append(_text(LEFT + (index + 0.5) * room, HEIGHT - BOTTOM + 18, group, "middle"))
    return _frame(title, [*drawn, *_scale(0, top, unit)], list(series))


def lines(
    title: str, x: Sequence[float], series: Mapping[str, Sequence[float]], *, unit: str, below: str
) -> str:
    """Draw a line for each series; all begin at the bottom of the scale, which is 0."""
    top = max((value for values in series.values() for value in values), default=0) or 1.0
    first, last = min(x), max(*x, min(x) + 1)
    drawn = []
    for place, values in enumerate(series.values()):
        points = " ".join(
            f"{LEFT + (WIDTH - LEFT - RIGHT) * (at - first) / (last - first):.1f},"
            f"{HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top:.1f}"
            for at, value in zip(x, values, strict=True)
        )
        drawn.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[place]}" stroke-width="2"/>'
        )
    drawn += [
        _text(LEFT, HEIGHT - BOTTOM + 18, f"{first:g}", "middle"),
        _text(WIDTH - RIGHT, HEIGHT - BOTTOM + 18, f"{last:g}", "end"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 18, below, "middle"),
    ]
    return _frame(title, [*drawn, *_scale(0, top, unit)], list(series))


def _scale(bottom: float, top: float, unit: str) -> list[str]:
    """Draw a line and a number at round values up to the top."""
    step = 10.0 ** int(log10(top) - (top < 1))
    while top / step < 3:
        step /= 2
    while top / step > 8:
        step *= 2
    drawn, value = [], bottom
    while value <= top * 1.001:
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top
        drawn.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"'
            ' stroke="#888" stroke-opacity="0.35"/>'
        )
        drawn.append(_text(LEFT - 6, y + 4, f"{value:g}", "end"))
        value += step
    return [*drawn, _text(LEFT - 6, TOP - 12, unit, "end")]


def _frame(title: str, drawn: Sequence[str], names: Sequence[str]) -> str:
    legend = []
    x = LEFT
    for place, name in enumerate(names):
        legend.append(f'<rect x="{x}" y="24" width="10" height="10" fill="{COLOURS[place]}"/>')
        legend.append(_text(x + 14, 33, name, "start"))
        x += 28 + 7 * len(name)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            f'<text x="{LEFT}" y="14" style="{_STYLE}; font-weight: bold">{escape(title)}</text>',
            *legend,
            *drawn,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{_STYLE}">'
        f"{escape(text)}</text>"
    )
