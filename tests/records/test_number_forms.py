"""Every number that a run shows has one form: on the pages, in the report, on the terminal and in a notebook.

A leading zero; three decimals for an AUC, and more only where an end of an interval would read as 0 or as the gain
that is worthwhile; + or − before a difference; an ε rounded up. A figure of the record reads the same in all places.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from flfed.notebook.result import load
from flfed.records.dashboard import page_files
from flfed.records.statistics.verdict import MINUS, Difference, interval, metric_name, number, size_and_span
from flfed.records.store.entries import ComparisonRow, DifferenceRow, SiteRow
from flfed.records.store.writer import RunStore
from tests.conftest import ABSENT
from tests.records import documents
from tests.records.real_runs import Runs

pytestmark = [pytest.mark.slow, pytest.mark.studies, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
AUC = "roc_auc_score"
KINDS = ("demo", "regression", "multi-class", "protected", "stopped", "failed")
LARGE = ("hospitals", "many")
"""Kinds that take half of the time of all: they are made for `make proof` alone."""
CODE = re.compile(r"`[^`]*`")
BARE = re.compile(r"(?<![\d.\w/*\[-])[+\u2212-]?\.\d")
"""A number without its leading zero."""
HYPHEN = re.compile(r"(?:(?<=\s)|(?<=\()|^)-\.?\d")
"""A number with a hyphen in place of a minus."""
NUMBER = r"[+\u2212]?\d+(?:\.\d+)?"
FIGURE = re.compile(NUMBER)
SPAN = re.compile(rf"95 % CI(?: of one repeat)?(?:, widened for \d+ sites)?[: ]+({NUMBER}) to ({NUMBER})")
SPAN_BEGINS = re.compile(r"95 % CI(?: of one repeat)?(?:, widened for \d+ sites)?:? (?=[+\u2212\d.])")
OF_AUC = re.compile(rf"\bAUC(?: of)? ({NUMBER})(?! of\b)(?: \(95 % CI ({NUMBER}) to ({NUMBER}))?")
EPSILON = re.compile(rf"ε(?: =)? ({NUMBER})")
SITE_ARMS = {
    "Shared model": "global", "Site model": "local-only", "Adjusted to site": "personalised",
    "shared": "global", "site model": "local-only", "adjusted": "personalised",
}  # fmt: skip
"""Arms by the headings of report and app, and of the terminal."""
APART = {"gain": 0, "low": 1, "high": 2, "Gain (+ is better)": 0, "Gain, low": 1, "Gain, high": 2}
"""A gain and its ends where each has a cell of its own, in a notebook and below a chart."""
AUDITED = (
    "Reached (95 %)",
    "Reached there (95 %)",
    "Lowest to highest",
    "Promised, at most",
    "reached (95 %)",
    "promised",
)
"""Headings of an attack's figures."""
REFERENCES = {
    "all test rows, shared model": "global", "shared model": "global", "shared model, mean of the sites": "sites-mean",
    "all test rows, adjusted to each site": "personalised", "shared model adjusted to the site": "personalised",
    "a site's model used at all sites (mean)": "own-model-everywhere", "all rows in one place (pooled)": "pooled",
}  # fmt: skip
"""Figures over all sites by their names in report and terminal, without what stands behind a colon."""


@dataclass
class Place:
    """What one place shows of a run."""

    words: list[str] = field(default_factory=list)
    tables: list[list[dict[str, str]]] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    axes: list[tuple[str, list[str]]] = field(default_factory=list)

    def texts(self) -> Iterator[str]:
        """All words, cells among them, without code."""
        yield from (CODE.sub("", text) for text in self.words)
        for lines in self.tables:
            for line in lines:
                yield from (text for text in (*line, *line.values()))


@dataclass(frozen=True)
class Shown:
    """A run: its record, and what each place shows of it."""

    record: dict[str, Any]
    gains: dict[str, Difference]
    places: dict[str, Place]

    @property
    def metric(self) -> str:
        return next(iter(self.record["global"]), "")

    @property
    def least(self) -> float:
        """The gain that is worthwhile."""
        return float(self.record["verdict-rule"]["minimum-gain"][self.metric])

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(name, text) for name, place in self.places.items() for text in place.texts()]


