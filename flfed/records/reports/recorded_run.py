"""Records of a run's repeats, sorted by place, and differences of two runs on the same random splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from flfed.records.objects import figure_of
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import mean_of, possible, resplit_interval
from flfed.records.statistics.verdict import ABSENT, Difference, better_of, gain_in_brackets, metric_name, number
from flfed.records.store.entries import ComparisonRow, DifferenceRow, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader, RunsReader
from flfed.study.former_names import study_values
from flfed.words import render

Place = tuple[str | None, str, str]
"""Key of a figure: site (None is all together), arm, metric. Of a difference, the arm compared with local-only."""


INCUMBENT = "incumbent"
"""Arm of the score in use."""


@dataclass(frozen=True)
class Recorded:
    """Records of a run's repeats, by place.

    Attributes
    ----------
    runs : list of (run, its sites by name)
        In the order of repeats.
    figures : dict of place to rows
        One row for each repeat with the figure.
    differences : dict of place to (row, ratio)
        Arm minus local-only, with the repeat's holdout rows per training row (`_ratio`); under the arm "incumbent"
        the shared model minus the score in use.
    """

    runs: list[tuple[RunEntry, dict[str, SiteEntry]]] = field(default_factory=list)
    figures: dict[Place, list[ComparisonRow]] = field(default_factory=dict)
    differences: dict[Place, list[tuple[DifferenceRow, float | None]]] = field(default_factory=dict)

    @property
    def first(self) -> RunEntry:
        """The run of the first repeat."""
        return self.runs[0][0]

    def values(self, place: Place) -> list[float | None]:
        """Return the figures of a place, by repeat."""
        return [row.value for row in self.figures.get(place, [])]

    @classmethod
    def read(cls, reader: RunsReader, runs: Sequence[RunEntry]) -> Self:
        """Return the records of some runs by place, in one pass."""
        recorded = cls()
        for run in runs:
            sites = {site.site: site for site in reader.sites(run.run)}
            recorded.runs.append((run, sites))
            for figure in reader.figures(run.run):
                recorded.figures.setdefault((figure.site, figure.arm, figure.metric), []).append(figure)
            for row in reader.differences(run.run):
                # Each arm is compared with the site's own model, and the shared one with the score in use.
                if row.b in ("local-only", INCUMBENT):
                    arm = INCUMBENT if row.b == INCUMBENT else row.a
                    pairs = recorded.differences.setdefault((row.site, arm, row.metric), [])
                    pairs.append((row, _ratio(sites.get(row.site or ""))))
        return recorded


LOSS = "log_loss"
"""Metric that is shown beside the primary one."""
LEAST_SPLITS = 2
"""Fewest splits for a difference with an interval."""
SCHEMA = "schema"
"""Name of the hash of a run's schema."""
TELLING = ("better", "worse")
"""Conclusive results of `shows`."""


def paired(base: Recorded, other: Recorded, place: Place, why: str = "") -> Report:
    """Return the gain of another run on the base, on the same random splits of the same rows.

    Parameters
    ----------
    base, other : Recorded
    place : (site or None, arm, metric)
    why : str
        Why there is no such difference, where the caller knows.

    Returns
    -------
    gain : dict
        "value", "low", "high" (95 %), "p" and "repeats", by `resplit_interval`; without such a difference all but
        "repeats" are None, with a "reason".
    """
    none = {"value": None, "low": None, "high": None, "p": None, "repeats": len(base.runs)}
    if why := why or _not_paired(base, other):
        return none | {"reason": why}
    pairs = list(zip(base.figures.get(place, []), other.figures.get(place, []), strict=False))
    values = [b.value - a.value for a, b in pairs if a.value is not None and b.value is not None]
    if len(values) < len(base.runs):
        return none | {"reason": f"defined in {len(values)} of {len(base.runs)} repeats only"}
    if any(a.n != b.n for a, b in pairs):
        return none | {"reason": render("report.pairs.holdouts")}
    mean, low, high, p = resplit_interval(values, _ratio_of_all(base))
    lower, upper = [possible(place[2], bound, difference=True) for bound in (low, high)]
    return {"value": mean, "low": lower, "high": upper, "p": p, "repeats": len(values), "reason": ""}


