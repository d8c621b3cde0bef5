"""Panels of runs side by side.

They show what each run reached over all sites and at each, and in what their studies differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import streamlit as st

from flfed.records.charts.intervals import interval_chart
from flfed.records.dashboard import refresh
from flfed.records.dashboard.components.figure import figure
from flfed.records.dashboard.components.tables import table
from flfed.records.reports.events import STATUS_WORDS
from flfed.records.reports.recorded_run import leaves
from flfed.records.reports.report import primary_of
from flfed.records.reports.site_verdict import site_verdict
from flfed.records.statistics import Report
from flfed.records.statistics.listed.noised_scores import NOT_COMPARED
from flfed.records.statistics.verdict import ABSENT, interval, metric_name, number
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import parsed_study
from flfed.records.text import escape

MOST = 6
"""Most runs side by side; more columns cannot be read."""
OVERLAP = (
    "Intervals that overlap do not mean that two runs are alike. On the same test rows both go up and down "
    "together, so that a difference between them is known better than either figure; it is not measured here."
)
Compared = list[tuple[str, refresh.Shown]]


def side_by_side(series: Sequence[str], only: str | None) -> None:
    """Show some runs beside each other.

    Where they cannot be compared it says why.
    """
    found: Compared = []
    with RunReader.open(only=only) as reader:
        entries = {name: reader.runs_of(name) for name in series}
    for name, runs in entries.items():
        found.append((_name(runs), refresh.read(refresh.where(), name, refresh.mark_of(runs), only)))
    st.markdown("## Side by side")
    redrawn = {name: {site.site for site in shown.sites if site.resplit} for name, shown in found}
    for line in warnings([(name, shown.found, shown.study_text) for name, shown in found], redrawn):
        st.warning(escape(line))
    # A record that is read for one site alone has no true number of sites.
    table([line for line in _facts(found) if only is None or line[""] != "Sites"])
    metric = next((primary_of(shown.found) for _, shown in found if primary_of(shown.found)), None)
    if metric is not None:
        _figures(found, metric, only)
    differing = differences([(name, shown.study_text) for name, shown in found])
    st.markdown("### In what the studies differ")
    if differing:
        table(differing)
    else:
        st.markdown("In nothing: the studies are the same, word for word in all that counts.")


def _name(runs: Sequence[RunEntry]) -> str:
    """Return a run's name above its column.

    The end of its id tells runs of one study apart.
    """
    return f"{runs[0].study} {runs[0].series[-4:]}"


def warnings(
    found: Sequence[tuple[str, Report, str]], redrawn: Mapping[str, Collection[str]] = MappingProxyType({})
) -> list[str]:
    """Return which runs may not be compared.

    There is a sentence for each reason.

    Parameters
    ----------
    found : sequence of (name, report, text of the study)
    redrawn : mapping of name to sites
        Those that draw another holdout in each repeat.
    """
    datasets = {name: str(_keys(text).get("dataset.name", "")) for name, _, text in found}
    lines = []
    if len(by_dataset := _groups(datasets)) > 1:
        told = "; ".join(f"{dataset or 'not known'}: {_and(names)}" for dataset, names in by_dataset.items())
        lines.append(f"Figures of runs on different datasets say nothing of each other ({told}).")
    metrics = {name: primary_of(report) for name, report, _ in found}
    judged = {name: _judged(report, redrawn.get(name, ())) for name, report, _ in found}
    # Only runs on one dataset can be compared at all, so that the rest is checked within it.
    for dataset, names in by_dataset.items():
        where = f"Of the runs on {dataset}, " if len(by_dataset) > 1 else ""
        by_metric = _groups({name: metrics[name] for name in names if metrics[name]})
        if len(by_metric) > 1:
            told = "; ".join(f"{metric_name(str(metric))}: {_and(of)}" for metric, of in by_metric.items())
            lines.append(
                _sentence(f"{where}not all were chosen by the same figure: compare one that all have ({told}).")
            )
        by_rows = _groups({name: judged[name] for name in names if judged[name]})
        if len(by_rows) > 1:
            told = "; ".join(_and(of) for of in by_rows.values())
            said = f"not all were judged on the same sites and test rows ({told}): part of a difference is chance."
            lines.append(_sentence(where + said))
    return lines


def _judged(report: Report, redrawn: Collection[str]) -> tuple[tuple[str, int, int], ...]:
    """Return the rows on which a run was judged.

    Two runs were judged on the same rows where the results are equal. It is () of a run that was not judged.

    A site's holdout is the same in all runs, but for one that draws another in each repeat: the mean is
    then over as many of them as there are repeats.
    """
    rows = {name: site["holdout-rows"] for name, site in report["sites"].items()}
    if not any(rows.values()) or primary_of(report) is None:
        return ()
    # A fixed holdout is the same in each repeat, so that repeats do not count there.
    return tuple((name, rows[name] or 0, report["repeats"] if name in redrawn else 1) for name in sorted(rows))


def _groups(known: Mapping[str, Any]) -> dict[Any, list[str]]:
    """Return names grouped by their value."""
    groups: dict[Any, list[str]] = {}
    for name, value in known.items():
        groups.setdefault(value, []).append(name)
    return groups


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _facts(found: Compared) -> list[dict[str, str]]:
    """Return one line a fact, one column a run."""
    lines: dict[str, dict[str, str]] = {}
    for name, shown in found:
        report, privacy = shown.found, shown.found["privacy"]
        epsilon = "" if privacy["epsilon"] is None else f", ε {number(privacy['epsilon'])}"
        seconds = ABSENT if report["seconds"] is None else f"{report['seconds']:.1f}"
        facts = {
            "Run": report["run"],
            "Status": STATUS_WORDS[report["status"]],
            "Engine": report["engine"],
            "Rounds": f"{report['rounds']}",
            "Repeats": f"{report['repeats']}",
            "Seconds": seconds,
            "Sites": f"{len(report['sites'])}",
            "Privacy mechanism": f"{privacy['mechanism'] or 'not recorded'}{epsilon}",
        }
        # The table is turned: facts are its lines and runs its columns.
        for fact, value in facts.items():
            lines.setdefault(fact, {"": fact})[name] = value
    return list(lines.values())


def _figures(found: Compared, metric: str, only: str | None) -> None:
    """Show one figure of every run.

    It is shown over all sites as a chart, or at one site, and at each site as a table.
    """
    lines: list[Report] = []
    drawn: list[Report] = []
    for name, shown in found:
        of = shown.found if only is None else shown.found["sites"].get(only, {"global": {}})
        value, low, high = map(of["global"].get(metric, {}).get, ("value", "low", "high"))
        lines.append({"Run": name, metric_name(metric): value, "95 % low": low, "95 % high": high})
        drawn.append({"name": name, "arm": "global", "value": value, "low": low, "high": high})
    # For one site's people the figure of their own site stands in for that of all.
    where = "over all sites" if only is None else f"at {escape(only)}"
    title = f"{metric_name(metric)} of the shared model {where}, with 95 % CI"
    says = "; ".join(f"{line['Run']}: {number(line[metric_name(metric)])}" for line in lines)
    figure(st, title, interval_chart(drawn, metric), lines, key="compared", says=says)
    st.caption(OVERLAP)
    sites = sorted({site for _, shown in found for site in shown.found["sites"]})
    if sites:
        st.markdown(f"**{metric_name(metric)} of the shared model at each site, and whether joining pays**")
        table([{"Site": site} | {name: _at(shown.found, site, metric) for name, shown in found} for site in sites])


def _at(report: Report, site: str, metric: str) -> str:
    of_site = report["sites"].get(site)
    if of_site is None:
        return "took no part"
    entry = of_site["global"].get(metric, {})
    span = f" ({interval(entry['low'], entry['high'])})" if entry.get("low") is not None else ""
    said = "not compared with its own" if NOT_COMPARED in of_site else site_verdict(of_site, metric)[0]
    return f"{number(entry.get('value'))}{span}: {said}"


def differences(studies: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    r"""Return the keys in which some studies differ.

    The result has a column for each run.

    Examples
    --------
    >>> differences([("a", "seed = 1\nname = 'x'"), ("b", "seed = 2\nname = 'x'")])
    [{'Key': 'seed', 'a': '1', 'b': '2'}]
    """
    known = {name: _keys(text) for name, text in studies}
    keys = dict.fromkeys(key for found in known.values() for key in found)
    lines = []
    for key in keys:
        values = {name: str(found.get(key, "not given")) for name, found in known.items()}
        # A key that some study does not have counts as a difference too.
        if len(set(values.values())) > 1:
            lines.append({"Key": key} | values)
    return lines


def _keys(text: str) -> dict[str, Any]:
    """Return the values of a study by whole keys.

    What the study expects of itself is left out.
    """
    flat = leaves(parsed_study(text))
    return {key: value for key, value in flat.items() if not key.startswith("expected.")}
