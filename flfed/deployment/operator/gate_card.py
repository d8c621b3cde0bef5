"""The card of a site's gate, to be printed: its fingerprint in groups and as a QR code."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import segno

from flfed.callbacks import now_utc
from flfed.deployment.site_state.trusted_files import coordinator_of, own_fingerprint
from flfed.files import write_whole
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from pathlib import Path

    from flfed.paths import SiteFolder

PUBLIC = 0o644
"""Mode of a card, which is no secret."""
QUIET = 4
"""Blank modules around a QR code, as ISO 18004 has them."""
HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
"""Characters of two modules above each other, by which of them have ink."""
LINES_OF_GROUPS = (0, 3, 6, 9)
"""Where a fingerprint of nine groups is broken into lines."""
WIDTH = 720
LEAST_HEIGHT = 320
MARGIN = 40
CODE = 240
LINE = 32
UNITS_PER_MM = 8
"""Sizes of the drawing: a card of 90 by 40 mm, or higher where a name is long."""
LETTERS = 33
"""Letters of a line beside the code."""


@dataclass(frozen=True)
class GateCard:
    """What stands on a card.

    Attributes
    ----------
    site, consortium : str
        `consortium` is empty where the site has joined none.
    fingerprint : str
        Of its gate.
    day : date
        When the card was made.
    """

    site: str
    consortium: str
    fingerprint: str
    day: date

    @classmethod
    def of_site(cls, folder: SiteFolder) -> GateCard:
        """Return the card of a site as of today, whose gate has a key.

        Raises
        ------
        UsageError
            If it has none.
        """
        fingerprint = own_fingerprint(folder)
        if not fingerprint:
            raise usage_error("operator.with.keyless", site=folder.site)
        return cls(folder.site, coordinator_of(folder), fingerprint, now_utc().date())

    def lines(self) -> list[str]:
        """Return the card's lines, the fingerprint in three of three groups each."""
        groups = self.fingerprint.split("-")
        consortium = self.consortium or render("commands.card.none")
        lines = [
            render("commands.card.title"),
            render("commands.card.site", site=self.site),
            render("commands.card.consortium", consortium=consortium),
            render("commands.card.gate"),
        ]
        for start, end in zip(LINES_OF_GROUPS, LINES_OF_GROUPS[1:], strict=False):
            lines.append("  " + "-".join(groups[start:end]))
        lines.append(render("commands.card.date", day=self.day.isoformat()))
        return lines

    def text(self) -> str:
        """Return the text of the QR code, which a phone shows and a person compares."""
        lines = self.lines()
        return "\n".join([*lines[:3], f"{lines[3]} {self.fingerprint}", lines[-1]])

    def printed(self, *, light: bool = False) -> str:
        """Return the card as text with its QR code.

        Parameters
        ----------
        light : bool
            Whether characters are light on a dark ground, as on most terminals; on paper they are
            dark.
        """
        code = "\n".join(draw_code(self._code(), light=light))
        return "\n".join([*self.lines(), "", code])

    def svg(self) -> str:
        """Return the card as a drawing with its QR code, 90 mm wide."""
        lines = []
        for line in self.lines():
            lines += textwrap.wrap(line, LETTERS, break_on_hyphens=False)
        height = max(LEAST_HEIGHT, 2 * MARGIN + LINE * len(lines))
        size = f'width="{WIDTH / UNITS_PER_MM:g}mm" height="{height / UNITS_PER_MM:g}mm"'
        code = self._code().svg_inline(scale=1, border=0, omitsize=True)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {height}">',
            f'<rect width="{WIDTH}" height="{height}" fill="#fff" stroke="#888"/>',
            f'<svg x="{MARGIN}" y="{MARGIN}" width="{CODE}" height="{CODE}">{code}</svg>',
            '<g font-family="monospace" font-size="20" fill="#000" xml:space="preserve">',
        ]
        left = CODE + 2 * MARGIN
        for number, line in enumerate(lines):
            down = MARGIN + 20 + LINE * number
            parts.append(f'<text x="{left}" y="{down}">{escape(line)}</text>')
        return "\n".join([*parts, "</g>", "</svg>", ""])

    def write(self, file: Path) -> None:
        """Write the drawing.

        Raises
        ------
        FlfedError
            If the file cannot be written.
        """
        write_whole(file, self.svg().encode(), mode=PUBLIC)

    def _code(self) -> segno.QRCode:
        return segno.make_qr(self.text(), error="m", encoding="utf-8")


def draw_code(code: segno.QRCode, *, light: bool) -> list[str]:
    """Return a QR code as lines, a character for two modules above each other.

    Parameters
    ----------
    code : segno.QRCode
    light : bool
        Whether characters are light, so that they stand for the light modules.
    """
    rows = [[bool(module) != light for module in row] for row in code.matrix_iter(border=QUIET)]
    if len(rows) % 2:
        rows.append([light] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        lines.append("".join(HALVES[pair] for pair in zip(upper, lower, strict=True)))
    return lines
