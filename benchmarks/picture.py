"""The scale curve as an SVG file, written by hand: points, their line, the limit, which is a share of a bare loop."""

from __future__ import annotations

from typing import Any

from benchmarks.limits import SCALE_OVER_BARE

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 60, 40, 20, 50
STYLE = "font-family='sans-serif' font-size='13' fill='#333'"


def picture(scale: dict[str, Any]) -> str:
    """Return the curve: CPU seconds of a full round by the number of sites."""
    points = [(size["sites"], size["cpu-seconds-a-round"]) for size in scale["sizes"]]
    widest = max(x for x, _ in points)
    limit = [(size["sites"], SCALE_OVER_BARE * size["bare-cpu-seconds-a-round"]) for size in scale["sizes"]]
    highest = 1.1 * max(y for _, y in [*points, *limit])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / (1.05 * widest)
        return round(across, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / highest, 1)

    def line(start: tuple[float, float], end: tuple[float, float], look: str) -> str:
        (x1, y1), (x2, y2) = place(*start), place(*end)
        return f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' {look}/>"

    def text(x: float, y: float, said: str, anchor: str = "middle") -> str:
        return f"<text x='{x}' y='{y}' text-anchor='{anchor}' {STYLE}>{said}</text>"

    ticks = [text(place(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:,}") for x, _ in points]
    steps = [round(0.5 * number, 1) for number in range(int(highest / 0.5) + 1)]
    ticks += [text(LEFT - 8, place(0, y)[1] + 4, f"{y}", "end") for y in steps]
    fitted = [(x, scale["intercept"] + scale["slope"] * x) for x in (points[0][0], widest)]
    marks = [f"<circle cx='{place(*p)[0]}' cy='{place(*p)[1]}' r='5' fill='#1f77b4'/>" for p in points]
    marks += [
        text(place(*p)[0] - 8, place(*p)[1] - 8, f"{p[1]:.2f} s", "end" if p[0] == widest else "middle") for p in points
    ]
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        text(LEFT, 22, f"CPU seconds of a full round, by sites (R² {scale['r-squared']:.4f})", "start"),
        line((0, 0), (1.05 * widest, 0), "stroke='#333'"),
        line((0, 0), (0, highest), "stroke='#333'"),
        line((0, 0), limit[-1], "stroke='#d62728' stroke-dasharray='6 4'"),
        text(place(*limit[-1])[0] - 8, place(*limit[-1])[1] + 4, f"limit: {SCALE_OVER_BARE} of a bare loop", "end"),
        line(fitted[0], fitted[1], "stroke='#1f77b4'"),
        *ticks,
        *marks,
        text(WIDTH / 2, HEIGHT - 10, "sites of log-normal size, 200 rows on average"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
