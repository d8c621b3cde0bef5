"""A site whose table is coded otherwise is told of to every reader of a run, made on loan-default."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.statistics.odd_sites import apart, odd_sites_in_words, reversed_outcomes
from flfed.summaries import drift
from tests.terminal import PROGRESS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "flfed" / "records" / "dashboard" / "pages"
AMOUNTS = ("annual_inc", "total_bal_il", "delinq_amnt", "total_il_high_credit_limit")

SITE = """
from flfed import Csv, Field, Holdout, Site

site = Site(
    name="{name}",
    dataset="loan-default",
    source=Csv({file!r}),
    mapping={{
        "term": Field("term", values={{"term_36": "36", "term_60": "60"}}),
        "loan_status": {status},
        {more}
    }},
    holdout=Holdout(share=0.3, salt="{name}-2026"),
)
"""
SWAPPED = 'Field("Class", values={"good": "bad", "bad": "good"})'


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that puts a region's own package, changed, in place of the shipped one."""

    def write(region: str, *, status: str = '"Class"', more: str = "") -> None:
        folder = tmp_path / "root" / "sites" / f"{region}_lender"
        folder.mkdir(parents=True)
        file = str(ROOT / "datasets" / "loan-default" / f"{region}.csv")
        text = SITE.format(name=f"{region}-lender", file=file, status=status, more=more)
        (folder / "__init__.py").write_text(text)
        (folder / "policy.toml").write_text((ROOT / "sites" / f"{region}_lender" / "policy.toml").read_text())
        monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))

    return write


@pytest.fixture
def told(flfed) -> Callable[[], tuple[list[str], dict]]:
    """A function that runs loan-default and returns what each reader is told, and the report as JSON."""

    def run() -> tuple[list[str], dict]:
        code, ran, err = flfed("study", "run", "loan-default", "--set", "rounds=10", "--set", "compare.resamples=200")
        # A stage that stands still on a loaded machine has a line of progress, and nothing else is said.
        assert (code, [line for line in err.splitlines() if not PROGRESS.fullmatch(line)]) == (0, [])
        code, shown, _ = flfed("run", "show", "latest")
        assert code == 0
        code, out, _ = flfed("run", "show", "latest", "--json")
        assert code == 0
        page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        page.switch_page(str(PAGES / "p20_overview.py")).run()
        assert not page.exception
        warned = "\n".join(str(warning.value) for warning in page.warning).replace("\\", "").replace("\u2060", "")
        return [ran, shown, warned], json.loads(out)

    return run


@pytest.mark.studies
@pytest.mark.proof
def test_amounts_a_thousand_times_too_small_are_told_with_site_column_and_size(changed, told):
    changed("west", more="\n".join(f'"{name}": Field("{name}", multiply=0.001),' for name in AMOUNTS))
    texts, report = told()
    found = {(line["site"], line["column"]): line["difference"] for line in report["apart"]}
    assert {site for site, _ in found} == {"west-lender"}
    # log1p(annual income) spreads by 0.55; a thousandth is ln 1000 = 6.9 lower
    assert found["west-lender", "annual_inc"] < -8
    assert report["outcome-reversed"] == []
    for text in texts:
        line = next(line for line in text.splitlines() if "lies apart" in line)
        assert "west-lender lies apart from the other sites in annual_inc" in line
        assert "standard deviations below" in line and line.endswith("another unit?")


@pytest.mark.studies
@pytest.mark.proof
def test_an_outcome_that_is_swapped_in_one_region_is_told_as_that(changed, told):
    changed("midwest", status=SWAPPED)
    texts, report = told()
    assert [line["site"] for line in report["outcome-reversed"]] == ["midwest-lender"]
    line = report["outcome-reversed"][0]
    assert line["local-only"] > 0.6 and line["global"] < 0.5
    assert [(line["site"], line["outcome"]) for line in report["apart"]] == [("midwest-lender", True)]
    for text in texts:
        said = [line for line in text.splitlines() if "the other way round" in line]
        assert len(said) == 1 and "midwest-lender" in said[0], text
        assert "outcome coded the other way round?" in said[0]
        assert "lies apart" not in text


@pytest.mark.studies
@pytest.mark.proof
def test_of_the_shipped_regions_nobody_is_told_to_lie_apart(told):
    texts, report = told()
    assert (report["apart"], report["outcome-reversed"]) == ([], [])
    assert not any("lies apart" in text or "other way round" in text for text in texts)


def payload(**entry) -> dict:
    told = {"difference": None, "about": False, "spread": 1.0} | entry
    return {"columns": [{"column": "x", "towards": "", "sites": {"a": told}}]}


@pytest.mark.parametrize(("entry", "tells"), [
    ({"difference": 2.9}, False),
    ({"difference": -3.0}, True),
    ({"difference": 3.1, "about": True}, False),  # groups of bins may have moved it by 0.25
    ({"difference": 3.3, "about": True}, True), ({"difference": -1.2, "spread": 0.001}, True),
    ({"difference": -1.2, "spread": 0.4}, False), ({"difference": 0.9, "spread": 1000.0}, False),
    ({"difference": 5.0, "spread": None}, True), ({}, False),
])  # fmt: skip
def test_a_site_lies_apart_from_three_deviations_on_or_one_with_another_spread(entry, tells):
    assert bool(apart(payload(**entry))) == tells


