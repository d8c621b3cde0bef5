"""Gains that `flfed study power` predicts beside those of studies on real data: `python -m benchmarks.predicted_gains`.

Each study is run with twenty re-splits. The first ten set its AUC and, for other studies, `d` and `c` of the curve; the
gain of the next ten is the one predicted. A study is predicted from the other tables alone: those that share its table
are left out, too. It writes gains_of_studies.csv, of which a test recomputes all figures, and prints the table of
docs/methods.md. `--recorded NAME=RUN` takes a run of the store in place of a new one; `--judge` reads the file alone.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median
from typing import Any

from docs.make.case_studies import data_folder
from docs.make.reference import table
from flfed.federation.server.run import run
from flfed.records.reports.recorded_run import Recorded
from flfed.records.reports.report import count_classes, report
from flfed.records.statistics.intervals import mean_over_sites, standard_error
from flfed.records.statistics.power import (
    LEAST_EVENTS,
    Curve,
    Design,
    Range,
    SiteRows,
    error_at,
    fit_curve,
    gain_error,
    mean_outlook,
    measured_range,
    of_one_study,
    own_auc,
)
from flfed.records.statistics.verdict import LEAST_OF_A_CLASS, LEAST_SITES, interval, number
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.study.study import Study

FILE = Path(__file__).with_name("gains_of_studies.csv")
AUC = "roc_auc_score"
HALF = 10
"""Re-splits of which the gain is a mean."""
WITHIN = 0.4
"""Largest relative distance of a predicted error from DeLong's."""
MOSTLY = 0.5
"""Share of re-splits, and of sites, that counts as most of them."""
LARGE = 100
"""Training rows from which on the width of an interval is looked at."""
QUICK = {"compare.resamples": 200}
"""Intervals of other figures are not looked at here; an AUC's is DeLong's."""


@dataclass(frozen=True)
class Case:
    """A study, under a name of its own where it is changed."""

    name: str
    study: str
    changes: tuple[tuple[str, Any], ...] = ()

    def load(self) -> Study:
        """Return the study as it is run."""
        return Study.load(self.study).replace(QUICK | dict(self.changes))


LOT = {"by": "iid", "sites": 12, "seed": 1}
CASES = (
    Case("stroke-outcome-by-hospital", "stroke-outcome-by-hospital"),
    Case("stroke-outcome", "stroke-outcome"),
    Case("readmission", "readmission"),
    Case("loan-default", "loan-default"),
    Case("heart-disease", "heart-disease"),
    Case("drug-reviews", "drug-reviews"),
    Case("preterm-birth", "preterm-birth"),
    Case("breast-cancer, cut into 12", "breast-cancer", (("dataset.partition", LOT),)),
    Case(
        "taiwan-credit-branches, linear",
        "taiwan-credit-branches",
        (("model.name", "logistic"), ("model.hidden", None), ("plan.lr", 0.5)),
    ),
    Case("scms-delivery", "scms-delivery"),
    Case("sba-loans", "sba-loans"),
)


@dataclass(frozen=True)
class SiteGain:
    """A site of a study, with its measured gain.

    Attributes
    ----------
    case, dataset : str
    columns : int
        Of the model.
    auc : float
        Mean AUC of the shared model over sites in the first ten re-splits.
    site : int
        Number of the site in the study.
    training, events, others : float
        Training rows, and test rows with the outcome and without: means over re-splits.
    gain : float
        Mean of the first ten re-splits.
    error : float or None
        Root of the mean variance, by DeLong's method, of these re-splits.
    next_gain : float or None
        Mean gain of the next ten; None where fewer than half of them have one, as of a site's gain in a report.
    trees : float
        Share of all re-splits in which the site's own model was boosted trees.
    """

    case: str
    dataset: str
    columns: int
    auc: float
    site: int
    training: float
    events: float
    others: float
    gain: float
    error: float | None
    next_gain: float | None
    trees: float

    @property
    def rows(self) -> SiteRows:
        """Its rows, as of a site alone."""
        return SiteRows(self.training, self.events, self.others)

    @property
    def rarer(self) -> float:
        """All rows of the rarer outcome, by its share of test rows."""
        test = self.events + self.others
        return min(self.events, self.others) * (self.training / test + 1)

    @property
    def is_judged(self) -> bool:
        """Whether it has ten test rows of each outcome and an error."""
        return self.error is not None and min(self.events, self.others) >= LEAST_OF_A_CLASS


