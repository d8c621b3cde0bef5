"""The verdict on joining is one: a site's own app, the coordinator's page, the report and the JSON agree on it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from flfed.deployment.gate.local_results import Result, results_of
from flfed.deployment.site_app.pages.s50_results import difference_of, site_entry
from flfed.records.document.document import document
from flfed.records.reports.narrative import comparison_rows, verdict_in_words
from flfed.records.reports.report import report
from flfed.records.reports.site_verdict import best_arm, site_verdict
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import widening
from flfed.records.store.reader import RunReader
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from tests.deployment.summing import Consortium, Coordinator

pytestmark = [pytest.mark.slow, pytest.mark.studies]
AUC = "roc_auc_score"


@pytest.fixture
def run_of(package, small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., tuple]:
    """Run the small study at three institutions behind gates; return report, the sites' kept results and gates."""

    def made(rounds: int, **changes) -> tuple[Report, dict[str, Result], Consortium]:
        gates = Consortium(
            [replace(site, policy=Policy()) for site in small_sites(3, rows=240)],
            Study.parse(small_study).replace({"strategy.rounds": rounds, **changes}),
        )
        run = Coordinator(gates).run()
        with RunReader.open() as reader:
            found = report(reader, run.run)
        kept = {name: results_of(folder)[0][0] for name, folder in gates.folders.items()}
        return found, kept, gates

    return made


def agree(found: Report, kept: dict[str, Result]) -> None:
    """Check that each site's own app and the record tell the same, of every metric."""
    for name, result in kept.items():
        assert result.sites == found["verdict-rule"]["sites"] == 3
        for metric in found["global"]:
            site = found["sites"][name]
            own = site_entry(result, metric)
            assert site_verdict(own, metric) == site_verdict(site, metric)
            assert best_arm(own, metric) == best_arm(site, metric)
    assert {name: of["verdict"] for name, of in found["sites"].items()} == {
        name: site_verdict(site_entry(result, AUC), AUC)[0] for name, result in kept.items()
    }


def test_a_sites_own_app_and_the_record_agree_on_word_and_interval(run_of):
    found, kept, _ = run_of(rounds=40)
    agree(found, kept)
    told = json.loads(json.dumps(found))["sites"]
    for name, result in kept.items():
        (difference,) = [one for one in result.differences if (one.metric, one.arm) == (AUC, "global - local-only")]
        wide = difference_of(result, difference)
        entry = told[name]["difference"][AUC]
        assert (wide.wide_low, wide.wide_high) == (entry["widened-low"], entry["widened-high"])
        # Figures cross rounded; the interval is made of these.
        assert entry["low"] == difference.low == round(difference.low, 4)
        assert wide.wide_low == pytest.approx(difference.value + widening(3) * (difference.low - difference.value))


def at_the_limit(found: Report, name: str) -> float:
    """Return the lower end of a site's gain, as it crossed and was widened."""
    return found["sites"][name]["difference"][AUC]["widened-low"]


def test_they_agree_on_either_side_of_the_limit(run_of):
    found, _, _ = run_of(rounds=40)
    name = max(found["sites"], key=lambda site: at_the_limit(found, site))
    plain, wide = (found["sites"][name]["difference"][AUC][end] for end in ("low", "widened-low"))
    assert wide < plain
    # Between both ends the plain interval says "pays", and the one that is widened does not.
    for limit in (wide - 1e-6, (plain + wide) / 2) if wide > 1e-6 else ((plain + wide) / 2,):
        if limit < 0:
            continue
        found, kept, _ = run_of(rounds=40, **{"compare.minimum-gain": limit})
        agree(found, kept)
        assert (found["sites"][name]["verdict"] == "joining pays") == (limit < wide)


def test_two_rounds_are_the_headline_and_nobody_is_told_not_to_use_the_model(run_of):
    found, kept, _ = run_of(rounds=2)
    assert (found["training"]["enough"], found["training"]["by"]) == (False, "loss")
    assert {result.trained for result in kept.values()} == {"not-enough"}
    first = verdict_in_words(found)[0]
    assert first.startswith("The shared model was not trained enough to be judged: try more rounds")
    assert re.search(r"Its loss still fell by \d+ % in the last round\.", first)
    agree(found, kept)
    text = json.dumps(found) + "\n".join(comparison_rows(found)[2])
    assert "do not use" not in text
    page = document(found["run"])
    assert first.partition(".")[0] in page
    assert "do not use the shared model" not in page


def test_of_one_round_it_is_not_known(run_of):
    found, kept, _ = run_of(rounds=1)
    assert found["training"]["enough"] is None
    assert {result.trained for result in kept.values()} == {"not-known"}
    assert "Whether the shared model was trained enough is not known" in "\n".join(comparison_rows(found)[2])
