"""A run of which all that leaves is charged, in words and tables: its figures, its promise, and what nobody is told."""

import copy
import json
import re

import numpy as np
import pytest

from flfed import Study
from flfed.experiments.compare_runs import compare_runs
from flfed.federation.recording.privacy_recorder import facts_of
from flfed.records.document.document import document
from flfed.records.objects import FigureReport
from flfed.records.objects import read as read_object
from flfed.records.reports.audit_headlines import in_words
from flfed.records.reports.narrative import comparison_rows, story, tally, verdict_in_words
from flfed.records.reports.privacy import promise_in_words
from flfed.records.reports.privacy_tables import (
    charged_lines,
    kind_in_words,
    kinds_of,
    left_lines,
    mechanism_lines,
    why_so_many,
)
from flfed.records.reports.report import arms_shown, report
from flfed.records.reports.site_answer import rests_on, should_it_join, site_line
from flfed.records.reports.site_verdict import site_verdict
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.noised_scores import (
    NoisedCounts,
    count_lines,
    figure_lines,
    lost_in_words,
    scores_in_words,
    slope_in_words,
)
from flfed.records.statistics.verdict import ABSENT, INCONCLUSIVE, interval, number
from flfed.records.store.reader import RunReader
from flfed.summaries.noised_scores import CLASS_LOST
from flfed.updates.accounting import Release, epsilon
from flfed.words import render
from tests.records.covered_runs import ANSWERS, AUC, NAMES, SITES, STUDY, Found, in_store
from tests.records.documents import read, section, tables, titles

GAIN_NOT_RELEASED = render("report.noised.gain")
NO_ROUNDS = render("report.noised.rounds")
NO_SUMS = render("report.noised.sums")
OF_JOINING = re.compile(
    r"\b[Jj]oining improves AUC at \d|[Ii]nconclusive|\bgain|site model|test rows n/a|all updates of a site"
)
"""What only a run says whose models were compared, or whose promise is of updates alone."""


@pytest.fixture
def found(store, url, shown) -> Found:
    return in_store(store, url)


def as_of_updates(found: Found) -> Found:
    """The same report as if its promise were of updates alone: what earlier words made of such a run."""
    before = copy.deepcopy(found)
    for key in ("covers", "answers"):
        del before["privacy"][key]
    for site in before["sites"].values():
        del site["not-compared"]
    return before


def test_the_terminal_tells_figures_with_intervals_and_says_once_that_joining_is_not_told(found, flfed):
    said = flfed("run", "show", found["run"], "--all")[1]
    assert said.count(GAIN_NOT_RELEASED) == 1
    assert not OF_JOINING.search(said)
    whole = found["global"][AUC]
    assert re.search(rf"AUC +{number(whole['value'])} +{interval(whole['low'], whole['high'])}", said)
    for site in SITES:
        one = found["sites"][site]["global"][AUC]
        line = rf"{site} +3,00\d +{number(one['value'])} +{interval(one['low'], one['high'])}"
        assert re.search(line, said), site
    assert re.search(r"geneva +3,003 +n/a +the smaller class is lost in the noise", said)
    slope = found["noised-scores"]["all"]["slope"]
    assert f"calibration slope  {number(slope['value'])}" in said
    # The fault: told as of updates alone, each site is inconclusive and five columns are empty.
    before = as_of_updates(found)
    assert tally(before, AUC).startswith("Inconclusive at 4 of 4 sites")
    assert {"test rows", "site model", "verdict"} <= set(comparison_rows(before)[0])
    assert [row.count(ABSENT) for row in comparison_rows(before)[1]][0] >= 3


def test_the_json_has_all_figures_and_why_none_is_held_against_an_own_model(found, flfed):
    told = json.loads(flfed("run", "show", found["run"], "--json")[1])
    assert told["noised-scores"]["requested-sites"] == 4 and set(told["noised-scores"]["sites"]) == set(NAMES)
    assert told["mean-gain"] == {}
    for site in told["sites"].values():
        assert site["verdict"] == INCONCLUSIVE and site["holdout-rows"] is None
        assert "no comparison with the sites' own models" in site["not-compared"]
    assert told["sites"]["geneva"]["global"][AUC]["reason"] == CLASS_LOST
    assert {key: told["privacy"][key] for key in ("covers", "answers")} == {
        "covers": "study", "answers": ANSWERS,
    }  # fmt: skip


def test_words_of_a_run_name_no_model_that_was_not_measured(found):
    said = [*story(found), *verdict_in_words(found), *comparison_rows(found)[2]]
    assert GAIN_NOT_RELEASED in said and not OF_JOINING.search(" ".join(said))
    assert arms_shown(found, AUC) == ["global"]
    assert should_it_join(found, "bern", AUC) == "Whether joining improves AUC at bern is not released."
    assert site_verdict(found["sites"]["bern"], AUC)[1].startswith("AUC cannot be compared here: no comparison with")
    assert set(site_line(found, "bern", AUC, ["global"])) == {"Site", "Trained on, about", "Shared model"}
    rests = " ".join(rests_on(found, "bern", AUC))
    assert "How many these are is not released" in rests and "about 3,001 persons" in rests


