"""Every number that a run shows has one form: on the pages, in the report, on the terminal and in a notebook.

A leading zero; three decimals for an AUC, and more only where an end of an interval would read as 0 or as the gain
that is worthwhile; + or − before a difference; an ε rounded up. A figure of the record reads the same in all places.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from flfed.notebook.result import load
from flfed.records.dashboard import page_files
from flfed.records.statistics.verdict import MINUS, Difference, interval, metric_name, number, size_and_span
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
        self.app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        self.unfolded: set[str] = set()

    def turn(self, file: Path, **query: str) -> Place:
        """What a page shows."""
        app = self.app
        app.switch_page(str(file))
        app.query_params.clear()
        for key, value in query.items():
            app.query_params[key] = value
        self._run()
        folded = {one.proto.id.split("-", 2)[2] for one in app.expander if one.proto.id.endswith("-table")}
        if folded - self.unfolded:
            self.unfolded |= folded
            self._run()
        assert not app.exception
        place = Place()
        for one in app:
            read_element(one, place)
        return place

    def _run(self) -> None:
        for key in self.unfolded:
            self.app.session_state[key] = True
        self.app.run()


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
    record = json.loads(flfed("run", "show", name, "--json")[1])
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
def collected() -> dict[str, Any]:
    """The app, and the runs that were shown already."""
    return {}


@pytest.fixture(params=[*KINDS, *(pytest.param(kind, marks=pytest.mark.proof) for kind in LARGE)])
def shown(
    request: pytest.FixtureRequest,
    runs: Runs,
    collected: dict[str, Any],
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
        pages = collected.setdefault("pages", None) or Pages()
        collected["pages"] = pages
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
    assert there >= 20 or not shown.metric


def auc_cells(place: Place, *, primary: bool) -> Iterator[tuple[str, str]]:
    """Every cell that is an AUC, with its heading: by its column, or by a cell of its line; `primary`: all models'."""
    for lines in place.tables:
        for line in lines:
            heads = [cell for name, cell in line.items() if name in ("metric", "Figure", "figure", "Main figure")]
            of_auc = any(re.fullmatch(r"AUC|.*\(AUC\)", head) for head in heads)
            for name, cell in line.items():
                by_column = re.match("AUC", name)
                by_line = of_auc and name.lower().startswith(("a", "b", "reached", "lowest", "promised"))
                by_model = primary and (name in SITE_ARMS or name.lower().startswith("gain"))
                if name not in heads and name != "attack" and name != "Attack" and (by_column or by_line or by_model):
                    yield name, re.sub(r", of \d+ figures", "", cell)


def test_every_auc_has_three_decimals_and_more_only_where_an_end_would_read_as_a_mark(shown: Shown):
    primary = shown.metric == AUC
    least = shown.least if primary else 0.0
    cells = []
    for title, place in shown.places.items():
        # Further figures of a report and other runs' columns have models of other metrics.
        models = primary and title in ("sites", "show", "show --all", "notebook")
        cells += [(title, *cell) for cell in auc_cells(place, primary=models)]
    wrong = [cell for cell in cells if (texts := FIGURE.findall(cell[2])) and not is_auc(texts, least)]
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
        for line in (line for lines in place.tables for line in lines):
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
    for line in (line for lines in place.tables for line in lines):
        site = line.get("Site", line.get("site"))
        if site not in shown.record["sites"]:
            continue
        for name, cell in line.items():
            if name in SITE_ARMS:
                figure = shown.record["sites"][site][SITE_ARMS[name]].get(shown.metric)
                yield cell, expected(figure) if figure else ("n/a", "")
            of_gain = {"gain": 0, "low": 1, "high": 2, "Gain (+ is better)": 0, "Gain, low": 1, "Gain, high": 2}
            apart = "low" in line or "Gain, low" in line
            size, span = size_and_span(shown.gains[site], shown.least)
            if apart and name in of_gain:
                yield cell, ((size, *(span.split(" to ") * 2))[of_gain[name]],)
            elif not apart and name.lower().startswith("gain"):
                yield re.sub(r",? ?(?:\*|shared|adjusted)$", "", cell), (size if size == "n/a" else f"{size} ({span})",)


def held_over_all(shown: Shown, place: Place) -> Iterator[tuple[str, Sequence[str]]]:
    """Each cell of a figure over all sites, with what may stand there by the record."""
    name = metric_name(shown.metric)
    for line in (line for lines in place.tables for line in lines):
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
    least |= {"list": 1, "notebook": 3 * few}
    assert all(count[title] >= most for title, most in least.items()), count
    value = number(shown.record["global"][shown.metric]["value"])
    for title in ("runs", "overview", "report", "show", "list", "notebook", "compared"):
        said = [text for text in shown.places[title].texts() if re.search(rf"(?<![\d.]){re.escape(value)}(?!\d)", text)]
        assert said, title
