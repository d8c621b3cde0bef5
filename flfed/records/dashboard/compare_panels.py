"""Runs side by side: what each reached over all sites and at each, and in what their studies differ."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from flfed.records.dashboard import live
from flfed.records.dashboard.by_round import Curves, Spec
from flfed.records.dashboard.charts import ARM_COLOURS, AXIS_NUMBERS, axis_title
from flfed.records.dashboard.panels import STATUS_WORDS, escape, table
from flfed.records.dashboard.showing import Line, figure
from flfed.records.entries import RunEntry
from flfed.records.reading import RunReader
from flfed.records.reports import Report, primary_of, site_verdict
from flfed.records.verdicts import ABSENT, interval, metric_name, number

MOST = 6
"""Most runs side by side; more columns cannot be read."""
ROW_PIXELS, AXIS_PIXELS = 34, 70
Compared = list[tuple[str, live.Shown]]


def side_by_side(series: Sequence[str], only: str | None) -> None:
    """Show some runs beside each other, or why they cannot be."""
    found: Compared = []
    with RunReader.open(only=only) as reader:
        entries = {name: reader.runs_of(name) for name in series}
    for name, runs in entries.items():
        found.append((_name(runs), live.read(live.where(), name, live.mark_of(runs), only)))
    st.markdown("## Side by side")
    for line in warnings([(name, shown.found, shown.study_text) for name, shown in found]):
        st.warning(escape(line))
    table(_facts(found))
    metric = next((primary_of(shown.found) for _, shown in found if primary_of(shown.found)), None)
    if metric is not None:
        _figures(found, metric)
    differing = differences([(name, shown.study_text) for name, shown in found])
    st.markdown("### In what the studies differ")
    if differing:
        table(differing)
    else:
        st.markdown("In nothing: the studies are the same, word for word in all that counts.")


def _name(runs: Sequence[RunEntry]) -> str:
    """Return what a run is called above its column: the end of its id tells runs of one study apart."""
    return f"{runs[0].study} {runs[0].series[-4:]}"


def warnings(found: Sequence[tuple[str, Report, str]]) -> list[str]:
    """Return why figures of these runs may not be compared, in sentences."""
    lines = []
    datasets = {_keys(text).get("dataset.name", "") for _, _, text in found}
    metrics = {primary_of(report) for _, report, _ in found if primary_of(report)}
    rows = [{name: site["holdout-rows"] for name, site in report["sites"].items()} for _, report, _ in found]
    if len(datasets) > 1:
        named = ", ".join(sorted(map(str, datasets)))
        lines.append(f"The runs are on different datasets ({named}): their figures say nothing of each other.")
    elif len(metrics) > 1:
        lines.append("The runs were chosen by different figures: compare those that both have.")
    elif any(one != rows[0] for one in rows if one and rows[0]):
        lines.append("The runs were judged on other sites or on other holdout rows: part of a difference is chance.")
    return lines


def _facts(found: Compared) -> list[dict[str, str]]:
    """Return one line a fact, a column a run."""
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
        for fact, value in facts.items():
            lines.setdefault(fact, {"": fact})[name] = value
    return list(lines.values())


def _figures(found: Compared, metric: str) -> None:
    """Show one figure of every run: over all sites as a chart, and at each site as a table."""
    lines: list[Line] = []
    for name, shown in found:
        entry = shown.found["global"].get(metric, {})
        span = {"95 % low": entry.get("low"), "95 % high": entry.get("high")}
        lines.append({"Run": name, metric_name(metric): entry.get("value")} | span)
    title = f"{metric_name(metric)} of the shared model over all sites, with 95 % interval"
    says = "; ".join(f"{line['Run']}: {number(line[metric_name(metric)])}" for line in lines)
    figure(st, title, _chart(lines, metric), lines, key="compared", says=says)
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
    return f"{number(entry.get('value'))}{span}: {site_verdict(of_site, metric)[0]}"


def _chart(lines: Sequence[Line], metric: str) -> Curves | None:
    known = [line for line in lines if line[metric_name(metric)] is not None]
    if not known:
        return None
    keys = {"Run": "run", metric_name(metric): "value", "95 % low": "low", "95 % high": "high"}
    rows = pd.DataFrame(known).rename(columns=keys).astype({"value": "float64", "low": "float64", "high": "float64"})
    names = list(rows["run"])
    y = {"field": "run", "type": "nominal", "sort": names, "axis": {"title": None, "labelLimit": 220}}
    axis = {"title": axis_title(metric), "labelExpr": AXIS_NUMBERS}
    x = {"field": "value", "type": "quantitative", "axis": axis, "scale": {"zero": False, "nice": True, "padding": 20}}
    colour = ARM_COLOURS["global"]
    spans: Spec = {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.6, "color": colour}}
    spans |= {"transform": [{"filter": "isValid(datum.low)"}]}
    spans |= {"encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y}}
    tooltip: list[Spec] = [{"field": "run", "type": "nominal"}]
    tooltip += [{"field": name, "type": "quantitative"} for name in ("value", "low", "high")]
    dots: Spec = {"mark": {"type": "point", "filled": True, "size": 130, "opacity": 1, "color": colour}}
    dots |= {"encoding": {"x": x, "y": y, "tooltip": tooltip}}
    return Curves(rows, {"height": ROW_PIXELS * len(names) + AXIS_PIXELS, "layer": [spans, dots]})


def differences(studies: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    r"""Return the keys in which the texts of some studies differ, a column a run.

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
        if len(set(values.values())) > 1:
            lines.append({"Key": key} | values)
    return lines


def _keys(text: str) -> dict[str, Any]:
    """Return the values of a study by their whole keys, but for what it expects of itself."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
    return {key: value for key, value in _flat(found, "").items() if not key.startswith("expected.")}


def _flat(found: Mapping[str, Any], before: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in found.items():
        whole = f"{before}.{key}" if before else key
        flat |= _flat(value, whole) if isinstance(value, dict) else {whole: value}
    return flat
