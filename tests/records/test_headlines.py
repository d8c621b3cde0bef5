"""Which figures of an audit are told first, how they read, and what is said of what nobody promised."""

import pytest

from flfed.records.reports.audit_headlines import (
    FIRST,
    VERDICTS,
    AuditFigure,
    audit_in_words,
    gave_away,
    headlines,
    not_promised,
    ordered,
    reached,
    standing,
    unpromised_in_words,
)

SITES = ("a", "b", "c", "d")


def line(attack, metric, value, *, site="a", low=None, high=None, verdict="no promise", promise=None):
    return AuditFigure(attack, metric, value, verdict, site, low, high, promise, says=".", run="r")


@pytest.fixture
def audit():
    """What four sites show of a run under record-dp, where an attack of a package reads every row."""
    found = []
    for place, site in enumerate(SITES):
        within = {"site": site, "verdict": "within the promise"}
        found += [
            line("another-attack", "share-given-away", 1.0, low=0.96, high=1.0, site=site),
            line("membership-inference", "auc-of-lira", 0.5 + place / 20, low=0.4, high=0.7, promise=0.95, **within),
            line("membership-inference", "auc-of-loss", 0.9, low=0.8, high=0.95, promise=0.95, **within),
            *(line("gradient-inversion", f"share-close{k}", 0.1, low=0.05, high=0.2, site=site) for k in range(4)),
            line("gradient-inversion", "share-recovered", 0.0, low=0.0, high=0.07, promise=0.0, **within),
        ]
    return found


def test_one_figure_of_each_attack_and_site_is_told_first_and_the_worst_site_before_others(audit):
    first = headlines(audit)
    assert (len(audit), len(first)) == (32, 12)
    assert [one.attack for one in first[::4]] == [
        "another-attack", "gradient-inversion", "membership-inference",
    ]  # fmt: skip
    assert [one.value for one in first[8:]] == pytest.approx([0.65, 0.6, 0.55, 0.5])
    assert sorted(FIRST) == sorted(VERDICTS)


@pytest.mark.parametrize("verdict", ["beyond the promise", "not known"])
def test_no_figure_that_needs_a_look_is_left_out(audit, verdict):
    worse = line("gradient-inversion", "share-close0", 0.4, site="z", low=0.3, promise=0.1, verdict=verdict)
    first = headlines([*audit, worse])
    assert (len(first), first[0]) == (13, worse)
    assert ordered([*audit, worse])[0] == worse and len(ordered(audit)) == 32


def test_a_bound_reads_as_one_and_an_interval_without_width_once():
    assert reached(line("canaries", "least-epsilon", 0.64925, low=0.64925)) == "at least 0.649"
    assert reached(line("x", "y", 1.0, low=0.9615, high=1.0)) == "1.000 (0.962 to 1.000)"
    alike = [line("x", "y", 1.0, low=0.96, high=1.0, site=site) for site in SITES]
    assert audit_in_words(alike) == ["x: y 1.000 at 4 sites; nothing is promised: no promise at 4."]


def test_what_nobody_promised_and_an_attack_reached_is_always_told(audit):
    assert unpromised_in_words(11, audit) == [
        "another-attack: share given away 1.000, at 4 of 4 sites: no promise covers it."
    ]
    quiet = [one for one in audit if one.attack != "another-attack"]
    assert not_promised(quiet) == []
    assert unpromised_in_words(11, quiet)[0].startswith("No promise covers 11 releases or choices of the run;")
    assert "no attack was tried on them" in unpromised_in_words(11, [])[0]


def test_whether_an_attack_got_somewhere_goes_by_the_intervals_lower_end():
    assert gave_away(line("x", "share-given-away", 0.02, low=0.004, high=0.1))
    assert not gave_away(line("x", "share-given-away", 0.0, low=0.0, high=0.07))
    assert gave_away(line("x", "auc-of-loss", 0.6, low=0.51, high=0.7))
    assert not gave_away(line("x", "auc-of-loss", 0.6, low=0.49, high=0.7))
    assert not gave_away(line("x", "share-close", 0.9, low=0.8, verdict="within the promise", promise=1.0))


def test_a_promise_to_whole_sites_is_not_said_to_be_measured_by_an_attack_on_rows():
    privacy = {"mechanism": "site-dp", "unit": "site", "epsilon": 8.0, "sites": {}, "repeats": 1}
    code, said = standing(privacy, [])
    assert (code, said.count("which no attack here measures")) == ("promised, not measured", 1)
    code, said = standing(privacy | {"unit": "row"}, [], attackable=False)
    assert (code, said) == ("promised, not measured", "Promised, but not measured: the run has no model to attack.")
