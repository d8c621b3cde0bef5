"""Recorded runs of which all that leaves is charged, made of noised counts by the formulas of a run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.federation.server.noised_evaluation import LOST
from flfed.records.reports.report import report
from flfed.records.store.entries import ComparisonRow, SentRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore, RunWriter
from flfed.summaries.noised_scores import ScoreCounts, bounds_of, score_counts

Found = dict[str, Any]
AUC = "roc_auc_score"
METRICS = (AUC, "log_loss", "brier_score_loss")
SITES = ("basel", "bern", "chur")
NAMES = (*SITES, "geneva")
STUDY = """
format = 1
name = "covered"
purpose = "Tell who comes back, each person protected at an epsilon of 3"
legal-basis = "made for tests"
seed = 3
[dataset]
name = "small"
[model]
name = "logistic"
[plan]
optimiser = "sgd"
steps = 20
[strategy]
name = "fedavg"
rounds = 40
[privacy]
covers = "study"
name = "record-dp"
epsilon = 3.0
delta = 1e-5
sampling = 0.1
clip = 4.0
"""
ANSWERS = [{"name": "counts", "noise": 9.836}, {"name": "scores", "noise": 3.111}]
SPENT = {"steps": 800, "epsilon": 2.9998, "delta": 1e-5, "budget": 4.0, "spent-before": 0.5}
PRIVACY = {
    "mechanism": "record-dp", "unit": "person", "epsilon": 2.9998, "delta": 1e-5, "noise": 4.554, "sampling": 0.1,
    "clip": 4.0, "steps": 800, "excludes-encoder": False, "trusts-server": None, "covers": "study", "answers": ANSWERS,
    "warnings": [], "uncharged": ["What a site's budget is.", "How long a site takes."],
}  # fmt: skip


def scores_of(rows: Sequence[int], *, seed: int = 8, noise: float = 3.111) -> list[ScoreCounts]:
    """Noised counts of sites with so many test rows, those of all sites together last."""
    rng, found = np.random.default_rng(seed), list[ScoreCounts]()
    for count in rows:
        odds = rng.normal(-1.5, 1.0, count)
        # The model is too extreme: the outcome's log-odds are 0.8 of its own.
        y = (rng.random(count) < 1 / (1 + np.exp(-0.8 * odds))).astype(np.int64)
        counts = score_counts(odds, y, np.ones(count), -1.5)
        counts = counts + rng.normal(0, noise, counts.shape)
        found.append(ScoreCounts(counts=counts, deviation=noise, centre=-1.5))
    together = np.sum([one.counts for one in found], axis=0)
    return [*found, ScoreCounts(counts=together, deviation=noise * len(rows) ** 0.5, centre=-1.5)]


def told(counts: ScoreCounts) -> Found:
    """What a record has of counts."""
    slope = counts.calibration_slope()
    ends = None if slope is None else {"value": slope.value, "low": slope.low, "high": slope.high}
    given = {
        "counts": counts.counts.tolist(),
        "edges": bounds_of(counts.centre).tolist(),
        "deviation": counts.deviation,
    }
    return json.loads(json.dumps(given | {"slope": ends}))


def rows_of(site: str | None, counts: ScoreCounts | None, reason: str = "") -> list[ComparisonRow]:
    """What a record has of the figures of counts."""
    found = []
    for metric in METRICS:
        one = None if counts is None else getattr(counts, metric)()
        why = reason or ("" if counts is None else counts.reason)
        row = ComparisonRow(site, "global", metric, None, method=why)
        found.append(row if one is None else replace(row, value=one.value, low=one.low, high=one.high, method="counts"))
    return found


def write(
    store: RunStore,
    series: str,
    *,
    sites: Sequence[str] = NAMES,
    rows: Sequence[int] = (2000, 1500, 1200, 60),
    repeat: int = 0,
    end: str = "completed",
    hidden: Sequence[str] = (),
    lost: bool = False,
) -> RunWriter:
    """Write one run as its recorder does; `hidden` sites share sums only, `lost` is where no bins can be made."""
    facts = {
        "engine": "inprocess", "path": "stacked", "primary": AUC, "task": "binary", "hashes": {"schema": "cd" * 32},
    }  # fmt: skip
    run = store.begin_run(series, repeat=repeat, seed=3 + repeat, rounds_planned=40, **facts)
    for place, site in enumerate(sites):
        run.sites([SiteRow(site, title=site, rows=3000 + place, holdout_rows=None, resplit=True)])
    run.summary("privacy", {**PRIVACY, "sites": dict.fromkeys(sites, SPENT)})
    kinds = (("query.statistic", 5_530), ("query.scores", 900), ("query.enrol", 240))
    run.sent(0, [SentRow(site, "to-server", kind, size) for site in sites for kind, size in kinds])
    for number in range(1, 41 if end == "completed" else 4):
        ways = ("to-server", "to-site")
        run.round(number, seconds=0.02, sent=[SentRow(site, way, "train", 3_290) for site in sites for way in ways])
    if end == "completed":
        whole: ScoreCounts | None = None
        each: dict[str, ScoreCounts] = {}
        if not lost:
            *own, whole = scores_of(rows, seed=8 + repeat)
            each = {site: one for site, one in zip(sites, own, strict=True) if site not in hidden}
        reason = LOST if lost else ""
        figures = [row for site, one in each.items() for row in rows_of(site, one)]
        run.comparison([*figures, *rows_of(None, whole, reason)], [])
        run.summary(
            "noised-scores",
            {
                "requested-sites": 0 if lost else len(sites), "reason": reason,
                "all": None if whole is None else told(whole),
            }
            | {"sites": {site: told(one) for site, one in each.items()}},
        )  # fmt: skip
    if end != "running":
        run.finish(
            status=end, seconds=1.4, reason="" if end == "completed" else "too few answers", arrays_sha256="ef" * 32
        )
    return run


def in_store(store: RunStore, url: str, *, repeats: int = 1, text: str = STUDY, **how: Any) -> Found:
    """The report of a run, or of several repeats."""
    series = store.begin_series(study="covered", study_sha256="ab" * 32, study_text=text, repeats=repeats)
    for repeat in range(repeats):
        write(store, series, repeat=repeat, **how)
    with RunReader.open(url) as reader:
        return report(reader, series)
