"""Overview and Sites show the figures of `flfed run show --json`, to the shown digit; an answer says why."""

import contextlib
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from scipy import stats
from streamlit.testing.v1 import AppTest

from flfed.cli.commands import app
from flfed.records.statistics.verdict import ARM_NAMES, MINUS, number
from flfed.records.store.entries import ComparisonRow, DifferenceRow, SiteRow
from flfed.records.store.writer import RunStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,  # the app itself, run many times
    pytest.mark.usefixtures("shown"),
]

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "flfed" / "records" / "dashboard" / "pages"
AUC, R2, ERROR = "roc_auc_score", "r2_score", "mean_absolute_error"
LOWER = {"brier_score_loss", ERROR}
NUMBER = re.compile(r"[+\u2212]?(?:\d*\.\d+|\d+)")
ARMS = {
    "Shared model": "global", "Site model": "local-only", "Adjusted model": "personalised",
    "Adjusted to site": "personalised",
}  # fmt: skip
OTHER = {"global": "difference-personalised", "personalised": "difference"}
"""By model, what a site has of the gain of the other one."""
NAMES = {name: arm for arm, name in ARM_NAMES.items()}


def regression(store: RunStore) -> str:
    """A run that predicts an amount at two sites, and one that refused."""
    series = store.begin_series(study="amounts", study_sha256="", study_text='purpose = "Predict an amount"')
    run = store.begin_run(
        series, engine="inprocess", path="stacked", seed=1, rounds_planned=2, primary=R2, task="regression"
    )
    run.sites([SiteRow("north", rows=1210, holdout_rows=363)])
    run.sites([SiteRow("south", rows=90, holdout_rows=27)])
    run.sites([SiteRow("east", status="refused", reason="its policy does not allow amounts")])
    figures = [
        ComparisonRow(None, "global", R2, 0.5081, 0.3874, 0.6139, 390, "bootstrap"),
        ComparisonRow(None, "pooled", R2, 0.5062, 0.3902, 0.6088, 390, "bootstrap"),
        ComparisonRow(None, "sites-mean", R2, 0.4731),
        ComparisonRow(None, "global", ERROR, 43.27, 40.91, 46.04, 390, "bootstrap"),
        ComparisonRow(None, "pooled", ERROR, 43.31, 40.88, 46.12, 390, "bootstrap"),
    ]
    gaps = []
    for site, lift in (("north", 0.1254), ("south", -0.0513)):
        values = {"global": 0.4446 + 0.9 * lift, "local-only": 0.4446, "personalised": 0.4446 + lift}
        for arm, value in values.items():
            figures.append(ComparisonRow(site, arm, R2, value, value - 0.2507, value + 0.2104, 27, "bootstrap"))
            error = 60 - 20 * value
            figures.append(ComparisonRow(site, arm, ERROR, error, error - 5.3, error + 6.1, 27, "bootstrap"))
            if arm != "local-only":
                gap = value - values["local-only"]
                gaps.append(DifferenceRow(site, arm, "local-only", R2, gap, gap - 0.0912, gap + 0.0927, 0.04))
                change = -20 * gap
                gaps.append(DifferenceRow(site, arm, "local-only", ERROR, change, change - 1.37, change + 1.42, 0.04))
    run.comparison(figures, gaps)
    run.finish(status="completed", seconds=3.0)
    return series