class Pages:
    """The app, with every table unfolded."""

    def __init__(self) -> None:
        self.app: AppTest | None = None
        self.unfolded: set[str] = set()

    def turn(self, file: Path, **query: str) -> Place:
        """What a page shows."""
        app = self.app or AppTest.from_file(str(ROOT / "app.py"), default_timeout=600).run()
        self.app = app
        app.switch_page(str(file))
        app.query_params.clear()
        for key, value in query.items():
            app.query_params[key] = value
        self._run(app)
        folded = {one.proto.id.split("-", 2)[2] for one in app.expander if one.proto.id.endswith("-table")}
        if folded - self.unfolded:
            self.unfolded |= folded
            self._run(app)
        assert not app.exception
        place = Place()
        for one in app:
            read_element(one, place)
        return place

    def _run(self, app: AppTest) -> None:
        for key in self.unfolded:
            app.session_state[key] = True
        app.run()


def read_element(one: Any, place: Place) -> None:
    """Add what an element of a page shows."""
    if one.type in ("table", "dataframe"):
        cells = one.value.astype(str).replace({"\u00a0": " ", r"\\": ""}, regex=True)
        cells.columns = [name.replace("\\", "") for name in cells.columns]
        place.tables.append(cells.to_dict("records"))
    elif one.type == "vega_lite_chart":
        spec = json.loads(one.proto.spec)
        place.charts.append(spec)
        if one.proto.data.data:
            rows = convert_arrow_bytes_to_pandas_df(one.proto.data.data)
            place.words += texts_of(rows.to_dict("records"))
        for values in find(spec, "values"):
            place.words += texts_of(values)
    elif one.type == "bidi_component":
        for row in json.loads(one.proto.json)["rows"]:
            for cell in row["cells"].values():
                below = cell.get("below", [])
                place.words += [cell["text"], *below, f"{cell['text']} ({'; '.join(below)})"]
    elif one.type not in ("html", "root", "main", "sidebar", "event", "flex_container", "column"):
        parts = (getattr(one, name, None) for name in ("label", "value", "delta", "options"))
        place.words += [str(part).replace("\\", "") for part in parts if isinstance(part, (str, list))]


def texts_of(rows: Sequence[Any]) -> list[str]:
    """The texts of a chart's rows."""
    return [text for row in rows if isinstance(row, dict) for text in row.values() if isinstance(text, str)]


def titled(axis: Mapping[str, Any]) -> str:
    """The title of an axis, which may have two lines."""
    title = axis.get("title") or ""
    return title if isinstance(title, str) else " ".join(title)


def find(spec: Any, key: str) -> Iterator[Any]:
    """Every value of a key in a chart, however deep."""
    if isinstance(spec, dict):
        for name, value in spec.items():
            if name == key:
                yield value
            yield from find(value, key)
    if isinstance(spec, list):
        for one in spec:
            yield from find(one, key)


def read_report(text: str) -> Place:
    """What a report shows, but for its hashes and versions."""
    root = documents.read(text)
    place = Place(tables=documents.tables(root))
    code = {id(node) for tag in ("style", "code") for found in root.all(tag) for node in found.every()}
    code |= {id(node) for node in documents.section(root, "Hashes, versions").every()}
    place.tables = [documents.table(node) for node in root.all("table") if id(node) not in code]
    for node in root.every():
        if id(node) in code:
            continue
        place.words += [text for text in (node.text, node.attributes.get("aria-label", "")) if text.strip()]
    # A sentence with emphasised words is several nodes, and an interval may lie across them.
    place.words += [node.words() for tag in ("p", "li") for node in root.all(tag) if id(node) not in code]
    for chart in root.all("svg"):
        for axis in chart.all("g"):
            if "role-axis" in axis.attributes.get("class", "").split():
                titles, labels = (labels_of(axis, kind) for kind in ("title", "label"))
                if titles and labels:
                    place.axes.append((" ".join(titles), labels))
    return place