ALIKE = {"difference": 0.1, "reason": ""}
FAR_IN_X = "a lies apart from the other sites in x (no value in common)"
NONE_IN_COMMON = {"difference": None, "reason": drift.APART}


@pytest.mark.parametrize(("towards", "sites", "told"), [
    ("", {"a": NONE_IN_COMMON, "b": ALIKE, "c": ALIKE}, [f"{FAR_IN_X}: another unit?"]),
    (
        None, {"a": NONE_IN_COMMON, "b": ALIKE, "c": {"difference": 3.5}},
        [f"{FAR_IN_X}: is that so, or other codes?"],
    ),
    (None, {"a": NONE_IN_COMMON, "b": NONE_IN_COMMON, "c": NONE_IN_COMMON}, []),  # it names the place
    (None, {"a": {"difference": None, "reason": drift.SITE_SUPPRESSES}, "b": ALIKE, "c": ALIKE}, []),
])  # fmt: skip
def test_a_site_without_a_value_in_common_is_the_furthest(towards, sites, told):
    found = apart({"columns": [{"column": "x", "towards": towards, "sites": sites}]})
    assert odd_sites_in_words({"apart": found, "outcome-reversed": []}) == told


@pytest.mark.parametrize(("towards", "said"), [
    ("", "a lies apart from the other sites in y (4.0 standard deviations above): another unit?"),
    ("yes", "a: y is 4.0 standard deviations above the other sites: outcome coded the other way round?"),
    (None, "a lies apart from the other sites in y (4.0 standard deviations away): is that so, or other codes?"),
])  # fmt: skip
def test_only_an_outcome_of_two_classes_may_be_the_other_way_round(towards, said):
    column = {"column": "y", "outcome": True, "towards": towards, "sites": {"a": {"difference": 4.0}}}
    assert odd_sites_in_words({"apart": apart({"columns": [column]}), "outcome-reversed": []}) == [said]


def test_a_record_of_an_earlier_version_without_spread_or_outcome_is_read():
    old = {"columns": [{"column": "x", "towards": "", "sites": {"a": {"difference": 4.0}}}]}
    assert apart(old) == [
        {
            "site": "a", "column": "x", "difference": 4.0, "towards": "", "about": False, "outcome": False,
            "mirrored": False,
        }
    ]  # fmt: skip
    assert apart(None) == []


def arms(own: tuple, shared: tuple) -> dict:
    keys = ("value", "low", "high")
    two = {"local-only": own, "global": shared}
    return {arm: {"roc_auc_score": dict(zip(keys, told, strict=True))} for arm, told in two.items()}


@pytest.mark.parametrize(("own", "shared", "tells"), [
    ((0.75, 0.7, 0.8), (0.27, 0.22, 0.32), True), ((0.75, 0.7, 0.8), (0.52, 0.47, 0.57), False),
    ((0.55, 0.45, 0.65), (0.4, 0.3, 0.5), False),  # its own model tells nothing either
    ((0.7, 0.55, 0.8), (0.48, 0.3, 0.66), False),  # chance alone may put it below
    ((0.7, None, None), (0.3, None, None), True), ((None, None, None), (0.3, 0.2, 0.4), False),
])  # fmt: skip
def test_an_outcome_looks_reversed_where_the_own_model_is_fine_and_the_shared_one_below_chance(own, shared, tells):
    assert bool(reversed_outcomes({"a": arms(own, shared)})) == tells


def test_three_sites_are_named_and_the_others_counted():
    lines = [
        {
            "site": f"s{n}", "column": "x", "difference": 4.0 + n, "towards": "", "about": False, "outcome": False,
            "mirrored": False,
        }
        for n in range(7)
    ]  # fmt: skip
    said = odd_sites_in_words({"apart": lines, "outcome-reversed": []})
    assert len(said) == 4 and said[-1] == "And 4 more sites that lie apart: s3, s4, s5, s6."
    lines = [one | {"site": f"{one['site']}-{k}"} for k in range(5) for one in lines]
    assert odd_sites_in_words({"apart": lines, "outcome-reversed": []})[-1].endswith(" and 20 others.")


MIRROR = "its share is 1 minus that of the other sites: coded the other way round?"


@pytest.mark.parametrize(
    ("entry", "said"), [({"mirrored": True}, [f"a: in x (1.2 standard deviations above) {MIRROR}"]), ({}, [])]
)
def test_a_flag_whose_share_is_one_minus_that_of_the_others_is_told_as_turned_round(entry, said):
    column = {"column": "x", "outcome": False, "towards": "1", "sites": {"a": {"difference": 1.2} | entry}}
    assert odd_sites_in_words({"apart": apart({"columns": [column]}), "outcome-reversed": []}) == said
