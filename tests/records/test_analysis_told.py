"""An analysis as the terminal and the report tell it: each figure is the record's, and none is called exact."""

import copy
import json
import re

import numpy as np
import pytest

from flfed import Study, run
from flfed.cli.run_tables import print_report
from flfed.export.run_folder import export
from flfed.records.document.document import document
from flfed.records.objects import read as read_object
from flfed.records.statistics.analysis import COUNT, MEDIAN, Analysis
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables
from flfed.records.statistics.verdict import number
from flfed.records.store.reader import RunReader
from tests.records.analyses import CUT, DEVIATION, SHAPES, STUDY, figures_in, in_store, is_shown, table_of, told
from tests.records.documents import read, section, tables


@pytest.mark.parametrize("name", SHAPES)
def test_every_figure_of_every_column_and_group_is_the_records(name: str):
    found = SHAPES[name]
    numbers, quantiles = table_of(found, "Numbers"), table_of(found, "Quantiles")
    shares = table_of(found, "Shares")
    parts = {"all": found}
    if "groups" in found:
        parts |= {f"{found['groups']['by']}: {group}": of for group, of in found["groups"]["of"].items()}
    for column in found["columns"]:
        for part, of in parts.items():
            one = of["columns"][column]
            own = [line for line in (*numbers, *quantiles, *shares) if line["Column"].split(",")[0] == column]
            own = [line for line in own if line.get("Rows of", "all") == part]
            if "within" not in one:
                assert [line["Value"] for line in own] == [*one["shares"], "missing, of all"]
                pairs = zip(own, [*one["shares"].values(), one["missing"]], strict=True)
                assert all(is_shown(line["Share"], share, 100.0) for line, share in pairs)
                counts = [figures_in(line[COUNT])[0][0] for line in own[:-1]]
                np.testing.assert_allclose(counts, list(one["counts"].values()), atol=0.51)
                continue
            line = own[0] | own[-1]
            assert is_shown(line["Mean"], one["mean"]) and is_shown(line["SD"], one["sd"])
            assert is_shown(line["Missing"], one["missing"], 100.0)
            assert [end for end, _ in figures_in(line["Within"])] == one["within"]
            told_of = [MEDIAN if key == "50%" else f"{key[:-1]} % quantile" for key in one["quantiles"]]
            assert all(is_shown(line[key], of) for key, of in zip(told_of, one["quantiles"].values(), strict=True))
            assert figures_in(line["Known"])[0][0] == pytest.approx(sum(one["counts"]), abs=0.51)
    assert len(numbers) + len(shares) == len(parts) * sum(
        1 if "within" in of else len(of["shares"]) + 1 for of in found["columns"].values()
    )


@pytest.mark.parametrize("name", [name for name, found in SHAPES.items() if "groups" in found])
def test_groups_and_their_differences_are_the_records(name: str):
    found = SHAPES[name]
    groups, (first, *_) = found["groups"], found["groups"]["of"]
    unit = found["counts-each"]
    lines = table_of(found, f"{unit.capitalize()}s by {groups['by']}")
    assert [line["Group"] for line in lines] == ["all", *(f"{groups['by']}: {group}" for group in groups["of"])]
    for line, of in zip(lines[1:], groups["of"].values(), strict=True):
        assert is_shown(line[f"{unit.capitalize()}s"], of["rows"])
        assert is_shown(line[f"Share of {unit}s whose {groups['by']} is known (95 % CI)"], of["share"], 100.0)
    compared = [
        (column, what, pair, one)
        for column, of in groups["compared"].items()
        for what, pairs in of.items()
        for pair, one in pairs.items()
    ]
    lines = table_of(found, "Differences")
    assert len(lines) == len(compared)
    for line, (column, what, pair, one) in zip(lines, compared, strict=True):
        mean = what == "mean"
        assert is_shown(line["Difference (95 % CI)"], one, 1.0 if mean else 100.0)
        assert (line["Column"], line["What"]) == (column, "mean" if mean else f"share of {what}")
        assert line["Unit"] == (found["columns"][column]["unit"] if mean else "percentage points")
        low, high = (one or {}).get("low"), (one or {}).get("high")
        shows = "inconclusive" if one is None else "higher" if low > 0 else "lower" if high < 0 else None
        assert line["Shows"] == (shows or "no difference is shown")
        if len(groups["of"]) > 2:
            assert line["Groups"] == f"{pair.removesuffix(f' - {first}')} minus {first}"


def test_a_cross_table_has_every_count_however_wide_it_is():
    found = SHAPES["all"]
    (crossed,) = found["cross"]
    # Two by fifty: the fifty stand below each other.
    lines = table_of(found, "sex by ward")
    assert [line["ward"] for line in lines] == crossed["values"][1]
    shown = [[float(line[f"sex: {sex}"]) for line in lines] for sex in ("female", "male")]
    np.testing.assert_allclose(shown, crossed["counts"], atol=0.51)
    lines, counts = table_of(SHAPES["fifty by fifty"], "ward by ward"), SHAPES["fifty by fifty"]["cross"][0]["counts"]
    np.testing.assert_allclose([float(line[COUNT]) for line in lines], np.ravel(counts), atol=0.51)