def labels_of(axis: documents.Node, kind: str) -> list[str]:
    groups = [node for node in axis.all("g") if node.attributes.get("class") == f"mark-text role-axis-{kind}"]
    return [text.words() for group in groups for text in group.all("text") if text.words()]


def read_terminal(text: str) -> Place:
    """What a command prints; a table's lines are all as long as the line below its head."""
    place, lines = Place(words=text.splitlines()), text.splitlines()
    for at, line in enumerate(lines):
        if set(line) != {"─"}:
            continue
        head = lines[at - 1].ljust(len(line))
        starts = sorted({0, *(match.start() for match in re.finditer(r"(?:(?<=  )|^)\S", head))})
        columns = [(head[low:high].strip(), low, high) for low, high in pairwise([*starts, len(line)])]
        table = []
        for below in lines[at + 1 :]:
            if len(below) != len(line):
                break
            table.append({name: below[low:high].strip() for name, low, high in columns})
        place.tables.append(table)
    return place


def read_notebook(result: Any) -> Place:
    """What a notebook shows of a result."""
    shown = result._repr_html_()
    root = documents.read(f"<div>{shown}</div>")
    words = [*repr(result).splitlines(), *(node.words() for node in root.all("p"))]
    return Place(words=words, tables=documents.tables(root))


def collect(kind: str, name: str, other: str, pages: Pages, flfed: Callable[..., Any], folder: Path) -> Shown:
    """Show a run in each place."""
    result = load(name)
    record = result.report
    gains = {}
    for line in result.gains.to_dict("records"):
        ends = [None if end != end else end for end in (line["gain"], line["low"], line["high"])]
        gains[line["site"]] = Difference(*ends)
    code, _, problem = flfed("run", "report", name, "--output", folder / f"{kind}.html")
    assert code == 0, problem
    places = {title: pages.turn(file, run=name) for title, file in page_files().items()}
    places["compared"] = pages.turn(page_files()["runs"], compare=f"{name},{other}")
    places |= {
        "report": read_report((folder / f"{kind}.html").read_text()),
        "show": read_terminal(flfed("run", "show", name)[1]),
        "show --all": read_terminal(flfed("run", "show", name, "--all")[1]),
        "compare": read_terminal(flfed("run", "compare", name, other, "--all")[1]),
        "list": read_terminal(flfed("run", "list")[1]),
        "notebook": read_notebook(result),
    }
    return Shown(record, gains, places)


@pytest.fixture(scope="module")
def pages() -> Pages:
    """The app."""
    return Pages()


@pytest.fixture(scope="module")
def collected() -> dict[str, Shown]:
    """The runs that were shown already, by kind."""
    return {}