def test_everything_lost_in_the_noise_is_told_as_that_and_not_as_a_comparison(store, url, shown, flfed):
    lost = in_store(store, url, lost=True)
    said = flfed("run", "show", lost["run"])[1]
    assert "The shared model's AUC over all sites is not known: the test rows are lost in the noise." in said
    assert said.count(GAIN_NOT_RELEASED) == 1 and not OF_JOINING.search(said)
    assert all(re.search(rf"{site} +3,00\d +n/a +the test rows are lost in the noise", said) for site in NAMES)
    assert figure_lines(lost) == [] and scores_in_words(lost) == []
    assert lost_in_words(lost, AUC) == ["No figure of any site: the test rows are lost in the noise."]


def test_slope_and_its_words():
    def says(value: float, low: float, high: float) -> str:
        return slope_in_words(FigureReport(value=value, low=low, high=high))

    assert "): predictions are too extreme. A slope of 1 is calibrated" in says(0.8, 0.7, 0.9)
    assert "): no fault is shown." in says(0.95, 0.85, 1.05)
    assert "): predictions are not extreme enough." in says(1.3, 1.1, 1.5)
    assert "): predictions may say nothing." in says(0.2, -0.1, 0.5)
    assert slope_in_words(None) == ""


def test_ends_of_bins_are_probabilities(found):
    one = found["noised-scores"]["all"]
    lines = count_lines(read_object(NoisedCounts, one))
    # Log-odds of 0.5 each about the base rate's, which is -1.5 here; the outermost bins have all that is beyond.
    expected = 1 / (1 + np.exp(-(-1.5 + np.arange(-3.5, 4.0, 0.5))))
    np.testing.assert_allclose([line["Predicted, from"] for line in lines[1:]], expected, rtol=6e-3)
    assert (lines[0]["Predicted, from"], lines[-1]["Predicted, to"]) == (0.0, 1.0)
    np.testing.assert_allclose([line["Without the outcome"] for line in lines], one["counts"][0], atol=0.06)
    np.testing.assert_allclose([line["With the outcome"] for line in lines], one["counts"][1], atol=0.06)
    assert {line["Noise on a count, 95 % (±)"] for line in lines} == {round(NORMAL_95 * 2 * 3.111, 1)}


# --- What was promised and charged


def test_the_promise_is_of_all_that_leaves(found):
    lines = promise_in_words(found["privacy"])
    assert lines[0] == (
        "Promised to each person by record-dp: ε = 3 at δ = 1e-5, for everything that a site releases of its "
        "rows: counts with noise and all 800 steps of training."
    )
    # e^2.9998 is 20.08.
    assert lines[1] == (
        "Anyone who sees everything that a site releases of its rows may learn something about whether any one "
        "person's rows, all of them, were in its table: the odds can change by at most e^ε, 20.1 times, but for rare "
        "results (δ)."
    )
    assert lines[2] == "All releases share this ε, for a person who is trained on and for one who is held out."
    everything = " ".join(in_words(found["privacy"], []))
    assert "for 800 steps and the counts with noise" in everything and "updates" not in everything
    # Of updates alone the old words stay.
    before = promise_in_words(as_of_updates(found)["privacy"])
    assert "over all 800 steps of the run" in before[0] and "Anyone who sees all updates of a site" in before[1]
    assert not any("All releases share" in line for line in before)


def test_a_run_says_the_noise_of_each_answer_and_of_training(found):
    lines = charged_lines(found["privacy"])
    by_what = {line["Charged for"]: line["Noise multiplier"] for line in lines}
    assert by_what["training, 800 steps with sampling 0.100"] == "4.55"
    assert by_what["counts by class and bin of scores"] == "3.11" and len(lines) == len(ANSWERS) + 1
    # A record that does not tell has no table.
    assert charged_lines(as_of_updates(found)["privacy"]) == []


def test_the_recorder_writes_the_noise_of_each_answer_and_all_together_spend_the_promise():
    facts = facts_of(Study.parse(STUDY), 4)
    answers = [Release(of["noise"], 1.0, 1) for of in facts["answers"]]
    assert facts["covers"] == "study" and [of["name"] for of in facts["answers"]] == [of["name"] for of in ANSWERS]
    steps = Release(facts["noise"], facts["sampling"], facts["steps"])
    assert facts["epsilon"] == epsilon([*answers, steps], 1e-5) and 2.96 <= facts["epsilon"] <= 3.0
    # Half the noise on any of them would spend more.
    for halved in (steps, *answers):
        others = [one for one in (steps, *answers) if one is not halved]
        assert epsilon([*others, Release(halved.noise / 2, halved.sampling, halved.steps)], 1e-5) > 3.09
    # Another study has none of these keys: its record stays as it was.
    other = facts_of(Study.parse(STUDY.replace('covers = "study"', "")), 4)
    assert not {"covers", "answers"} & other.keys()