def shows(gain: Report, metric: str) -> str:
    """Return whether a method is better than its comparator, in words.

    Examples
    --------
    >>> shows({"log_loss": {"value": -0.2, "low": -0.3, "high": -0.1}}, "log_loss")
    'better'
    >>> shows({"log_loss": {"value": -0.2, "low": -0.5, "high": 0.1}}, "log_loss")
    'no difference shown'
    """
    figure = figure_of(gain, metric)
    if figure.value is None or figure.low is None or figure.high is None:
        return "inconclusive"
    if figure.low <= 0 <= figure.high:
        return "no difference shown"
    return "better" if (figure.low > 0) == (better_of(metric) == "higher") else "worse"


def _not_paired(base: Recorded, other: Recorded) -> str:
    """Return why two runs are not on the same random splits, or ""."""
    first, sites = base.runs[0]
    second, others = other.runs[0]
    if len(base.runs) < LEAST_SPLITS or len(other.runs) != len(base.runs):
        return render("report.pairs.few", least=LEAST_SPLITS)
    if [run.seed for run, _ in base.runs] != [run.seed for run, _ in other.runs]:
        return render("report.pairs.seeds")
    same_schema = first.hashes.get(SCHEMA) == second.hashes.get(SCHEMA)
    if not same_schema or _rows(sites) != _rows(others):
        # Under a budget that covers all releases, rows are counted with noise, and test rows are not counted.
        row_counts = [*_rows(sites).values(), *_rows(others).values()]
        if any(holdout is None for _, holdout in row_counts):
            return render("report.pairs.unknown")
        return render("report.pairs.rows")
    if not all(entry.resplit for entry in sites.values() if entry.status != "refused"):
        return render("report.pairs.fixed")
    return ""


@dataclass(frozen=True)
class TrainingSums:
    """Sums over the training rows of a series.

    Attributes
    ----------
    inputs : dict
        Keys of the study on which they depend.
    hashes : list of list of str
        By repeat, empty where unknown. Sums of the same rows have one in common.
    """

    inputs: dict[str, Any]
    hashes: list[list[str]]

    @classmethod
    def read(cls, reader: RunReader, recorded: Recorded) -> Self:
        """Return the sums of the runs of one series."""
        study = study_values(reader.series(recorded.first.series).study_text)
        inputs = {key: value for key, value in study.items() if key.startswith(INPUTS)}
        hashes = [(reader.summary(run.run, "training-sums") or {}).get("rounded", []) for run, _ in recorded.runs]
        return cls(inputs, hashes)

    def are_of_other_rows(self, other: TrainingSums) -> bool:
        """Return whether two series are not of the same rows, by the sums of each repeat.

        False where that is unknown, such as of studies that prepare their rows in other ways.
        """
        pairs = zip(self.hashes, other.hashes)
        apart = any(first and second and set(first).isdisjoint(second) for first, second in pairs)
        return apart and self.inputs == other.inputs


def _rows(sites: dict[str, SiteEntry]) -> dict[str, tuple[int | None, int | None]]:
    return {name: (entry.rows, entry.holdout_rows) for name, entry in sites.items() if entry.status != "refused"}


INPUTS = ("dataset.", "encode.", "plan.validation")
"""Keys of a study on which sums over the same rows depend."""
STRATEGY = "strategy.name"
"""Key of a study, with its table."""
PLAIN = "fedavg"
"""Name of plain averaging, the comparator of other methods."""
SAME_SERIES = 200
"""Newest series that are searched for other methods."""
IGNORED = ("name", "purpose", "legal-basis", "format", "seed", "expires", STRATEGY, "expected")
"""Keys of a study that do not distinguish methods."""


def methods_of(reader: RunReader, name: str) -> list[Report]:
    """Return the figures of methods on the same random splits as a run, plain averaging first.

    Parameters
    ----------
    reader : RunReader
    name : str
        A run's or series' id.

    Returns
    -------
    methods : list of dict
        The run's own series among them: "series", "method" in words, "plain" (whether it is plain averaging), "rounds",
        "value" by metric, and "gain" by metric (`paired`, compared with the first one; None for the first). Empty
        without another method. Without plain averaging the run's own series is the first.
    """
    opened = Recorded.read(reader, reader.runs_of(name))
    alike = _on_same_splits(reader, opened)
    if len(alike) < 2:
        return []
    texts = [study_values(reader.series(one.first.series).study_text) for one in alike]
    plain = next((place for place, text in enumerate(texts) if text.get(STRATEGY) == PLAIN), 0)
    metrics = (opened.first.primary, LOSS)
    methods = []
    for place in [plain, *(other for other in range(len(alike)) if other != plain)]:
        method = alike[place]
        gain = None
        if place != plain:
            gain = {metric: paired(alike[plain], method, (None, "global", metric)) for metric in metrics}
        line = {
            "series": method.first.series,
            "method": _in_words(texts[place], texts[plain]),
            "plain": texts[place].get(STRATEGY) == PLAIN,
            "rounds": method.first.rounds,
            "value": {metric: mean_of(method.values((None, "global", metric))) for metric in metrics},
            "gain": gain,
        }
        methods.append(line)
    return methods


