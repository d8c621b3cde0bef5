"""A round with secure sums at real institutions beside a plain one, a part of `make bench-deployment`.

Four hospitals behind one coordinator, all on loopback. The same study with and without sums, in turns: with all sites
there, and with one killed. A round beyond the training counts, as in `benchmarks.deployment`; where a site is missing,
the deadline that the coordinator waits for it is taken off too.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.institutions import SITES, Ran, ours, study_text
from benchmarks.ways import DifferentResults

FOUR = tuple(sorted((*SITES, "switzerland")))
"""Of four pinned sites three are enough for a sum."""
MISSING = "switzerland"
ROUNDS, DEADLINE = 21, 8.0
SHORT = ROUNDS // 2
"""Rounds of a run that waits in each of them."""
SUMS = '[privacy]\nsecure-aggregation = "on"\n\n[compare]'
FAR = 1e-6
"""Largest difference of the arrays from those of the plain run, by rounding."""


def measure(data: Path, turns: int, training: float) -> dict[str, Any]:
    """Return the time of a round beyond training: plain, with sums, and with sums and a missing site.

    Parameters
    ----------
    data : Path
    turns : int
    training : float, CPU seconds
        Of a round in one process.

    Raises
    ------
    DifferentResults
        If sums give other arrays than plain updates.
    """
    # Each turn has other steps, so that it is another question: a site opens one list for one.
    texts = {f"{way}-{turn}": _text(way, turn) for turn in range(turns) for way in ("plain", "sums")}
    texts["missing"] = _text("missing", turns)
    ran: dict[str, list[Ran]] = {"plain": [], "sums": [], "missing": []}
    with (
        tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as made,
        ours(Path(made), data, texts, FOUR) as there,
    ):
        for turn in range(turns):
            for way in ("plain", "sums"):
                ran[way].append(there.run(f"{way}-{turn}"))
                _say(way, turn, ran[way][-1])
        # A run's cohort is who enrolled: the site is there at its start.
        found_missing = there.run("missing", kill=MISSING)
        # Once the server says that the site is not online, nobody waits for it any more.
        waited = [seconds for seconds in found_missing.seconds[1:] if seconds > DEADLINE]
        ran["missing"].append(replace(found_missing, seconds=waited))
        _say("missing", 0, ran["missing"][-1])
    apart = max(_apart(one, other) for one, other in zip(ran["plain"], ran["sums"], strict=True))
    if not apart <= FAR:
        raise DifferentResults(f"secure sums give arrays that differ by {apart:.1e} from plain ones")
    found: dict[str, Any] = {"training-seconds": round(training, 4), "sites": len(FOUR), "arrays-max-difference": apart}
    for way, runs in ran.items():
        away = training + (DEADLINE if way == "missing" else 0.0)
        beyond = [seconds - away for one in runs for seconds in one.seconds]
        found[way] = {
            "seconds": round(median(beyond), 3),
            "seconds-low": round(min(beyond), 3),
            "seconds-high": round(max(beyond), 3),
            "cpu-seconds": round(median(one.cpu for one in runs), 3),
            "rounds": len(beyond),
        }
    for way in ("sums", "missing"):
        found[f"{way}-ratio"] = round(found[way]["seconds"] / found["plain"]["seconds"], 3)
    return found


def _say(way: str, turn: int, ran: Ran) -> None:
    said = ", ".join(f"{seconds:.2f}" for seconds in ran.seconds)
    print(f"{way}, turn {turn + 1}: {said} s a round", flush=True)


def _text(way: str, turn: int) -> str:
    """Return the study of one way and turn."""
    text = study_text(SHORT if way == "missing" else ROUNDS).replace("lr = 0.05", f"lr = {0.05 + 0.001 * turn:g}")
    if way == "missing":
        text = text.replace("quorum = 0.75", f"quorum = 0.75\ndeadline = {DEADLINE}")
    return text if way == "plain" else text.replace("[compare]", SUMS)


def _apart(one: Ran, other: Ran) -> float:
    pairs = [(a, b) for name in one.arrays for a, b in zip(one.arrays[name], other.arrays[name], strict=True)]
    return max(abs(a - b) for a, b in pairs)
