"""What differences of two sums tell of one site: the written figures, the page's words, and a planted fault."""

import json
import re
from statistics import fmean

import numpy as np
import pytest

from benchmarks import sum_differences, table
from benchmarks.sum_differences import SITE_DP, WAYS, consortium, cosine, measured, study_of
from flfed.updates.masking.rules import least_of_figures, threshold
from flfed.updates.ring import LARGEST_ENTRY, Ring

PAGE = (table.ROOT / "docs" / "secure-sums.md").read_text(encoding="utf-8")
RESULTS = json.loads(table.RESULTS.read_text())
FOUND = RESULTS["sum-differences"]


def mean(study: str, mechanism: str, way: str, round: int) -> float:
    return FOUND[study][mechanism][way][str(round)]["mean"]


@pytest.mark.usefixtures("heart")
def test_one_bit_gives_a_sites_update_away_and_noise_on_the_sum_keeps_it():
    chosen = study_of("heart-disease")
    plain, noised = measured(chosen, None), measured(chosen, SITE_DP)
    assert all(value > 0.9999 for of_round in plain["one-bit"].values() for value in of_round)
    # A round later without the site: much of its update, where likeness alone gives nothing of it.
    assert all(fmean(plain["next-round"][at]) > fmean(plain["in-neither"][at]) + 0.5 for at in (2, 10, 40))
    # Noise of deviation sqrt(2) in each of 32 entries, on an update of norm 0.4: by chance a cosine of about 0.18.
    assert abs(fmean(value for of_round in noised["one-bit"].values() for value in of_round)) < 0.3
    # Written by this very code: the first seed's figures are these.
    for name, found in (("none", plain), ("site-dp", noised)):
        written = FOUND["heart-disease"][name]
        for way in WAYS:
            for at, cosines in found[way].items():
                assert fmean(cosines) == pytest.approx(written[way][str(at)]["by-seed"][0], abs=1e-3)


@pytest.mark.usefixtures("heart")
def test_lists_that_do_not_differ_give_nothing_away():
    chosen = study_of("heart-disease")
    with consortium(chosen, None) as found:
        updates, sites = found.updates(found.first, 1), set(found.participants)
        first, second = (found.total(updates, sites, answer) for answer in ("one", "another"))
        without = found.total(updates, sites - {"hungary"}, "without")
    step = 1 / Ring.of_updates(len(sites), LARGEST_ENTRY).scale
    # What is left of two sums over one list is rounding; of two lists, the update.
    assert np.abs(first - second).max() <= len(sites) * step
    assert cosine(first - without, updates["hungary"]) > 0.9999


@pytest.mark.usefixtures("heart")
def test_noise_that_is_not_drawn_anew_for_each_sum_hides_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sum_differences, "generator", lambda seed, **_: np.random.default_rng(seed))
    found = measured(study_of("heart-disease"), SITE_DP)
    assert all(value > 0.999 for of_round in found["one-bit"].values() for value in of_round)


def test_the_written_figures_are_of_five_seeds_or_more_and_of_both_studies():
    assert len(FOUND["seeds"]) >= 5
    assert {name: FOUND[name]["sites"] for name in sum_differences.STUDIES} == {"heart-disease": 4, "taiwan-credit": 10}
    for name in sum_differences.STUDIES:
        for mechanism in ("none", "site-dp"):
            for way in WAYS:
                figures = FOUND[name][mechanism][way]
                assert sorted(map(int, figures)) == [2, 10, 40]
                for figure in figures.values():
                    assert figure["mean"] == pytest.approx(fmean(figure["by-seed"]), abs=1e-5)
                    assert figure["lowest"] <= figure["mean"] <= figure["highest"]
                    assert len(figure["by-seed"]) == len(FOUND["seeds"])


def test_what_the_page_says_of_the_figures_is_what_was_measured():
    ways = [(name, at) for name in sum_differences.STUDIES for at in (2, 10, 40)]
    assert "cosine 1.00" in PAGE
    assert min(FOUND[name]["none"]["one-bit"][str(at)]["lowest"] for name, at in ways) > 0.9999

    def told(name: str, way: str) -> str:
        return " and ".join(f"{mean(name, 'none', way, at):.2f}".replace("-", "−") for at in (10, 40))

    hospitals = re.search(
        r"hospitals (\S+) at round 10 and (\S+) at round 40, where likeness alone gives (\S+) and (\S+)\. ", PAGE
    )
    banks = re.search(r"it is less: (\S+) and (\S+),\s+where likeness gives (\S+) and (\S+)\.", PAGE)
    for name, said in (("heart-disease", hospitals), ("taiwan-credit", banks)):
        assert said is not None
        assert f"{said[1]} and {said[2]}" == told(name, "next-round")
        assert f"{said[3]} and {said[4]}" == told(name, "in-neither")
    most = max(mean(name, "site-dp", "one-bit", at) for name, at in ways)
    more = max(mean(name, "site-dp", "next-round", at) - mean(name, "site-dp", "in-neither", at) for name, at in ways)
    assert f"a cosine of at most {most:.2f} on average" in PAGE
    assert f"at most {more:.2f} more" in PAGE


def test_the_costs_on_the_page_are_those_of_the_benchmark():
    found = RESULTS["secure-sums"]
    small, large = (found["sizes"][entries] for entries in ("4000", "100000"))
    assert (
        f"{small['cpu-seconds']:.2f} CPU seconds for 4,000 parameters and {large['cpu-seconds']:.2f} for 100,000"
        in PAGE
    )
    assert f"{large['vector-bytes-a-parameter']:.1f} bytes a parameter" in PAGE
    assert f"{large['share-bytes-a-pair']:.0f} bytes for each pair of sites and round" in PAGE
    assert f"keys {found['key-bytes-a-pair']:.0f} bytes for each pair and run" in PAGE


def test_the_numbers_of_sites_on_the_page_are_those_of_the_rules():
    rows = re.search(r"<!-- thresholds -->\n(.*?)<!-- end -->", PAGE, flags=re.DOTALL)
    assert rows is not None
    numbers = [[int(cell) for cell in line.strip("| ").split(" | ")] for line in rows[1].splitlines()[2:]]
    assert len(numbers) >= 10
    for pinned, least, missing, third, honest in numbers:
        assert least == threshold(pinned)
        assert (missing, third, honest) == (pinned - least, pinned // 3, least - pinned // 3)
        # Two lists have an honest site in common, and more than one honest site is in each.
        assert 2 * least - pinned > third
        assert honest >= 2


def test_the_numbers_of_sites_that_share_figures_in_sums_only_are_those_of_the_rules():
    told = re.search(r"three of up to (\w+) pinned, four of (\w+) to (\w+), five of (\w+) to (\w+)", PAGE)
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    assert told is not None
    ends = [words.index(word) for word in told.groups()]
    assert [least_of_figures(pinned) for pinned in (3, *ends)] == [3, 3, 4, 4, 5, 5]
    # Of so many such sites two are honest, where a third of the pinned sites sign that they are such sites.
    assert all(least_of_figures(pinned) - pinned // 3 >= 2 for pinned in range(3, 200))