def _on_same_splits(reader: RunReader, opened: Recorded) -> list[Recorded]:
    """Return the records of a run, and of other series on the same random splits."""
    alike = [opened]
    sums = TrainingSums.read(reader, opened)
    newest = dict.fromkeys(run.series for run in reader.runs(limit=SAME_SERIES * max(1, len(opened.runs))))
    for series in newest:
        runs = reader.runs_of(series)
        if series == opened.first.series or any(run.status != "completed" for run in runs):
            continue
        # Series that cannot be paired are left out before their figures are read.
        sites = Recorded()
        for run in runs:
            sites.runs.append((run, {entry.site: entry for entry in reader.sites(run.run)}))
        if not _not_paired(opened, sites) and not sums.are_of_other_rows(TrainingSums.read(reader, sites)):
            alike.append(Recorded.read(reader, runs))
    return alike


def _in_words(text: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """Return a method's name, with the keys in which its study differs from plain averaging's."""
    differing = [
        f"{key.rpartition('.')[2]} {text.get(key, 'not given')}"
        for key in dict.fromkeys([*text, *plain])
        if text.get(key) != plain.get(key) and not key.startswith(IGNORED)
    ]
    return ", ".join([str(text.get(STRATEGY, "")), *differing])


def _ratio_of_all(recorded: Recorded) -> float:
    """Return the holdout rows per training row of all sites together."""
    test_rows = 0
    every = 0
    for _, sites in recorded.runs:
        for rows, holdout in _rows(sites).values():
            every += rows or 0
            test_rows += holdout or 0
    return test_rows / max(every - test_rows, 1)


def _ratio(entry: SiteEntry | None) -> float | None:
    """Return the holdout rows per training row of a site, None where repeats drew no new holdouts."""
    if entry is None or not entry.resplit or not entry.rows or not entry.holdout_rows:
        return None
    return entry.holdout_rows / max(entry.rows - entry.holdout_rows, 1)


@dataclass(frozen=True)
class Method:
    """A method beside others, from `methods_of`."""

    series: str
    method: str
    plain: bool
    rounds: int
    value: Any
    gain: Any


def method_lines(methods: Sequence[Method], metric: str) -> list[dict[str, str]]:
    """Return a line for each method: its figures, its gain on the first one, and what that shows."""
    # An outcome that is a number has no log loss.
    figures = [of for of in dict.fromkeys((metric, LOSS)) if of == metric or methods[0].value[of] is not None]
    lines = []
    for method in methods:
        line = {"Method": method.method, "Rounds": str(method.rounds)}
        for of in figures:
            line[metric_name(of)] = number(method.value[of])
            line[f"Difference in {metric_name(of)} (95 % CI)"] = _difference(method.gain, of)
        lines.append(line | {"Finding": _finding(method, figures)})
    return lines


def _finding(method: Method, figures: Sequence[str]) -> str:
    if method.gain is None:
        return "plain averaging" if method.plain else "reference method"
    first, *others = figures
    # The loss may show errors of probabilities, which do not change the ranks of rows.
    beside = {of: shows(method.gain, of) for of in others}
    telling = [f"{metric_name(of)} {shown}" for of, shown in beside.items() if shown in TELLING]
    return "; ".join([shows(method.gain, first), *telling])


def _difference(gain: Report | None, metric: str) -> str:
    """Return a difference with its interval, or the reason why there is none."""
    if gain is None:
        return ""
    entry = figure_of(gain, metric)
    if entry.value is None:
        return f"{ABSENT}: {entry.reason}"
    return gain_in_brackets(Difference.of(entry))