def measure(case: Case, series: str) -> list[SiteGain]:
    """Return the sites of a recorded run of twenty re-splits; of one of ten, these are the next ones, too."""
    study = case.load()
    schema = datasets.load(study.dataset.name).schema
    with RunReader.open() as reader:
        runs = reader.runs_of(series)
        halves = [Recorded.read(reader, part) for part in (runs[:HALF], runs[HALF:])]
        counts = [count_classes(reader.summary(entry.run, "score-histograms") or {}) for entry in runs]
        found = report(reader, series)
    facts: dict[str, Any] = {"case": case.name, "dataset": study.dataset.name}
    facts["columns"] = len(schema.features(study.dataset.features))
    facts["auc"] = round(fmean(_sites_mean(halves[0])), 4)
    sites = []
    for place, (name, site) in enumerate(found["sites"].items()):
        first = _gains(halves[0], name)
        known = [each[name] for each in counts if name in each]
        if not (first and site["rows"] and known):
            continue
        events = round(fmean(each["1"] for each in known), 2)
        others = round(fmean(each["0"] for each in known), 2)
        following = _gains(halves[1], name) if len(runs) > HALF else first
        sites.append(
            SiteGain(
                **facts,
                site=place,
                training=round(site["rows"] - events - others, 2),
                events=events,
                others=others,
                gain=round(fmean(first), 5),
                error=_error(halves[0], name),
                next_gain=round(fmean(following), 5) if 2 * len(following) >= HALF else None,
                trees=round(site["local-only-families"].get("boosted-trees", 0) / len(runs), 2),
            )
        )
    return sites


def _gains(half: Recorded, site: str) -> list[float]:
    rows = [row for row, _ in half.differences.get((site, "global", AUC), [])]
    return [row.value for row in rows if row.value is not None]


def _error(half: Recorded, site: str) -> float | None:
    errors = []
    for row, _ in half.differences.get((site, "global", AUC), []):
        error = standard_error(AUC, row.value, row.low, row.high)
        if error is not None:
            errors.append(error**2)
    return round(math.sqrt(fmean(errors)), 5) if errors else None


def _sites_mean(half: Recorded) -> Iterator[float]:
    """Yield the shared model's mean AUC over sites, by re-split."""
    for row in half.figures[None, "sites-mean", AUC]:
        if row.value is not None:
            yield row.value


def write(sites: Sequence[SiteGain], path: Path = FILE) -> None:
    """Write the sites of all studies."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(SiteGain)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, sites))


def read_sites(path: Path = FILE) -> dict[str, list[SiteGain]]:
    """Return the sites of each case, as written."""
    cases: dict[str, list[SiteGain]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            whole = {key: int(line.pop(key)) for key in ("columns", "site")}
            names = {key: line.pop(key) for key in ("case", "dataset")}
            values = {key: float(value) if value else None for key, value in line.items()}
            site = SiteGain(**names, **whole, **values)  # type: ignore[arg-type]
            cases.setdefault(site.case, []).append(site)
    return cases


def beside_each_other(sites: Sequence[SiteGain]) -> list[tuple[SiteGain, SiteRows]]:
    """Return those sites of which the command predicts a gain, each with its rows beside the others'."""
    enough = [site for site in sites if site.rarer >= LEAST_EVENTS]
    return list(zip(enough, of_one_study([site.rows for site in enough]), strict=True))


@dataclass(frozen=True)
class Fit:
    """A study's own curve: `d` for each column, and `c`, None of fewer than four sites that can be judged."""

    dataset: str
    judged: int
    linear: bool
    dimensions: float
    unlikeness: float | None

    @property
    def counts(self) -> bool:
        """Whether other studies are predicted by it."""
        return self.linear and self.judged >= LEAST_SITES


