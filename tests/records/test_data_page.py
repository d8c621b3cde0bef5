"""The page Data: each cell is what the record has, and each sentence says no more than the sites tell."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from flfed import Study, run
from flfed.records.dashboard import refresh
from flfed.records.sections import data
from flfed.records.sections.data import gaps_in_words
from flfed.records.statistics.verdict import MINUS
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from tests.browser import opened
from tests.records.test_dashboard import DATA, overview, words

pytestmark = pytest.mark.usefixtures("shown")

TOLD = {"rows": 303, "missing": 0, "difference": 0.12, "chance": 0.16, "reason": "", "compared-with": 3}
KEPT = {"rows": 200, "missing": None, "difference": None, "chance": None, "reason": "kept back"}
COLUMNS: dict[str, Any] = {
    "columns": [
        {"column": "age", "unit": "years", "towards": "", "sites": {
            "cleveland": TOLD, "hungary": TOLD | {"rows": 294, "difference": -1.004}, "long-beach": KEPT,
        }},
        {"column": "slope", "unit": "", "towards": None, "sites": {
            "cleveland": TOLD | {"missing": 3, "difference": 0.31, "chance": 0.2},
            "hungary": TOLD | {"rows": 294, "missing": 190, "difference": 0.77, "chance": 0.3},
            "long-beach": TOLD | {"rows": 200, "missing": 102, "difference": 0.4, "chance": 0.3},
        }},
    ],
    "note": "",
}  # fmt: skip


def page(name: str) -> AppTest:
    found = overview(name, DATA)
    assert not found.exception
    return found


def record(name: str, what: str) -> dict[str, Any]:
    with RunReader.open() as reader:
        found = reader.summary(name, what)
    assert found is not None
    return found


def maps(found: AppTest) -> list[dict[tuple[str, str], dict[str, Any]]]:
    """The cells of each map, by column and site: of what is missing, if anything is, then of the differences."""
    charts = [chart.proto for chart in found.get("vega_lite_chart")]
    cells = [pa.ipc.open_stream(chart.data.data).read_all().to_pylist() for chart in charts]
    return [{(cell["column"], cell["site"]): cell for cell in rows} for rows in cells]


def write(store, name: str, *columns: dict[str, Any]) -> AppTest:
    """The page of a run once it has these columns."""
    store.added_to(name).summary("columns", {"columns": list(columns), "note": ""})
    refresh.read_summaries.clear()  # a run that is over is read once
    return page(name)


def column(name: str, **sites: dict[str, Any]) -> dict[str, Any]:
    return {"column": name, "unit": "", "towards": "", "sites": sites}


@pytest.fixture
def mixed(small_sites, small_study) -> str:
    """A real run: the first site keeps small counts back, the third hardly knows x2, the last has its own y."""

    def change(number: int, table: pd.DataFrame) -> pd.DataFrame:
        row = np.arange(len(table))
        y = table["y"].where((row % 3 > 0) | (number != 3), "yes")
        x1, x2 = (table["x1"] * 0.5 + 15 * number).clip(0, 100), table["x2"].fillna(0.0)
        return table.assign(y=y, x1=x1.where((row > 1) | (number != 2)), x2=x2.where((row < 7) | (number != 2)))

    sites = small_sites(4, rows=500, change=change)
    sites[0] = replace(sites[0], policy=Policy())
    return str(run(Study.parse(small_study), sites=sites).report["run"])


def test_table_1_has_each_cell_of_the_record_and_all_its_lines(mixed: str):
    rows = record(mixed, "table-1")["rows"]
    found = page(mixed)
    cells = found.table[0].value.to_dict("records")
    # A page has a minus sign where the record has a hyphen.
    shown = [{key: re.sub(r"-(?=\d)", "\u2212", cell) for key, cell in row.items()} for row in rows]
    assert [{key.replace("\\", ""): cell.replace("\\", "").replace("\u00a0", " ") for key, cell in line.items()}
            for line in cells] == shown  # fmt: skip
    texts = [cell for row in rows for cell in row.values()]
    for word in ("suppressed", "at least", "SD", "about "):
        assert any(word in text for text in texts)  # so that each is explained
    said = words(found)
    assert "it may itself be large" in said and "*SD*: standard deviation" in said
    assert "that of the rows with a value; of missing rows, of all rows" in said


def test_a_long_table_1_is_not_in_a_box_that_scrolls(store, heart: str):
    lines = [{"Characteristic": f"x{n}: 1", "All sites": f"{n} (<1 %)", "cleveland": "0 (0 %)"} for n in range(90)]
    store.added_to(heart).summary("table-1", {"rows": lines, "note": ""})
    found = page(heart)
    assert (len(found.table[0].value), len(found.dataframe)) == (90, 0)


@pytest.mark.parametrize(("sites", "more"), [(1, False), (9, True)])
def test_no_figure_of_table_1_stands_in_two_lines_and_many_sites_go_on_to_the_right(store, heart, sites, more):
    of = dict.fromkeys("abcdefghi"[:sites], "at least 12 (5 %)")
    row = {"Characteristic": "age, years (mean ± SD)", "All sites": "53.51 ± 9.42"} | of
    store.added_to(heart).summary("table-1", {"rows": [row], "note": ""})
    found = page(heart)
    (line,) = found.table[0].value.to_dict("records")
    first, *figures = line.values()
    assert " " in first and not any(" " in cell for cell in figures) and len(figures) == sites + 1
    assert ("The table continues to the right." in words(found)) == more


def test_the_maps_have_each_figure_of_the_record(mixed: str):
    missing, apart = maps(page(mixed))
    seen = set()
    for one in record(mixed, "columns")["columns"]:
        gappy = any(entry["missing"] != 0 for entry in one["sites"].values())
        assert gappy == ((one["column"], "site-01") in missing)
        name = f"{one['column']} (share of {one['towards']})" if one["towards"] else one["column"]
        for site, entry in one["sites"].items():
            if gappy:
                is_missing(missing[one["column"], site], entry)
            seen.add(is_apart(apart[name, site], entry, one))
    assert seen == {"none", "about", "chance", "apart"}  # each kind was there


def is_missing(cell: dict[str, Any], entry: dict[str, Any]) -> None:
    if entry["missing"] is None:
        assert cell["text"] == "–" and math.isnan(cell["value"] or math.nan)  # grey
        return
    share = 100 * entry["missing"] / entry["rows"]
    assert cell["value"] == pytest.approx(share)
    rounded = f"{share:.0f}"
    few_or_most = {"0": "<1" if entry["missing"] else "0", "100": ">99" if share < 100 else "100"}
    assert cell["text"] == few_or_most.get(rounded, rounded)


def is_apart(cell: dict[str, Any], entry: dict[str, Any], one: dict[str, Any]) -> str:
    if entry["difference"] is None:
        assert cell["text"] == "–" and entry["reason"] in cell["says"]
        assert math.isnan(cell["value"] or math.nan)  # grey
        return "none"
    text = cell["text"].strip("()≈±").replace(MINUS, "-")
    size = abs(entry["difference"])
    expected = size if one["towards"] is None else entry["difference"]
    if entry["about"]:
        assert cell["text"].startswith("≈") and entry["chance"] is None
        assert float(text) == pytest.approx(expected, abs=0.0501) and len(text.strip("+-")) <= 3
        return "about"
    assert float(text) == pytest.approx(expected, abs=0.00501)
    by_chance = size <= entry["chance"]
    assert cell["text"].startswith("(") == by_chance
    assert cell["value"] == pytest.approx(0.0 if by_chance else entry["difference"])  # white if by chance
    return "chance" if by_chance else "apart"


def test_the_folded_table_has_each_figure_of_the_record(mixed: str):
    found = overview(mixed, DATA)
    found.session_state["drift-table"] = True
    lines = [line for table in [*found.run().table, *found.dataframe] for line in table.value.to_dict("records")]
    by_line = {(line["Column"].split(" (share")[0], line["Site"]): line for line in lines if "Site" in line}
    for one in record(mixed, "columns")["columns"]:
        for site, entry in one["sites"].items():
            line = by_line[one["column"], site]
            told_rows = "suppressed" if entry["missing"] is None else str(entry["rows"] - entry["missing"])
            assert (str(line["Rows"]), str(line["Rows with a value"])) == (str(entry["rows"]), told_rows)
            assert line["Reason"] == entry["reason"]
            assert str(line["Other sites compared"] or 0) == str(entry["compared-with"] or "0")
            if entry["chance"] is not None:
                shown_as = line["Difference (standard deviations)"].replace(MINUS, "-")
                assert float(shown_as) == pytest.approx(entry["difference"], abs=6e-4)
                assert float(line["Largest by chance"]) == pytest.approx(entry["chance"], abs=6e-4)
            else:
                assert line["Largest by chance"] == ""


def test_gaps_and_differences_are_said_with_their_figures(store, heart: str):
    said = words(write(store, heart, *COLUMNS["columns"]))
    # 190 of 294, and 3 + 102 of 303 + 200: the fourth hospital of the run tells nothing
    assert (
        "slope is missing in 65 % of the rows of hungary and in 21 % of the rows of the 2 other sites that report it."
        in said
    )
    assert "hungary differs most in age: 1.00 standard deviations below the other sites." in said
    assert "long-beach differs most in slope: 0.40 standard deviations from the other sites." in said
    assert "cleveland differs most in slope: 0.31 standard deviations from the other sites." in said
    assert "53.5 (9.4)" in said


def test_elsewhere_is_said_only_of_sites_that_tell(store, heart: str):
    # As long-beach's ca: 99 % missing; two of the other three keep their counts back.
    ca = column("ca", cleveland=TOLD | {"missing": 4}, hungary=KEPT, switzerland=KEPT,
                **{"long-beach": TOLD | {"rows": 200, "missing": 198}})  # fmt: skip
    alone = column("chol", cleveland=KEPT, hungary=KEPT, switzerland=TOLD | {"rows": 123, "missing": 123})
    said = words(write(store, heart, alone, ca))
    assert (
        "ca is missing in 99 % of the rows of long-beach and in 1 % of the rows of the one other site that reports it."
        in said
    )
    assert "chol is missing" not in said and "elsewhere" not in said
    ca["sites"] |= {site: TOLD | {"rows": 123, "missing": 0} for site in ("hungary", "switzerland")}
    # 4 of 303 + 123 + 123
    assert "and in 1 % of the rows of the other sites." in words(write(store, heart, ca))


def test_a_large_site_is_set_beside_the_others_and_not_beside_all_sites_with_itself(store, heart: str):
    # 8 of 100 rows against none of 20: of all 120 rows it would be 7 %, and hungary's share next to that.
    there = {"cleveland": TOLD | {"rows": 20, "missing": 0}, "hungary": TOLD | {"rows": 100, "missing": 8}}
    said = words(write(store, heart, column("x", **there)))
    assert (
        "x is missing in 8 % of the rows of hungary and in 0 % of the rows of the one other site that reports it."
        in said
    )


def test_a_few_missing_rows_are_not_none_and_make_no_site_stand_out(store, heart: str):
    there = {"cleveland": TOLD | {"rows": 1000, "missing": 2}, "hungary": TOLD | {"rows": 1000, "missing": 998}}
    found = write(store, heart, column("x", **there))
    assert {cell["text"] for cell in maps(found)[0].values()} == {"<1", ">99"}
    assert "x is missing in more than 99 % of the rows of hungary and in less than 1 % of the rows" in words(found)
    there = {"cleveland": TOLD | {"rows": 1000, "missing": 2}, "hungary": TOLD | {"rows": 1000, "missing": 51}}
    said = words(write(store, heart, column("x", **there)))
    assert "x is missing" not in said and said.count("No site stands out. In no column") == 1


def test_the_largest_gaps_are_drawn_and_each_column_is_named_once(store, heart: str):
    def gap(number: int) -> dict[str, Any]:
        return {site: TOLD | {"rows": 100, "missing": number * worse, "difference": None, "reason": "x"}
                for site, worse in (("cleveland", 1), ("hungary", 2), ("long-beach", 0))}  # fmt: skip

    names = [f"x{number:02}" for number in range(1, 31)]
    columns = [column(name, **gap(number)) for number, name in enumerate(names, 1)]
    found = write(store, heart, *columns)
    assert list(dict.fromkeys(name for name, _ in maps(found)[0])) == names[:4:-1]
    said = words(found)
    assert "The chart shows the 25 columns with the largest gaps between sites; the table has all 30." in said
    assert [line.split()[1] for line in said.splitlines() if " is missing in " in line] == ["x30", "x29", "x28"]


def test_a_figure_from_groups_of_bins_is_about_and_named_only_if_it_is_very_large(store, heart: str):
    about = TOLD | {"about": True, "chance": None, "compared-with": 3}
    columns = [column("a", cleveland=about | {"difference": 0.93}), column("b", hungary=about | {"difference": -0.45})]
    said = words(write(store, heart, *columns))
    assert "cleveland differs most in a: about 0.9 standard deviations above the other sites (from groups of" in said
    assert "hungary differs" not in said and "It is not known how much of the difference is chance." in said
    said = words(write(store, heart, *columns[1:]))
    assert "For figures from groups of bins the limit is 0.50." in said


def test_what_only_some_tell_is_said_after_what_all_tell(store, heart: str):
    part = {"cleveland": TOLD | {"difference": 1.4, "compared-with": 1}, "hungary": KEPT}
    whole = {"cleveland": TOLD | {"difference": 0.5, "compared-with": 3}, "hungary": KEPT}
    assert "cleveland differs most in b: 0.50 standard deviations above the other sites." in words(
        write(store, heart, column("a", **part), column("b", **whole))
    )
    assert "in a: 1.40 standard deviations above the one other site that reports it." in words(
        write(store, heart, column("a", **part))
    )


def table_1_of(rows):
    from flfed.records.dashboard import sections
    from flfed.records.sections import data

    sections.show(data.table_1({"rows": rows, "note": ""}, why_none=""))


def test_two_words_that_are_explained_are_emphasised_as_one_is(store, heart: str):
    rows = [{"Characteristic": "term: 60", "a": "at least 33", "b": "suppressed"}]
    found = AppTest.from_function(table_1_of, kwargs={"rows": rows}).run()
    assert not found.exception
    said = " ".join(caption.value for caption in found.caption)
    assert "*at least*: some of it" in said and "*suppressed*: not released" in said and "\\*" not in said


def test_a_dash_for_the_deviation_of_one_row_is_explained(store, heart: str):
    rows = [{"Characteristic": "age, years (mean ± SD)", "a": "47.00 ± –", "b": "50.8 ± 10.1"}]
    store.added_to(heart).summary("table-1", {"rows": rows, "note": ""})
    assert "± –: a single row has no deviation." in words(page(heart))


def test_a_gap_is_that_of_its_own_line_be_another_of_the_same_name():
    def gap(missing: int) -> dict[str, Any]:
        return column("x", a=TOLD | {"rows": 100, "missing": missing}, b=TOLD | {"rows": 100, "missing": 0})

    assert gaps_in_words({"columns": [gap(20), gap(70)]}, sites=2) == [
        f"x is missing in {share} % of the rows of a and in 0 % of the rows of the other site." for share in (70, 20)
    ]


def test_under_secure_aggregation_the_page_says_that_no_sites_own_sums_are_recorded(store, heart: str):
    store.added_to(heart).summary("secure-sums", {"kind": "masked", "sites": 4})
    said = words(page(heart))
    assert "ended without one" not in said and "no site's own are recorded" in said


def test_a_run_that_goes_on_and_one_that_failed_say_when_there_will_be_figures(store):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    going = store.begin_run(series, engine="", path="", seed=1, rounds_planned=9, primary="log_loss", task="binary")
    assert words(page(going.run)).count("the table comes with the comparison") == 3
    going.finish(status="failed", reason="the disk is full")
    said = words(page(going.run))
    assert said.count("this run ended without one") == 3 and "it comes with" not in said


@pytest.mark.browser
def test_each_label_of_a_map_is_there_whole_and_at_its_row(store, heart: str, address: str):
    sites = [f"taiwan-credit-{number:02}-university" for number in range(12)]
    name = "default.payment.next.month"
    columns = [column(name, **dict.fromkeys(sites, TOLD)) | {"towards": "1"}]
    columns += [column(f"PAY_{number}", **dict.fromkeys(sites, TOLD)) for number in range(5)]
    store.added_to(heart).summary("columns", {"columns": columns, "note": ""})
    store.added_to(heart).summary("table-1", {"rows": [], "note": ""})
    with opened(address) as window:
        window.page.goto(f"{address}/data?run={heart}")
        window.page.locator("h1").first.wait_for()
        window.drawn()
        boxes = json.loads(window.page.evaluate(BOXES))
        window.is_sound()
    labels = {box["text"]: box for box in boxes["labels"]}
    assert {*sites, f"{name} (share of 1)"} <= set(labels)
    for box in labels.values():
        assert boxes["svg"]["left"] - 1 <= box["left"] and box["right"] <= boxes["svg"]["right"] + 1
    tops = sorted({round(cell["middle"]) for cell in boxes["cells"]})
    first = labels[f"{name} (share of 1)"]
    assert tops[0] - first["middle"] == pytest.approx(20, abs=3)  # above its cells
    assert len(tops) == len(columns)


BOXES = """(() => { const svg = document.querySelector('[data-testid=stVegaLiteChart] svg');
  const box = mark => { const r = mark.getBoundingClientRect(); return {text: mark.textContent, left: r.left,
    right: r.right, middle: (r.top + r.bottom) / 2}; };
  const all = what => [...svg.querySelectorAll(what)].map(box);
  const cells = all('.mark-rect.layer_0_marks path');
  return JSON.stringify({svg: box(svg), labels: all('.role-axis-label text'), cells});
})()"""


def test_no_label_is_dropped_and_cells_without_a_figure_are_drawn():
    cells = [{"column": "x", "site": "a", "value": None, "text": "–", "says": ""}]
    found = data._map(cells, most=1)
    assert found is not None
    for axis in (found.spec["encoding"][way]["axis"] for way in "xy"):
        assert (axis["labelOverlap"], axis["labelFlush"]) == (False, False)
    assert found.spec["layer"][0]["mark"]["invalid"] is None