@pytest.fixture(params=[*KINDS, *(pytest.param(kind, marks=pytest.mark.proof) for kind in LARGE)])
def shown(
    request: pytest.FixtureRequest,
    runs: Runs,
    pages: Pages,
    collected: dict[str, Shown],
    flfed: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Shown:
    """A run of a kind in every place."""
    kind = request.param
    if kind not in runs.series:
        pytest.skip(ABSENT)
    monkeypatch.setenv("FLFED_STORE", runs.url)
    monkeypatch.setenv("FLFED_HOME", str(runs.home))
    if kind not in collected:
        other = runs.series["protected" if kind == "demo" else "demo"]
        collected[kind] = collect(kind, runs.series[kind], other, pages, flfed, tmp_path)
    return collected[kind]


def decimals(text: str) -> int:
    return len(text.partition(".")[2])


def value_of(text: str) -> float:
    return float(text.replace(MINUS, "-"))


def is_auc(texts: Sequence[str], least: float) -> bool:
    """Whether an AUC, and the ends of its interval, have three decimals, and more only where fewer would mislead."""
    places = {decimals(text) for text in texts}
    if len(places) > 1:
        return False
    (digits,) = places
    marks = (0.0, least, -least)
    hidden = any(round(value_of(text), digits - 1) in marks and value_of(text) not in marks for text in texts[1:])
    return digits == 3 or (digits > 3 and hidden)


def test_no_number_lacks_its_leading_zero_and_none_has_a_hyphen_for_a_minus(shown: Shown):
    for pattern in (BARE, HYPHEN):
        assert [(place, text) for place, text in shown.texts if pattern.search(text)] == []


def test_every_interval_has_one_form(shown: Shown):
    wrong, there = [], 0
    for place, text in shown.texts:
        spans = [match.groups() for match in SPAN.finditer(text)]
        there += len(spans)
        alike = all(decimals(low) == decimals(high) and value_of(low) <= value_of(high) for low, high in spans)
        if not alike or len(SPAN_BEGINS.findall(text)) != len(spans):
            wrong.append((place, text))
    assert wrong == []
    # Each figure stands once.
    assert there >= 15 or not shown.metric


def auc_cells(place: Place, *, primary: bool) -> Iterator[str]:
    """Every cell that is an AUC: by its column, or by a cell of its line; `primary`: all models' are.

    A gain whose interval has cells of its own comes with them.
    """
    for line in chain.from_iterable(place.tables):
        heads = [line[name] for name in ("metric", "Figure", "figure", "Main figure") if name in line]
        of_auc = any(re.fullmatch(r"AUC|.*\(AUC\)", head) for head in heads)
        ends = [line[name] for name in APART if name in line]
        if primary and ends:
            yield " ".join(ends)
        for name, cell in line.items():
            by_column = name.startswith("AUC")
            by_line = of_auc and name in ("A", "B", "B - A", "B - A (95 % CI)", *AUDITED)
            by_model = primary and (name in SITE_ARMS or not ends and name.lower().startswith("gain"))
            if by_column or by_line or by_model:
                yield re.sub(r", of \d+ figures", "", cell)


def test_every_auc_has_three_decimals_and_more_only_where_an_end_would_read_as_a_mark(shown: Shown):
    primary = shown.metric == AUC
    least = shown.least if primary else 0.0
    cells = []
    for title, place in shown.places.items():
        # Further figures of a report and other runs' columns have models of other metrics.
        models = primary and title in ("sites", "show", "show --all", "notebook")
        cells += [(title, cell) for cell in auc_cells(place, primary=models)]
    wrong = [cell for cell in cells if (texts := FIGURE.findall(cell[1])) and not is_auc(texts, least)]
    assert wrong == []
    said = [(place, text, match.groups()) for place, text in shown.texts for match in OF_AUC.finditer(text)]
    assert [one for one in said if not is_auc([text for text in one[2] if text], least)] == []
    if primary:
        assert len(cells) >= 40
        assert {place for place, *_ in said} >= {"runs", "overview", "report", "show", "list", "notebook"}


def test_charts_write_their_figures_as_texts_and_axes_of_auc_have_three_decimals(shown: Shown):
    wrong = []
    for title, place in shown.places.items():
        for chart in place.charts:
            fields = [one for tips in find(chart, "tooltip") if isinstance(tips, list) for one in tips]
            plain = [one for one in fields if one.get("type") == "quantitative" and "format" not in one]
            wrong += [(title, one) for one in plain if one["field"] not in ("from", "to")]
            for axis in find(chart, "axis"):
                if isinstance(axis, dict) and re.match("AUC|gain in AUC", titled(axis)):
                    forms = re.findall(r"\.(\d)f", axis.get("format", "") + axis["labelExpr"])
                    wrong += [(title, axis)] if not forms or min(map(int, forms)) < 3 else []
        for name, labels in place.axes:
            if re.match("AUC|gain in AUC", name):
                wrong += [(title, name, label) for label in labels if label != "0" and decimals(label) < 3]
                unsigned = [label for label in labels if label != "0" and label[0] not in f"+{MINUS}"]
                wrong += [(title, name, label) for label in unsigned if name.startswith("gain")]
    assert wrong == []
    if shown.metric == AUC:
        assert any(re.match("gain in AUC", name) for name, _ in shown.places["report"].axes)
        assert any(re.match("AUC", name) for name, _ in shown.places["report"].axes)


def test_every_epsilon_of_a_promise_is_rounded_up(shown: Shown):
    spent = shown.record["privacy"]["epsilon"]
    if spent is None:
        return
    seen = set()
    for title, place in shown.places.items():
        texts = [match[1] for text in place.texts() for match in EPSILON.finditer(text)]
        for line in chain.from_iterable(place.tables):
            texts += [line[name] for name in ("ε of this run",) if name in line]
            if line.get("Main figure", line.get("Figure")) == "ε that the attack shows":
                texts.append(line["Promised, at most"])
        assert [text for text in texts if decimals(text) != 2 or not 0 <= float(text) - spent < 0.01] == [], title
        seen |= {title} if texts else set()
    assert seen >= {"privacy", "compared", "report", "show", "show --all"}


def expected(figure: Mapping[str, Any]) -> tuple[str, str]:
    """A figure of the record as every place shows it: alone, and with its interval."""
    alone = number(figure["value"])
    return alone, f"{alone} ({interval(figure['low'], figure['high'])})"


def held_at_sites(shown: Shown, place: Place) -> Iterator[tuple[str, Sequence[str]]]:
    """Each cell of a site's line, with what may stand there by the record."""
    for line in chain.from_iterable(place.tables):
        site = line.get("Site", line.get("site"))
        if site not in shown.record["sites"]:
            continue
        for name, cell in line.items():
            if name in SITE_ARMS:
                figure = shown.record["sites"][site][SITE_ARMS[name]].get(shown.metric)
                yield cell, expected(figure) if figure else ("n/a", "")
            apart = "low" in line or "Gain, low" in line
            size, span = size_and_span(shown.gains[site], shown.least)
            if apart and name in APART:
                yield cell, ((size, *(span.split(" to ") * 2))[APART[name]],)
            elif not apart and name.lower().startswith("gain"):
                yield re.sub(r",? ?(?:\*|shared|adjusted)$", "", cell), (size if size == "n/a" else f"{size} ({span})",)


def held_over_all(shown: Shown, place: Place) -> Iterator[tuple[str, Sequence[str]]]:
    """Each cell of a figure over all sites, with what may stand there by the record."""
    name = metric_name(shown.metric)
    for line in chain.from_iterable(place.tables):
        who = line.get("over all sites", line.get("Model", "")).partition(":")[0]
        if who in REFERENCES and ("metric" not in line):
            figure = (shown.record[REFERENCES[who]] or {}).get(shown.metric)
            cell = line.get(name, line.get("shared"))
            if figure and cell:
                yield cell, expected(figure)
            if figure and "95 % CI" in line:
                yield line["95 % CI"], (interval(figure["low"], figure["high"]),)
        if line.get("run") == shown.record["run"]:
            figure = shown.record["global"][shown.metric]
            yield line["figure"], (f"{name} {number(figure['value'])}",)
        if who in ("shared model", "all rows in one place (pooled)") and "metric" in line:
            arm = "global" if who == "shared model" else "pooled"
            named = {metric_name(metric): figure for metric, figure in shown.record[arm].items()}
            if line["A"] != "–":
                yield line["A"], expected(named[line["metric"]])[:1]


def test_each_figure_of_the_record_reads_the_same_in_all_places(shown: Shown):
    if not shown.metric:
        return
    count = {}
    for title in ("sites", "overview", "report", "show", "show --all", "compare", "list", "notebook"):
        place = shown.places[title]
        if title == "report":
            root = place.tables
            first = next(at for at, lines in enumerate(root) if lines and "Shared model" in lines[0])
            place = Place(tables=root[: first + 2])
        held = [*held_over_all(shown, place), *(held_at_sites(shown, place) if title not in ("compare",) else ())]
        count[title] = len(held)
        # A folded table leaves a cell without a figure empty.
        held = [(cell.replace("\u00a0", " ") or "n/a", may) for cell, may in held]
        assert [(cell, may) for cell, may in held if cell not in may] == [], title
    few = min(len(shown.record["sites"]), 8)
    least = {"sites": 3 * few, "report": 3 * few + 3, "show": 3 * few + 3, "show --all": 3 * few + 3, "compare": 4}
    least |= {"notebook": 3 * few}
    assert all(count[title] >= most for title, most in least.items()), count
    value = number(shown.record["global"][shown.metric]["value"])
    for title in ("runs", "overview", "report", "show", "list", "notebook", "compared"):
        said = [text for text in shown.places[title].texts() if re.search(rf"(?<![\d.]){re.escape(value)}(?!\d)", text)]
        assert said, title


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [
        (0.0004, 0.0816, "+0.0410 (+0.0004 to +0.0816)"),  # +0.000 would read as reaching 0
        (0.0052, 0.0768, "+0.0410 (+0.0052 to +0.0768)"),  # +0.005 would read as the gain that is worthwhile
        (0.0, 0.082, "+0.041 (0.000 to +0.082)"),  # it is 0
    ],
)
def test_an_end_that_would_read_as_a_mark_has_a_digit_more_in_all_four_places(
    store: RunStore, url: str, low: float, high: float, span: str, pages: Pages, flfed, monkeypatch, tmp_path
):
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="near", study_sha256="", study_text='name = "near"\n')
    run = store.begin_run(
        series, engine="inprocess", path="one-by-one", seed=1, rounds_planned=1, primary=AUC, task="binary"
    )
    run.sites([SiteRow("east", rows=300, holdout_rows=90)])
    figures = [("global", 0.8), ("local-only", 0.759), ("personalised", 0.8)]
    run.comparison(
        [ComparisonRow("east", arm, AUC, value, value - 0.05, value + 0.05, 90) for arm, value in figures]
        + [ComparisonRow(None, "global", AUC, 0.8, 0.75, 0.85, 90)],
        [DifferenceRow("east", arm, "local-only", AUC, 0.041, low, high) for arm in ("global", "personalised")],
    )
    run.finish(status="completed")
    made = collect("near", series, series, pages, flfed, tmp_path)
    for title in ("sites", "overview", "report", "show", "show --all"):
        texts = [text.replace("\u00a0", " ") for text in made.places[title].texts()]
        assert [text for text in texts if span in text], title
    (line,) = made.places["notebook"].tables[0]
    assert f"{line['gain']} ({line['low']} to {line['high']})" == span
    held = [*held_at_sites(made, made.places["sites"]), *held_at_sites(made, made.places["notebook"])]
    assert len(held) >= 6
    assert [(cell, may) for cell, may in held if cell.replace("\u00a0", " ") not in may] == []
    cells = [cell for place in made.places.values() for cell in auc_cells(place, primary=True)]
    assert [cell for cell in cells if (texts := FIGURE.findall(cell)) and not is_auc(texts, 0.005)] == []


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("0.896", True), ("0.896 (0.871 to 0.921)", True), ("+0.0410 (+0.0004 to +0.0816)", True),
        ("0.90", False), ("0.8961", False), ("0.896 (0.87 to 0.92)", False), ("+0.0410 (+0.0114 to +0.0706)", False),
    ],
)  # fmt: skip
def test_the_rule_for_an_auc_accepts_its_form_and_no_other(text: str, holds: bool):
    assert is_auc(FIGURE.findall(text), 0.005) == holds


@pytest.mark.parametrize(
    ("pattern", "wrong", "right"),
    [
        (
            BARE,
            (".896", "AUC −.03138", "(+.008 to", "p < .001"),
            ("0.896", "flfed 0.4.0", "app.md", "a .toml file"),
        ),
        (HYPHEN, ("-0.031", "(-0.068 to", "gain -.1"), ("−0.031", "2026-11-26", "5e-4", "breast-cancer-1", "1 -> 2")),
    ],
)
def test_the_patterns_find_what_they_name_and_nothing_else(
    pattern: re.Pattern[str], wrong: Sequence[str], right: Sequence[str]
):
    assert all(pattern.search(text) for text in wrong)
    assert not any(pattern.search(text) for text in right)