def fit(sites: Sequence[SiteGain]) -> Fit:
    """Return the curve that a study's own figures make, by the same code as `--run`."""
    pairs = beside_each_other(sites)
    weight = math.fsum(rows.test_weight for _, rows in pairs)
    gain = math.fsum(rows.test_weight * site.gain for site, rows in pairs) / weight
    errors = [site.error if site.is_judged else None for site, _ in pairs]
    none = Range(math.nan, math.nan, math.nan)
    columns = sites[0].columns
    curve = fit_curve(
        [rows for _, rows in pairs], errors, Range(gain, gain, gain), Design(sites[0].auc), Curve(none, none)
    )
    c = curve.unlikeness.value / columns
    judged = sum(site.is_judged for site in sites)
    return Fit(
        dataset=sites[0].dataset,
        judged=judged,
        linear=is_linear(sites),
        dimensions=curve.dimensions.value / columns,
        unlikeness=None if math.isnan(c) else c,
    )


def range_of(values: Sequence[float]) -> Range:
    """Return the mean of several tables' figures, with the least and the largest."""
    return Range(fmean(values), min(values), max(values))


def is_linear(sites: Sequence[SiteGain]) -> bool:
    """Return whether at more than half of a study's sites the own model is mostly linear, as the shared one is."""
    return fmean(site.trees < MOSTLY for site in sites) > MOSTLY


def curve_without(dataset: str, fits: Mapping[str, Fit]) -> Curve:
    """Return `d` and `c` for each column by all tables but one; "" leaves none out.

    Only studies of linear models with a mean over sites count: of others the gain is chance. Those of one table have
    one voice.
    """
    by_table: dict[str, list[Fit]] = {}
    for each in fits.values():
        if each.dataset != dataset and each.counts:
            by_table.setdefault(each.dataset, []).append(each)
    dimensions = [fmean(each.dimensions for each in fits) for fits in by_table.values()]
    unlikeness = [[each.unlikeness for each in fits if each.unlikeness is not None] for fits in by_table.values()]
    return Curve(range_of(dimensions), range_of([fmean(each) for each in unlikeness if each]))


@dataclass(frozen=True)
class Judged:
    """Predictions of a study beside its figures.

    Attributes
    ----------
    ratios : list of float
        Predicted error over DeLong's, at each site with ten test rows of each outcome.
    uncorrelated : list of float
        The same as if both models' scores did not correlate.
    inside : list of bool
        Whether the next ten re-splits' gain lay in the interval of the expected one, at each site.
    widths : list of float
        Of these intervals at sites of 100 training rows or more.
    expected : Range or None
        Mean gain over sites that can be judged, None of fewer than three.
    measured : float or None
        Mean gain of the next ten re-splits at these.
    """

    ratios: list[float]
    uncorrelated: list[float]
    inside: list[bool]
    widths: list[float]
    expected: Range | None = None
    measured: float | None = None


def design_at(site: SiteGain) -> Design:
    """Return the basis of a site's figures."""
    return Design(site.auc, repeats=HALF, ratio=(site.events + site.others) / site.training)


def judge_mean(sites: Sequence[SiteGain], curve: Curve) -> tuple[Range | None, float | None]:
    """Return expected and measured mean gain over the sites that can be judged, in the next ten re-splits."""
    members = [(site, rows) for site, rows in beside_each_other(sites) if site.is_judged]
    if len(members) < LEAST_SITES or any(site.next_gain is None for site, _ in members):
        return None, None
    gains = [site.next_gain for site, _ in members]
    errors = [site.error * design_at(site).shrinkage for site, _ in members]
    expected = mean_outlook([rows for _, rows in members], design_at(members[0][0]), curve)
    return expected and expected[0], mean_over_sites(gains, errors).value