def test_the_noise_beside_a_count_is_that_of_its_rows():
    found = SHAPES["all"]
    # Of all rows there are two groups and the rows without one: √3 times the noise of a cell.
    parts = read_object(Analysis, found).parts
    noise, of_group = parts["all"][1], parts["sex: male"][1]
    assert (noise, of_group) == (pytest.approx(DEVIATION * 3**0.5), DEVIATION)
    reach = found["rows"]["high"] - found["rows"]["value"]
    assert reach == pytest.approx(NORMAL_95 * noise) and reach > 1.7 * NORMAL_95 * DEVIATION
    male = found["groups"]["of"]["male"]["rows"]
    assert male["high"] - male["value"] == pytest.approx(NORMAL_95 * of_group)
    lines = {line["Rows of"]: line for line in table_of(found, "Numbers")}
    # 1.96 · 5 · √3 · √2 = 24.0 of the number of known values, which is a difference of two counts.
    assert [figures_in(lines[part]["Known"])[1][0] for part in ("all", "sex: male")] == [24.0, 14.0]
    shares = {line["Rows of"]: line for line in table_of(found, "Shares")[:3]}
    assert [figures_in(shares[part][COUNT])[1][0] for part in ("all", "sex: male")] == [17.0, 10.0]


@pytest.mark.parametrize("name", SHAPES)
def test_what_it_does_not_show_is_said_of_an_analysis_and_nothing_is_called_exact(name: str):
    found = SHAPES[name]
    said = " ".join(statistic_in_words(found))
    assert "Sums are exact" not in said
    assert f"{found['sites']} sites" in said and "nothing was trained" in said
    assert "Exact counts stay at the sites" in said
    assert ("were released to the coordinator" in said) == bool(found["by-site"])
    persons = found["counts-each"] == "person"
    assert (
        "Each person weighs one, shared over their rows; SD and quantiles are of rows so weighted." in said
    ) == persons
    # Of 398 people one may read 200, where the others had rows without it, too.
    assert ("counts there as a fifth, so this is not how many people ever" in said) == persons
    assert ("ever were in it" in said) == (persons and "groups" in found)
    titles = " ".join(table.title for table in told(found))
    assert ("each shared out by their rows" in titles) == (persons and ("groups" in found or bool(found["cross"])))
    assert ("within the range" in said) == any("within" in of for of in found["columns"].values())
    assert "normal noise of deviation 5.00" in said and "within 9.80 of the exact one" in said
    tables = [line for table in told(found) for line in table.lines]
    lost = sum(cell.startswith("n/a") for line in tables for cell in line.values())
    assert ("That is not 0" in said) == (lost > 0)
    if lost:
        assert f"n/a: {lost} figure" in said
    assert lost > 0 or name not in ("lost", "nobody")


def test_how_many_differences_cannot_be_told_is_said_and_the_rest_is_not_taken_for_all():
    found = copy.deepcopy(SHAPES["fifty groups"])
    clear, none = {"value": 2.0, "low": 1.0, "high": 3.0}, {"value": 0.0, "low": -1.0, "high": 1.0}

    def said(*ones: object) -> str:
        found["groups"]["compared"] = {"age": {"mean": dict(enumerate(ones))}}
        return " ".join(line for line in statistic_in_words(found) if "ifference" in line)

    of = "differences between groups"
    assert said(*[None] * 6, none) == f"0 of 7 {of} exceed noise and chance; 6 are inconclusive."
    assert said(None, clear) == f"1 of 2 {of} exceeds noise and chance; 1 is inconclusive."
    assert said(None, clear, none, none) == f"1 of 4 {of} exceeds noise and chance; 1 is inconclusive."
    assert said(clear, clear, none) == f"2 of 3 {of} exceed noise and chance."
    assert said(None, None) == f"0 of 2 {of} exceed noise and chance; 2 are inconclusive."
    assert said(None) == "The difference between groups is inconclusive."
    assert said(none) == "The difference between groups does not exceed noise and chance."
    assert said(clear) == "The difference between groups exceeds noise and chance."
    assert said(*[clear] * 8, None) == (
        f"8 of 9 {of} exceed noise and chance; 1 is inconclusive. About one difference in twenty is so by chance alone."
    )


def test_a_test_that_cannot_be_told_and_a_p_of_0_are_said_in_words():
    found = copy.deepcopy(SHAPES["all"])
    test = {"chi2": 2000.0, "degrees-of-freedom": 1, "p": 0.0}
    found["cross"][0]["independence"] = test
    assert "sex and ward are associated" in " ".join(statistic_in_words(found))
    assert "χ² = 2000, 1 degree of freedom, p < 0.001" in " ".join(statistic_in_words(found))
    found["cross"][0]["independence"] = test | {"p": 0.2}
    assert "sex and ward: no association is shown" in " ".join(statistic_in_words(found))
    found["cross"][0]["independence"] = None
    assert "Whether sex and ward are associated is inconclusive" in " ".join(statistic_in_words(found))