@pytest.fixture(params=["binary", "regression", "repeats"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def series(kind: str, store: RunStore, write: Any) -> str:
    """The id of a run, or of three repeats, with figures of every kind."""
    if kind == "regression":
        return regression(store)
    repeats = 3 if kind == "repeats" else 1
    name = store.begin_series(study="heart-disease", study_sha256="", study_text="", repeats=repeats)
    for repeat in range(repeats):
        write(store, name, repeat=repeat, shift=repeat / 130, resplit=True)
    return name


@pytest.fixture
def found(series: str) -> Any:
    """What the command line prints of it as JSON."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        app(["run", "show", series, "--json"], standalone_mode=False)
    return json.loads(said.getvalue())


def page(name: str, **asked: str) -> AppTest:
    opened = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    opened.switch_page(str(PAGES / f"{name}.py"))
    for key, value in asked.items():
        opened.query_params[key] = value
    opened.run()
    assert not opened.exception
    return opened


def by_metric(opened: AppTest, found: Any) -> Iterator[str]:
    """Turn a page to each metric, and say which."""
    for metric in found["global"]:
        if len(found["global"]) > 1:
            opened.radio(key="metric").set_value(metric).run()
        assert not opened.exception
        yield metric


def is_shown(text: str, *values: float | None) -> None:
    """`text` shows these numbers and no other, each correct to its last digit."""
    told = NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3})", "", text))
    known = [value for value in values if value is not None]
    assert len(told) == len(known), (text, values)
    for said, value in zip(told, known, strict=True):
        digits = len(said.partition(".")[2])
        assert float(said.replace("\u2212", "-")) == pytest.approx(value, abs=0.5001 * 10**-digits), (text, values)


def three(entry: Any) -> list[float | None]:
    return [entry.get(key) for key in ("value", "low", "high")]


def gain_of(site: Any, metric: str) -> list[float | None]:
    """The larger of the two gains, turned so that + is better."""
    both = [three(site[key].get(metric, {})) for key in ("difference", "difference-personalised")]
    if metric in LOWER:
        both = [[None if x is None else -x for x in (value, high, low)] for value, low, high in both]
    return max(both, key=lambda gain: float("-inf") if gain[0] is None else gain[0])


def widened(found: Any, site: Any, metric: str) -> list[float | None]:
    """The larger of the two gains, with its interval at 0.05 over all sites."""
    value, low, high = gain_of(site, metric)
    if value is None or low is None or high is None:
        return [value, None, None]
    freedom, looked = site["difference"][metric]["freedom"], found["verdict-rule"]["sites"]
    law = stats.norm if freedom is None else stats.t(freedom)
    by = law.ppf(1 - 0.025 / looked) / law.ppf(0.975)
    return [value, value - by * (value - low), value + by * (high - value)]


def clear_gain(found: Any, metric: str) -> tuple[int, tuple[str, list[float]] | None]:
    """How many sites are looked at, and the largest gain whose interval, at 0.05 over all of them, is worthwhile."""
    least = {AUC: 0.005}.get(metric, 0.0)
    clear: list[tuple[str, list[float]]] = []
    for name, site in found["sites"].items():
        value, low, high = widened(found, site, metric)
        if value is not None and low is not None and high is not None and low > least:
            clear.append((name, [value, low, high]))
    return found["verdict-rule"]["sites"], max(clear, key=lambda one: one[1][0], default=None)


GAIN = re.compile(r"with the (.+?) against [^:]*: gain (\S+)[^(]*\((95 % CI[^)]*)\)")
"""Model, gain and interval in the sentence of a verdict."""


def models(opened: AppTest) -> dict[str, list[str]]:
    """Each model's figure and bounds at the site of the page, from the table below its chart."""
    opened.session_state["site-own-models-table"] = True
    opened.run()
    lines = [line for table in opened.table for line in table.value.to_dict("records") if "Model" in line]
    return {line["Model"].replace("\\", ""): [line[key] for key in ("value", "low", "high")] for line in lines}


def unfolded_texts(block: Any) -> Iterator[str]:
    """What stands on a page without a click, without the signs that keep it from being Markdown."""
    for child in block.children.values():
        if child.type in ("expander", "expandable"):
            continue
        if hasattr(child, "children"):
            yield from unfolded_texts(child)
        elif child.type == "table":
            yield from map(str, child.value.to_numpy().ravel())
        elif child.type in ("markdown", "caption", "metric"):
            yield str(child.value).replace("\\", "")


def drawn(opened: AppTest, told: str) -> list[dict[str, Any]]:
    """The rows of figures in the chart whose words have `told`."""
    sent = next(chart.proto for chart in opened.get("vega_lite_chart") if told in chart.proto.alt)
    if sent.HasField("data"):  # the same rows for all layers
        found: list[dict[str, Any]] = pa.ipc.open_stream(sent.data.data).read_all().to_pylist()
        return found
    layers = [layer.get("data", {}).get("values", []) for layer in json.loads(sent.spec)["layer"]]
    return max(layers, key=len)


def texts(opened: AppTest) -> str:
    """What stands in captions and lists, without the signs that keep it from being Markdown."""
    return "\n".join(block.value for block in [*opened.caption, *opened.markdown]).replace("\\", "")


def test_the_overview_shows_the_figures_of_the_command_line(series: str, found: Any):
    opened = page("p20_overview", run=series)
    for metric in by_metric(opened, found):
        said, shared = texts(opened), found["global"][metric]
        reached = re.search(r"shared model reaches .*? (\S+) \((.*?)\), on the test rows", said)
        is_shown(reached[1], shared["value"])
        is_shown(reached[2].partition("95 % CI")[2], shared["low"], shared["high"])
        pooled = re.search(r"\(pooled, .*?\) would reach (\S+): (.*)\.", said)
        is_shown(pooled[1], found["pooled"][metric]["value"])
        # The difference of the two figures as they are shown, so that a reader who takes one from the other agrees.
        apart = abs(float(pooled[1].replace(MINUS, "-")) - float(reached[1].replace(MINUS, "-")))
        is_shown(pooled[2], *([apart] if apart else []))
        assert ("the same as" in pooled[2]) == (apart == 0)
        looked, best = clear_gain(found, metric)
        largest = re.search(r"(\S+) has the largest clear gain\. (.*)", said)
        assert (largest is None) == (best is None)
        if best is None:
            assert f"(95 % CI, widened for {looked} sites) lies above" in said and looked > 1
        else:
            assert largest[1] == best[0]
            is_shown(re.search(r"\(95 % CI, widened for \d+ sites: (.*?)\)", largest[2])[1], *best[1][1:])
        mean = three(found["mean-gain"][metric])
        markdown = [block.value.replace("\\", "") for block in opened.markdown]
        answers = [text for text in markdown if " on average" in text[:60] or "Mean gain from" in text[:20]]
        assert len(answers) == (mean[0] is not None)
        for said in answers:
            is_shown(
                said.partition("95 %")[0].replace("R²", "")
                + said.partition("95 %")[2].partition(";")[0].partition(")")[0],
                *mean,
            )
        (basis,) = [table.value.to_numpy().ravel().tolist() for table in opened.table if "Basis" in table.value]
        assert basis[basis.index("Rounds") + 1].startswith(f"{found['rounds']} of ")
        assert f"{sum(site['holdout-rows'] or 0 for site in found['sites'].values())} test rows" in basis[1]
        references = drawn(opened, "shared model ")
        assert len(references) >= 2
        for row in references:
            assert three(row) == three(found[row["arm"]][metric])


def test_every_site_shows_the_figures_of_the_command_line(series: str, found: Any):
    sites = list(found["sites"])
    for site in sites:
        opened = page("p30_sites", run=series, site=site)
        for metric in by_metric(opened, found):
            told, of_site = models(opened), found["sites"][site]
            for label, arm in ARMS.items():
                if label in told:
                    for said, figure in zip(told[label], three(of_site[arm][metric]), strict=True):
                        is_shown(said, figure)
            there = {ARMS[label] for label in told if label in ARMS}
            assert there >= {
                arm for arm in ("global", "local-only") if three(of_site[arm].get(metric, {}))[0] is not None
            }
            if told:
                pooled = told["Pooled model, at all sites together, for reference"]
                for said, figure in zip(pooled, three(found["pooled"][metric]), strict=True):
                    is_shown(said, figure)
            gain = gain_of(of_site, metric)
            markdown = [block.value.replace("\\", "") for block in opened.markdown]
            answer = next(text for text in markdown if text.startswith("### "))
            wide = widened(found, of_site, metric)
            is_shown(answer.partition(": these rows")[2], *(map(abs, wide[1:]) if "No clear" in answer else []))
            told_gain = GAIN.search("\n".join(markdown))
            assert (told_gain is None) == (gain[0] is None)
            if told_gain:
                is_shown(told_gain[2], gain[0])
                named = f"95 % CI, widened for {found['verdict-rule']['sites']} sites: "
                is_shown(told_gain[3].partition(named)[2], *wide[1:])
                both = {arm: gain_of(of_site | {key: {}}, metric)[0] for arm, key in OTHER.items()}
                arm = max(both, key=lambda arm: -math.inf if both[arm] is None else both[arm])
                assert told_gain[1] == ARM_NAMES[arm]


def test_no_figure_of_a_site_stands_twice_in_the_words_of_its_page(kind: str, series: str, found: Any):
    site = "north" if kind == "regression" else "hungary"
    metric = next(iter(found["global"]))
    said = " ".join(unfolded_texts(page("p30_sites", run=series, site=site).main))
    # The shared model's figure is in the sentence unless the adjusted one decides.
    for arm, least in (("global", 0), ("local-only", 1)):
        figure = number(found["sites"][site][arm][metric]["value"])
        assert least <= len(re.findall(rf"(?<![\d.]){re.escape(figure)}(?!\d)", said)) <= 1, (arm, figure)
    told = GAIN.search(said)
    assert told is not None and said.count(told[3]) == 1


def test_the_table_and_the_charts_of_all_sites_show_the_figures_of_the_command_line(series: str, found: Any):
    opened = page("p30_sites", run=series)
    for metric in by_metric(opened, found):
        lines = opened.table[0].value.to_dict("records")
        for line in lines:
            plain = {key: cell.replace("\\", "").replace("n/a", "") for key, cell in line.items()}
            of_site = found["sites"][plain["Site"]]
            is_shown(plain["Test / all rows"], of_site["holdout-rows"], of_site["rows"])
            for title in ("Shared model", "Site model", "Adjusted to site"):
                is_shown(plain[title], *three(of_site[ARMS[title]].get(metric, {})))
            (gain,) = [cell for head, cell in plain.items() if head.startswith("Gain, + is better (95 % CI, widened ")]
            is_shown(gain, *widened(found, of_site, metric))
        gains = [gain_of(found["sites"][line["Site"].replace("\\", "")], metric)[0] for line in lines]
        known = [gain for gain in gains if gain is not None]
        assert known == sorted(known, reverse=True)
        *gains_drawn, mean = drawn(opened, ": gain ")
        entry = found["mean-gain"][metric]
        if entry["value"] is None:
            gains_drawn.append(mean)
        else:
            assert mean["name"] == f"Mean of {entry['sites']} sites" and three(mean) == three(entry)
        assert [row["value"] for row in gains_drawn if row["value"] is not None] == known
        for row in gains_drawn:
            wide = widened(found, found["sites"][row["name"]], metric)
            assert three(row) == [x and pytest.approx(x, rel=1e-6) for x in wide]
        models_drawn = drawn(opened, "Each model at each site")
        assert len(models_drawn) >= 2 * len(lines)
        for row in models_drawn:
            assert three(row) == three(found["sites"][row["site"]][NAMES[row["arm"]]][metric])


def test_what_repeats_show_is_called_a_mean(kind: str, series: str):
    said = texts(page("p30_sites", run=series))
    assert ("in each of 3 repeats. Every figure is the mean of the repeats." in said) == (kind == "repeats")
    assert ("has the interval of one typical repeat. The gain has that of the mean" in said) == (kind == "repeats")
    assert (" of one repeat" in said) == (kind == "repeats")


def test_holdouts_drawn_anew_are_told_by_their_mean_and_range(store: RunStore):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    for repeat, holdout in enumerate((76, 99)):
        run = store.begin_run(
            series, repeat=repeat, engine="e", path="p", seed=repeat, rounds_planned=1, primary=AUC, task="binary"
        )
        run.sites([SiteRow("a", rows=294, holdout_rows=holdout)])
        counts = {"0": [[3, holdout - 30]], "1": [[200, 30]]}
        payload = {
            "sites": {"a": counts}, "all": None, "bins": 256, "limit": 12.0, "combined-sites": 0, "requested-sites": 1,
        }  # fmt: skip
        run.summary("score-histograms", payload)
        figures = [ComparisonRow("a", arm, AUC, 0.8, 0.7, 0.9, holdout) for arm in ("global", "local-only")]
        figures.append(ComparisonRow(None, "global", AUC, 0.8, 0.7, 0.9, holdout))
        run.comparison(figures, [DifferenceRow("a", "global", "local-only", AUC, 0.01, -0.1, 0.12)])
        run.finish(status="completed", seconds=1.0)
    opened = page("p30_sites", run=series, site="a")
    said = texts(opened)
    assert "about 88 of its 294 rows (76 to 99, drawn anew), on which this run trained no model, in each of 2" in said
    assert "About 30 of about 88 test rows have the outcome" in said  # 46 and 69 have it not, about 58 of them
    single = page("p30_sites", run=f"{series}-r02", site="a")
    assert "99 of its 294 rows, on which this run trained no model." in texts(single)


@pytest.mark.parametrize("beside", [True, False])
def test_where_a_part_of_the_model_is_a_sites_own_its_page_says_so(store: RunStore, beside: bool):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=1)
    run = store.begin_run(series, repeat=0, engine="e", path="p", seed=0, rounds_planned=1, primary=AUC, task="binary")
    run.sites([SiteRow("a", rows=294, holdout_rows=90)])
    run.summary("own-parts", {"arrays": ["bias"], "beside": beside})
    figures = [ComparisonRow(site, "global", AUC, 0.8, 0.7, 0.9, 90) for site in ("a", None)]
    run.comparison(figures, [])
    run.finish(status="completed", seconds=1.0)
    said = texts(page("p30_sites", run=series, site="a"))
    # Beside the site's figures, and beside the charts of all.
    told = (
        "Each site trained a model of its own beside the shared one"
        if beside
        else "Each site has its own bias of the model,"
    )
    assert said.count(told) == 2
    assert ("the shared model, adjusted with the site's own rows" in said) == (not beside)


def test_a_site_that_refused_is_named_and_not_offered(store: RunStore):
    opened = page("p30_sites", run=regression(store))
    assert list(opened.selectbox(key="site-north").options) == ["north", "south"]
    said = " ".join(block.value for block in opened.caption)
    assert "Refused to take part: east: its policy does not allow amounts." in said
    assert len(opened.table[0].value) == 2


def test_few_holdout_rows_are_said_and_the_answer_follows_the_verdict(store: RunStore):
    name = regression(store)
    north, south = (page("p30_sites", run=name, site=site) for site in ("north", "south"))
    assert "### Yes: joining improves R² at north." in [block.value for block in north.markdown]
    assert (
        sum(block.value.startswith("### No clear improvement at south: these rows leave") for block in south.markdown)
        == 1
    )
    few = [texts(opened).count("test rows are few") for opened in (north, south)]
    assert few == [0, 1]  # 363 test rows are enough to know a half to within 0.05, 27 are not


def test_rows_of_each_class_are_counted_and_few_of_the_rarer_are_said(store: RunStore):
    # card-fraud, valley-bank: 10 frauds among 1,549 test rows, AUC 0.316 to 0.983
    series = store.begin_series(study="fraud", study_sha256="", study_text="")
    run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=1, primary=AUC, task="binary")
    counted = {"valley": (1539, 10), "lake": (1400, 149), "hill": (1542, 7)}
    figures, gaps = [ComparisonRow(None, "global", AUC, 0.9, method="merged score histograms")], []
    figures.append(
        ComparisonRow(None, "sites-mean", AUC, 0.857, method="mean of 2 sites; 1 without this figure left out")
    )
    for site in counted:
        run.sites([SiteRow(site, rows=5163, holdout_rows=1549)])
        figures += [ComparisonRow(site, arm, AUC, 0.8, 0.3, 0.98, 1549) for arm in ("global", "local-only")]
        gaps.append(DifferenceRow(site, "global", "local-only", AUC, 0.1, -0.1, 0.3))
    counts = {site: {"0": [[3, without]], "1": [[200, with_]]} for site, (without, with_) in counted.items()}
    run.summary(
        "score-histograms",
        {"sites": counts, "all": None, "bins": 256, "limit": 12.0, "combined-sites": 0, "requested-sites": 3},
    )
    run.comparison(figures, gaps)
    run.finish(status="completed", seconds=1.0)
    pages = {site: page("p30_sites", run=series, site=site) for site in counted}
    said = {site: texts(opened) for site, opened in pages.items()}
    few = "few, so a gain that matters may stay unseen."
    assert f"10 of the 1,549 test rows have the outcome: {few}" in said["valley"]
    assert "149 of the 1,549 test rows have the outcome." in said["lake"] and few not in said["lake"]
    assert "### Inconclusive at hill." in [block.value for block in pages["hill"].markdown]
    assert "7 of the 1,549 test rows have the outcome; at least 10 with it and 10 without are needed" in "".join(
        block.value for block in pages["hill"].markdown
    )
    assert GAIN.search(texts(pages["hill"])) is None and GAIN.search(texts(pages["lake"]))
    overview = page("p20_overview", run=series)
    reached = "The shared model reaches AUC 0.900 (no interval: merged score histograms)"
    assert reached in texts(overview)
    assert "Shared model, mean of the sites (mean of 2 sites; 1 without this figure left out)." in [
        block.value for block in overview.caption
    ]


def test_the_site_is_told_the_mean_over_sites_beside_its_own_gain(kind: str, series: str, found: Any):
    said = texts(page("p30_sites", run=series)).splitlines()
    mean = [line for line in said if line.startswith("- On average over ")]
    entry = found["mean-gain"][next(iter(found["global"]))]
    assert len(mean) == (entry["value"] is not None) == (kind != "regression")
    for line in mean:
        is_shown(line.partition("gain ")[2].partition(" for sites like")[0].replace("95 %", ""), *three(entry))
