"""Verification of a ledger line by line.

It finds what was changed, removed, moved, inserted or cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flfed.records.ledger.line import FORMAT, REPAIRED, START, Line, read_line


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the coordinator signed of a site's ledger.

    Attributes
    ----------
    site, run : str
    n : int
        Lines of the ledger at that time.
    head : str
        Hash of the last of them.
    """

    site: str
    run: str
    n: int
    head: str

    def facts(self) -> dict[str, str | int]:
        """Return what the signature is over."""
        return {"site": self.site, "run": self.run, "n": self.n, "head": self.head}


@dataclass
class Inspection:
    """Check of a ledger's lines in file order.

    It notes what is wrong.

    Parameters
    ----------
    receipts : tuple of Receipt
        What was signed; only by them a cut tail, or one that was written anew, can be found.

    Attributes
    ----------
    problems : list of str
        One sentence each, with the line that it is about.
    notes : list of str
        Likewise, on what an earlier version let pass: lines of an earlier time than those before them.
    last : Line or None
        The line with the highest number so far.
    repairs : int
        Torn lines that a recorded repair set aside.
    """

    receipts: tuple[Receipt, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last: Line | None = None
    repairs: int = 0
    _seen: set[int] = field(default_factory=set)
    _signed: dict[int, str] = field(default_factory=dict)
    _torn: bytes | None = None
    _place: str = "at the start"

    def __post_init__(self) -> None:
        """Note which lines' hashes will be asked for."""
        self._signed = dict.fromkeys((receipt.n for receipt in self.receipts), "")

    def look(self, raws: Iterable[bytes]) -> Iterator[Line]:
        """Yield every line that can be read.

        Whole and changed lines alike are yielded. `problems` is complete at the end.

        Parameters
        ----------
        raws : iterable of bytes
            With their ends, so that the last may lack its own.
        """
        for raw in raws:
            line = read_line(raw.removesuffix(b"\n"))
            if not raw.endswith(b"\n"):
                self._flush(None)
                self.problems.append(f"the file ends in the middle of a line, {self._place}")
            # What is no line may have been set aside by the next line, so it is judged then.
            if line is None:
                self._flush(None)
                self._torn = raw.removesuffix(b"\n") if raw.endswith(b"\n") else None
                continue
            self._flush(line)
            self._take(line)
            yield line
        self._flush(None)
        self._missing()
        self._signatures()

    def _flush(self, line: Line | None) -> None:
        """Check a torn line before `line`.

        `line` itself is checked too where it records a repair.
        """
        torn, self._torn = self._torn, None
        if torn is not None:
            if line is not None and line.whole and line.sets_aside(torn):
                self.repairs += 1
                return
            self.problems.append(f"something that is no line stands {self._place}")
        # A repair without its torn bytes shows that those were removed later.
        if line is not None and line.kind == REPAIRED and line.facts.get("torn-bytes") != 0:
            self.problems.append(f"what line {line.n} set aside no longer stands before it")

    def _take(self, line: Line) -> None:
        if not line.whole:
            self.problems.append(f"line {line.n} was changed: its hash is not that of its content")
        number = 0 if self.last is None else self.last.n
        # A number that is skipped is reported at the end, once all lines were seen.
        if line.n == number + 1:
            self._follows(line)
        elif line.n in self._seen:
            self.problems.append(f"a second line {line.n} stands {self._place}: one of the two was inserted")
        elif line.n < number:
            self.problems.append(f"line {line.n} is out of its order: it stands {self._place}")
        self._seen.add(line.n)
        if line.n > number:
            self.last = line
        # A changed line's own hash is not trusted: that of its content is compared.
        if line.n in self._signed:
            self._signed[line.n] = line.hash if line.whole else line.content_hash()
        self._place = f"after line {line.n}"

    def _follows(self, line: Line) -> None:
        """Check a line against its predecessor by number."""
        if self.last is None:
            if line.before != START:
                self.problems.append("line 1 was changed: it is not the first of its ledger")
            return
        # Earlier versions let clocks go back, so that in their lines it is only noted.
        if line.at < self.last.at:
            said = f"line {line.n} is of {line.at[:24]}, an earlier time than line {self.last.n}"
            (self.problems if line.format >= FORMAT else self.notes).append(said)
        # Where only a line's own hash was changed, the next one still follows its content.
        if line.before != self.last.hash and (self.last.whole or line.before != self.last.content_hash()):
            number = self.last.n
            self.problems.append(
                f"line {line.n} does not follow line {number} as it stands: line {number} was changed or replaced, "
                f"or line {line.n} was"
            )

    def _missing(self) -> None:
        before = 0
        for n in sorted(self._seen):
            if n > before + 1:
                self.problems.append(f"{lines_between(before + 1, n - 1)} missing")
            before = n

    def _signatures(self) -> None:
        """Check the lines against the signed receipts.

        The problem names where the first line that differs may begin.
        """
        agrees, number = 0, 0 if self.last is None else self.last.n
        # The lines up to the last receipt that agrees are as they were signed.
        for receipt in sorted(self.receipts, key=lambda receipt: receipt.n):
            signed = f"as the coordinator signed at run {receipt.run}"
            found = self._signed[receipt.n] or (START if receipt.n == 0 else "")
            if receipt.n > number:
                self.problems.append(
                    f"the ledger ends at line {number} but had {receipt.n}, {signed}: "
                    f"{lines_between(number + 1, receipt.n)} cut off"
                )
                return
            if found != receipt.head:
                self.problems.append(
                    f"{lines_between(agrees + 1, max(receipt.n, 1))} not {signed}: changed, removed or written anew"
                )
                return
            agrees = receipt.n


def lines_between(first: int, last: int) -> str:
    """Return numbers of lines as words, with their verb.

    Examples
    --------
    >>> lines_between(4, 4), lines_between(4, 6)
    ('line 4 is', 'lines 4 to 6 are')
    """
    return f"line {last} is" if first >= last else f"lines {first} to {last} are"
