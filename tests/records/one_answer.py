"""Whether the words, tables, cards, command and JSON of a run say the same of each site, worked out by hand."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from flfed.records.objects import figure_of, run_of
from flfed.records.reports.narrative import comparison_rows, headline, story
from flfed.records.reports.report import report
from flfed.records.reports.site_verdict import code_of_mean
from flfed.records.statistics.intervals import possible, widening
from flfed.records.statistics.verdict import (
    DO_NOT_USE,
    INCONCLUSIVE,
    NO_CLEAR_GAIN,
    PAYS,
    VERDICTS,
    better_of,
    describe_verdict,
    metric_name,
)
from flfed.records.store.reader import RunReader

ROOT = Path(__file__).parents[2]
STARTS = {
    PAYS: "Yes: joining improves {name} at", NO_CLEAR_GAIN: "No clear improvement at",
    DO_NOT_USE: "No: do not use the shared model at", INCONCLUSIVE: "Inconclusive at",
}  # fmt: skip
"""The head of the page Sites by verdict."""
SITES_OPENED = 4


def check(url: str, name: str, flfed: Callable[..., Any]) -> dict[str, str]:
    """Compare all texts of a run with the verdicts that its JSON gives by hand; return these for the first metric."""
    with RunReader.open(url) as reader:
        found = report(reader, name)
    told = json.loads(flfed("run", "show", name, "--json")[1])
    printed = " ".join(flfed("run", "show", name)[1].split())
    by_metric = {metric: by_hand(told, metric) for metric in found["global"]}
    for metric, codes in by_metric.items():
        in_sentences(found, metric, codes)
    if not by_metric:
        assert "Nothing was compared" in printed
        assert all(site["verdict"] == INCONCLUSIVE for site in told["sites"].values())
        return {}
    codes = next(iter(by_metric.values()))
    assert {site: of["verdict"] for site, of in told["sites"].items()} == codes
    metric = next(iter(by_metric))
    start = tally(found, codes, metric)
    assert start in printed
    overview = page("p20_overview", name)
    assert start in words(overview)
    largest = " has the largest clear gain." in words(overview)
    assert largest == (PAYS in codes.values())
    for site in sorted(codes)[:SITES_OPENED]:
        heads = re.findall(r"### (.*)", words(page("p30_sites", name, site=site)))
        starts = {code: start.format(name=metric_name(metric)) for code, start in STARTS.items()}
        (answer,) = [head for head in heads if head.startswith(tuple(starts.values()))]
        assert answer.startswith(f"{starts[codes[site]]} {site}"), (answer, codes[site])
    return codes


def tally(found: dict[str, Any], codes: dict[str, str], metric: str) -> str:
    """The beginning of the sentence that counts verdicts."""
    many = Counter(codes.values())
    is_clear = code_of_mean(figure_of(run_of(found).mean_gain, metric)) == PAYS
    # "Joining improves it at 0 sites" would read as no, where most are inconclusive or the mean gain is clear.
    first = PAYS
    if PAYS not in many and (is_clear or 2 * many[INCONCLUSIVE] > len(codes)):
        first = max(VERDICTS, key=lambda code: many[code])
    said = describe_verdict(first, metric).removesuffix(" here")
    return f"{said[0].upper()}{said[1:]} at {many[first]} of {len(codes)} sites"


def in_sentences(found: dict[str, Any], metric: str, codes: dict[str, str]) -> None:
    """Hold table and sentences against the verdicts."""
    _, rows, _ = comparison_rows(found, metric)
    read = {site: describe_verdict(code, metric) for site, code in codes.items()}
    assert {row[0]: row[-1] for row in rows if row[0] in codes} == read
    assert [line.startswith(tally(found, codes, metric)) for line in headline(found, metric)].count(True) == 1
    said = story(found, metric=metric)
    largest = [line for line in said if " has the largest clear gain. " in line]
    assert bool(largest) == (PAYS in codes.values())
    assert all(codes[line.partition(" has the ")[0]] == PAYS for line in largest)
    assert not (largest and any("At no site does joining improve" in line for line in said))


def by_hand(told: dict[str, Any], metric: str) -> dict[str, str]:
    """Every site's verdict from the plain figures of the JSON, by the rule that stands in it."""
    return {site: judged(of, metric, told["verdict-rule"]) for site, of in told["sites"].items()}


def judged(site: dict[str, Any], metric: str, rule: dict[str, Any]) -> str:
    """One site's verdict: the better model's interval, widened for the sites looked at, against what is worthwhile."""
    classes, sign, gains = site["holdout-classes"], 1 if better_of(metric) == "higher" else -1, []
    for key in ("difference", "difference-personalised"):
        entry = site[key].get(metric)
        if entry and None not in (entry["value"], entry["low"], entry["high"]):
            by = widening(rule["sites"], entry["freedom"])
            ends = [entry["value"] + by * (entry[end] - entry["value"]) for end in ("low", "high")]
            ends = [possible(metric, end, difference=True) for end in ends]
            gains.append((sign * entry["value"], *sorted(sign * end for end in ends)))
    if not gains or (classes is not None and min(classes.values()) < 10):
        return INCONCLUSIVE
    _, low, high = max(gains, key=lambda gain: gain[0])
    least = rule["minimum-gain"][metric]
    return PAYS if low > least else DO_NOT_USE if high < -least else NO_CLEAR_GAIN


def words(opened: AppTest) -> str:
    """Every text of a page."""
    kinds = (opened.title, opened.markdown, opened.caption, opened.info, opened.warning, opened.error)
    return "\n".join(str(block.value) for kind in kinds for block in kind).replace("\\", "")


def page(file: str, run: str, **query: str) -> AppTest:
    """A page of the app with a run."""
    opened = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    opened.switch_page(str(ROOT / "flfed" / "records" / "dashboard" / "pages" / f"{file}.py"))
    for key, value in {"run": run, **query}.items():
        opened.query_params[key] = value
    opened.run()
    assert not opened.exception
    return opened