def judge(sites: Sequence[SiteGain], each_column: Curve) -> Judged:
    """Return the predictions of a study by a curve."""
    columns = sites[0].columns
    curve = Curve(each_column.dimensions.times(columns), each_column.unlikeness.times(columns))
    judged = Judged([], [], [], [], *judge_mean(sites, curve))
    for site, rows in beside_each_other(sites):
        design = design_at(site)
        own = own_auc(site.auc, rows.effective, curve.dimensions.value)
        if site.is_judged:
            error = error_at(rows, Design(site.auc), own, curve.unlikeness.value)
            judged.ratios.append(error / site.error)
            judged.uncorrelated.append(gain_error(site.auc, own, 0.0, rows.events, rows.others) / site.error)
        expected = measured_range(rows, design, curve)
        if site.next_gain is not None:
            judged.inside.append(expected.low <= site.next_gain <= expected.high)
        if site.training >= LARGE:
            judged.widths.append(expected.high - expected.low)
    return judged


def share_within(ratios: Sequence[float]) -> float:
    """Return the share of predicted errors that are within 40 % of DeLong's."""
    return fmean(abs(ratio - 1) <= WITHIN for ratio in ratios)


def lines(cases: Mapping[str, Sequence[SiteGain]]) -> list[list[str]]:
    """Return the table of all studies and of all sites together."""
    fits = {name: fit(sites) for name, sites in cases.items()}
    found = {name: judge(sites, curve_without(fits[name].dataset, fits)) for name, sites in cases.items()}
    cells = []
    for name, judged in found.items():
        own = fits[name]
        c = "–" if own.unlikeness is None else f"{own.unlikeness:.1f}"
        mean = "–"
        expected = judged.expected
        if expected is not None:
            mean = f"{number(expected.value)} ({interval(expected.low, expected.high, 3)}); {number(judged.measured)}"
        cells.append([name, str(cases[name][0].columns), f"{own.dimensions:.2f}", c, *figures(judged), mean])
    every = together([judged for name, judged in found.items() if fits[name].linear])
    return [*cells, ["all sites of linear models", "", "", "", *figures(every), ""]]


def together(found: Sequence[Judged]) -> Judged:
    """Return the predictions of several studies as of one."""
    parts = ("ratios", "uncorrelated", "inside", "widths")
    return Judged(*([each for judged in found for each in getattr(judged, part)] for part in parts))


def figures(judged: Judged) -> list[str]:
    """Return the cells of errors and intervals."""
    errors = ["–", "–", "–"]
    if judged.ratios:
        near = sum(abs(ratio - 1) <= WITHIN for ratio in judged.ratios)
        alone = f"{median(judged.uncorrelated):.1f}"
        errors = [f"{median(judged.ratios):.2f}", f"{near} of {len(judged.ratios)}", alone]
    width = f"{median(judged.widths):.2f}" if judged.widths else "–"
    return [*errors, f"{sum(judged.inside)} of {len(judged.inside)}", width]


HEAD = [
    "study", "columns", "d a column", "c a column", "error over DeLong's", "within 40 %", "without correlation",
    "gains inside", "median width", "mean: expected; measured",
]  # fmt: skip


def main() -> None:
    """Run the studies, or read their figures, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES], help="names of studies")
    parser.add_argument("--recorded", nargs="*", default=[], metavar="NAME=RUN")
    parser.add_argument("--judge", action="store_true", help="read the file alone")
    args = parser.parse_args()
    if not args.judge:
        series = dict(text.rsplit("=", 1) for text in args.recorded)
        kept = read_sites() if FILE.is_file() else {}
        for case in CASES:
            if case.name in args.only:
                kept[case.name] = measure(case, series.get(case.name) or run_case(case))
                write([site for each in CASES for site in kept.get(each.name, [])])
    cases = read_sites()
    print(table(HEAD, lines(cases)))
    print(curve_without("", {name: fit(sites) for name, sites in cases.items()}))


def run_case(case: Case) -> str:
    """Run a study with twenty re-splits, and return its series."""
    study = case.load()
    dataset = datasets.load(study.dataset.name)
    if dataset.absent():
        datasets.get(dataset, from_folder=data_folder(), progress=lambda line: None)
    return str(run(study, repeats=2 * HALF, jobs=-1).report["run"])


if __name__ == "__main__":
    main()