@pytest.mark.parametrize("name", SHAPES)
def test_the_terminal_prints_each_table_in_lines_as_wide_as_others(name: str, store, url, shown, capsys):
    done = in_store(store, url, SHAPES[name])
    print_report(done, whole=True)
    whole = capsys.readouterr().out
    # A pipe has 160 columns; sentences are not broken there.
    rows = [line for line in whole.splitlines() if "  " in line or line.startswith("─")]
    assert max(map(len, rows), default=0) <= 160
    printed = [re.split(r" {2,}", row.strip()) for row in rows]
    for table in statistic_tables(SHAPES[name]):
        assert table.title in whole
        assert all([cell for cell in line.values() if cell] in printed for line in table.lines)
    print_report(done)
    short = capsys.readouterr().out
    assert ("at each site" in whole) == bool(SHAPES[name]["by-site"] and SHAPES[name]["columns"])
    assert "at each site" not in short
    assert ("Figures of each site: flfed run show" in short) == ("at each site" in whole)


@pytest.mark.studies
@pytest.mark.parametrize("name", SHAPES)
def test_the_report_has_the_same_tables_and_no_word_of_a_model(name: str, store, url, shown):
    done = in_store(store, url, SHAPES[name])
    answer = section(read(document(done["run"])), "Question and answer")
    found = tables(answer)
    expected = [
        table for table in statistic_tables(SHAPES[name]) if not (table.of_each_site and len(table.lines) > 120)
    ]
    assert len(found) == len(expected)
    for lines, table in zip(found, expected, strict=True):
        plain = [{key: " ".join(cell.split()) for key, cell in line.items()} for line in table.lines]
        assert lines == plain[:120]
        # More headings than these do not stand side by side on A4.
        assert len(lines[0]) <= 7
    said = answer.words()
    assert "Nothing was compared" not in said and "rounds" not in said and "update" not in said
    titles = [node.all("h2")[0].words() for node in read(document(done["run"])).all("section")]
    first = ["Question and answer", "What it rests on", "What to do next"]
    assert titles == [*first, "Sites", "Privacy", "Glossary", "Hashes, versions and the study"]


def test_of_repeats_it_is_said_whose_figures_these_are_for_each_draws_other_noise(small_sites, capsys):
    done = run(Study.parse(STUDY), sites=small_sites(3), repeats=2).report
    print_report(done)
    said = capsys.readouterr().out
    assert "These are the figures of the first of 2 repeats" in said and "Each of the 2 repeats spends again" in said
    assert "These are the figures of the first of 2 repeats" in document(done["run"])
    with RunReader.open() as reader:
        first, second = (reader.summary(one.run, "statistics") for one in reader.runs_of(done["run"]))
    assert done["statistics"] == first != second


def test_commands_say_what_is_analysed_and_export_and_compare_know_no_model(small_sites, flfed, tmp_path):
    sites = small_sites(3, rows=200)
    done, other = (run(Study.parse(STUDY), sites=sites).report for _ in range(2))
    assert done["statistics"] != other["statistics"]  # each run draws its own noise, and is charged for it
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    code, shown, said = flfed("study", "show", file)
    assert (code, shown) == (0, STUDY)
    analysed = (
        "Analysed: x1, x2, flag, y. Figures are over all rows, and for each value of colour. Cross-tables: colour by y."
    )
    assert f"# {analysed}" in said and "# Each site replies once, with noise: ε = " in said
    file.write_text(STUDY.replace('columns = ["x1", "x2", "flag", "y"]\n', ""))
    assert "Analysed: every column of small. Figures are over all rows" in flfed("study", "show", file)[2]
    reason = "its study has a statistic or an analysis, and trains none"
    assert export(done["run"], tmp_path / "kept").reason == reason
    text = (tmp_path / "kept" / "README.txt").read_text()
    assert statistic_in_words(done["statistics"])[0] in text and "rounds ran" not in text
    compared = flfed("run", "compare", done["run"], other["run"])[1]
    assert "No models are compared: neither run has one." in compared and "arrays" not in compared


def test_a_check_tells_the_noise_at_a_site_before_anything_runs(flfed, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(CUT)
    code, said, err = flfed("study", "check", file)
    assert (code, err) == (0, "")
    assert "wine-analysis: can be run (multi-class, analysis without a model)." in said
    checked = json.loads(flfed("study", "check", file, "--json")[1])["privacy"]
    # One histogram, two sums and the number of rows: sensitivity 2.
    deviation = number(2 * checked["noise"])
    assert f"gets noise with standard deviation {deviation}. In" in said
    assert f"How: noise multiplier {number(checked['noise'], 3)} on all numbers" in said
    assert checked["one-answer"] and "steps" not in said
    file.write_text(CUT.replace("sites = 2", "sites = 3") + 'secure-aggregation = "on"\n')
    said = flfed("study", "check", file)[1]
    assert f"the sites together add noise with standard deviation {deviation} or more" in said
    assert "gets the sum of the replies of all institutions, or none" in said and "updates" not in said