def test_mechanisms_in_force_have_no_suppression_and_noise_on_all(found, url):
    with RunReader.open(url) as reader:
        sites = reader.sites(reader.runs()[0].run)
    lines = {line["Mechanism"]: line for line in mechanism_lines(found["privacy"], sites)}
    assert lines["differential privacy"]["How"].startswith("in training noise multiplier 4.55")
    assert lines["suppression of small cells"]["Is"] == "not used"
    assert lines["secure aggregation"]["How"] == "the server sees each site's own updates and counts, with their noise"


def test_what_left_has_words_for_both_kinds_of_counts(found, url):
    with RunReader.open(url) as reader:
        crossed = reader.crossed([run.run for run in reader.runs()])
    kinds = kinds_of(entry for entry in crossed if entry.direction == "to-server")
    assert [kind_in_words(kind, kinds) for kind in kinds] == [
        "updates of training", "counts before training, with noise", "counts of test rows by score, with noise",
        "enrolment",
    ]  # fmt: skip
    first = left_lines(crossed)[0]
    assert first["Counts of test rows by score, with noise, bytes"] == 900
    assert first["Counts before training, with noise, bytes"] == 5_530
    out = [entry for entry in crossed if entry.direction == "to-server"]
    said = why_so_many(out)
    # 40 updates of 3,290 bytes are 131,600 of 138,270.
    assert said.startswith(
        "About 95 % of the bytes are updates of training, one a round: 40 from a site, of about 3.29 kB"
    )
    assert "no figure" in said and "counts of predictions" not in said
    # An analysis asks once as well, and trains nothing: its words stay.
    assert kind_in_words("query.statistic", ["query.enrol"]) == "statistic of a study without a model"


def test_a_study_is_told_before_it_runs_what_it_would_charge(flfed, tmp_path, small_sites):
    small_sites(1)
    file = tmp_path / "covered.toml"
    # Sites of a partition: nothing else has to be there.
    dataset = 'name = "breast-cancer"\npartition = { by = "iid", sites = 4, seed = 1 }'
    file.write_text(STUDY.replace('name = "small"', dataset))
    code, said, error = flfed("study", "check", file)
    assert code == 0, error
    assert "for everything that a site releases of its rows: counts with noise and all 800 steps of training" in said
    assert "In training: noise multiplier 4.55" in said
    assert re.search(r"counts by class and bin of scores +3\.11", said)
    told = json.loads(flfed("study", "check", file, "--json")[1])["privacy"]
    assert told["answers"] == ANSWERS and told["covers"] == "study"


def test_two_runs_are_compared_without_a_word_on_rows_that_have_noise(store, url, shown, flfed):
    first, second = (in_store(store, url, repeats=2)["run"] for _ in range(2))
    found = compare_runs(first, second)
    assert found["global"][AUC]["difference"] == pytest.approx(0.0)
    code, said, _ = flfed("run", "compare", first, second)
    assert code == 0 and not OF_JOINING.search(said)
    third = in_store(store, url, repeats=2, sites=SITES, rows=(2000, 1500, 1200))["run"]
    assert compare_runs(first, third)["paired"][AUC]["reason"] == "whether they are on the same rows is not known"


def test_repeats_say_which_of_them_the_slope_is_of(store, url, shown, flfed):
    found = in_store(store, url, repeats=2)
    said = flfed("run", "show", found["run"])[1]
    assert "calibration slope, first repeat" in said
    assert "In the first of 2 repeats: calibration slope" in said
    mean = np.mean([report_of(url, run)["global"][AUC]["value"] for run in runs_of(url)])
    assert found["global"][AUC]["value"] == pytest.approx(mean)
    assert f"AUC {number(mean)} (mean of 2 repeats; of one of them, 95 % CI" in said


def runs_of(url: str) -> list[str]:
    with RunReader.open(url) as reader:
        return [run.run for run in reader.runs()]


def report_of(url: str, run: str) -> Found:
    with RunReader.open(url) as reader:
        return report(reader, run)


# --- The report as a document


def test_the_document_has_every_figure_and_a_reason_for_what_it_lacks(found):
    text = read(document(found["run"]))
    answer = section(text, "Question and answer").words()
    assert answer.index("The shared model reaches AUC") < answer.index(GAIN_NOT_RELEASED)
    assert NO_SUMS in section(text, "Table 1: characteristics").words()
    assert f"Training by round: {NO_ROUNDS}" in section(text, "Not in this run").words()
    scored = section(text, "Predicted scores")
    lines, counts = tables(scored)[:2]
    assert [line["Rows of"] for line in lines] == ["all 4 sites", *NAMES]
    for line in lines[:-1]:
        of = found["sites"].get(line["Rows of"], found)["global"][AUC]
        assert line["AUC"] == f"{number(of['value'])} ({interval(of['low'], of['high'])})"
    assert len(counts) == len(found["noised-scores"]["all"]["counts"][0])
    assert "No figure of geneva: the smaller class is lost in the noise." in scored.words()
    charged = next(one for one in tables(section(text, "Privacy")) if "Charged for" in one[0])
    assert charged == charged_lines(found["privacy"])
    assert not {"Forest plot", "Further figures", "Calibration"} & set(titles(text))
    told = [title for title in titles(text) if title not in ("Glossary", "What it does not show")]
    assert not OF_JOINING.search(" ".join(section(text, title).words() for title in told))
