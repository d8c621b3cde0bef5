"""With which sites a dataset's sums were added up, by a site's ledger: one cohort, unless people change it.

From two sums over other sites of one dataset a coordinator can compute what the sites between them sent. So has the
way: a dataset whose sums left alone has none under secure aggregation, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flfed.records.ledger import Ledger
from flfed.records.ledger_line import RESTARTED, Line
from flfed.refusals import Refusal
from flfed.updates.masks.pairs import pins_hash
from flfed.updates.messages.kinds import BINS, COMPARE, EVALUATE, KEYS, SCORES, STATISTIC, SUMMARISE, TRAIN

COHORT, COHORT_SHA256, CHANGED = "cohort", "cohort-sha256", "changed-sites"
"""Keys of a line: the sites whose replies are added up, the hash of these with their fingerprints, and that people
approved other sites than before. A line of a reply that left alone has none of them."""
MODEL = "model-sha256"
"""Key of the line of a round: of the model that it was trained from (`first_sha256` of the first one)."""
OVER_ROWS = frozenset(kind.rpartition(".")[2] for kind in (TRAIN, EVALUATE, SUMMARISE, BINS, STATISTIC, SCORES))
"""Kinds of lines whose messages had updates, or sums over rows."""
_KEYS, _COMPARE = (kind.rpartition(".")[2] for kind in (KEYS, COMPARE))


class CohortLines:
    """Cohorts of each dataset by a ledger's lines, in their order."""

    def __init__(self) -> None:
        self._cohorts: dict[str, dict[str, str]] = {}
        self._last: dict[str, tuple[int, str]] = {}
        self._keyed = set[str]()
        self._trained: dict[tuple[str, str], set[str]] = {}
        self._after_loss = False

    @classmethod
    def of_ledger(cls, ledger: Ledger) -> CohortLines:
        """Return the cohorts by all lines of a ledger; raises FlfedError where it cannot be read."""
        lines = cls()
        for line in ledger.lines():
            lines.add(line)
        return lines

    def add(self, line: Line) -> None:
        """Count one more line."""
        if line.n == 1:
            self._after_loss = line.kind == RESTARTED
        if line.kind == _KEYS:
            self._keyed.add(line.text("run"))
        if not is_over_rows(line.kind, line.facts):
            return
        dataset = line.text("dataset")
        cohort = line.text(COHORT_SHA256)
        self._cohorts.setdefault(dataset, {})[cohort] = line.text(COHORT)
        if MODEL in line.facts:
            self._trained.setdefault((dataset, line.text(MODEL)), set()).add(cohort)
        # Lines are read from the last one back, and in parts.
        if line.n >= self._last.get(dataset, (0, ""))[0]:
            self._last[dataset] = (line.n, cohort)

    def has_keys(self, run: str) -> bool:
        """Return whether the site took the keys of a run."""
        return run in self._keyed

    def trained_elsewhere(self, dataset: str, model: str, cohort_sha256: str) -> bool:
        """Return whether a dataset was trained on from a model with another cohort than this one."""
        return bool(self._trained.get((dataset, model), set()) - {cohort_sha256})

    def has_changed(self, dataset: str) -> bool:
        """Return whether a dataset had more than one cohort, or an unknown one."""
        return self._after_loss or len(self._cohorts.get(dataset, {})) > 1

    def last_sites(self, dataset: str) -> str:
        """Return the sites of a dataset's last cohort, with commas between; "" where its sums left alone."""
        _, cohort = self._last.get(dataset, (0, ""))
        return self._cohorts.get(dataset, {}).get(cohort, "")

    def refusal(self, dataset: str, cohort_sha256: str, *, changed: bool) -> Refusal | None:
        """Return why a dataset has no sums with a cohort, None where it has.

        Parameters
        ----------
        dataset : str
        cohort_sha256 : str
            Hash of the sites with their fingerprints; "" where each reply leaves alone.
        changed : bool
            Whether people approved other sites than before.
        """
        if changed:
            return None
        before = self._last.get(dataset)
        if before is None:
            lost = self._after_loss and bool(cohort_sha256)
            return Refusal("cohort-after-loss", dataset=dataset) if lost else None
        if before[1] == cohort_sha256:
            return None
        if not before[1]:
            return Refusal("cohort-alone-before", dataset=dataset)
        return Refusal("cohort-other-before", dataset=dataset, sites=self.last_sites(dataset).replace(",", ", "))


def is_over_rows(kind: str, facts: Mapping[str, Any]) -> bool:
    """Return whether a kind of message has updates, or sums over rows; figures count where they may be added up."""
    name = kind.rpartition(".")[2]
    return name in OVER_ROWS or (name == _COMPARE and bool(facts.get(COHORT_SHA256)))


def cohort_facts(sites: Mapping[str, str], *, changed: bool) -> dict[str, Any]:
    """Return the ledger's facts of a cohort: sites with the fingerprints of their gates; none where each is alone."""
    facts: dict[str, Any] = {CHANGED: True} if changed else {}
    if sites:
        facts |= {COHORT: ",".join(sorted(sites)), COHORT_SHA256: pins_hash(sites)}
    return facts
