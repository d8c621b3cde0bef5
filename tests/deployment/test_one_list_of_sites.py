"""Sums of rows that depend on no model have one list of sites for a dataset, whatever study asks for them."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from flfed.errors import FlfedError
from flfed.federation.client import secure_sums, summed_replies
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.masking.question import rounding_sha256, rows_question
from flfed.updates.messages.summarise import BINS, STATISTIC, SUMMARISE
from tests.boosting import trees_study
from tests.deployment.summing import Consortium, SummingGrid, conduct, summing

ASKED = {"secure-aggregation": "on", "strategy.rounds": 2}
OTHERS: dict[str, dict[str, Any]] = {
    "learning rate": {"plan.lr": 0.07}, "features": {"dataset.features": ["age"]}, "rounds": {"strategy.rounds": 3},
    "model": {"model.name": "mlp", "model.hidden": [3]},
}  # fmt: skip
FIRST = "site-01"


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns sites that sum."""
    return partial(summing, small_sites, Study.parse(small_study).replace(ASKED))


def approved(found: Consortium, study: Study) -> Consortium:
    """Return the same sites with another study, which they approve too."""
    other = copy.copy(found)
    other.study = study
    for name in other.sites:
        other.approve(name)
    return other


def asked(found: Consortium, sites: Sequence[str] = (), **given: Any) -> SummingGrid:
    """Conduct a run as far as it gets."""
    grid = SummingGrid(found, sites=sites, **given)
    with suppress(FlfedError):
        conduct(found, grid)
    return grid


def opened(found: Consortium, question: str) -> set[str]:
    """Return the lists that any site opened for a question."""
    lines = [line for site in found.sites for line in found.lines(site) if line.kind == "unmask"]
    return {str(line.facts["listed"]) for line in lines if line.facts["question-sha256"] == question}


def refusals(grid: SummingGrid, kind: str) -> set[str]:
    replies = [reply for _, message, reply in grid.sent if message.metadata.message_type == kind]
    return {reply.error.reason for reply in replies if reply.has_error()}


def away(site: str, kind: str) -> bool:
    """Tell that the first site is away for good."""
    return site == FIRST and kind == SUMMARISE


@pytest.mark.studies
@pytest.mark.parametrize("name", OTHERS)
def test_a_second_study_gets_no_sum_of_rows_without_a_site_of_the_first(consortium, name):
    found = consortium(4)
    asked(found)
    everybody = ",".join(sorted(found.sites))
    assert opened(found, rows_question("small")) == {everybody}
    second = approved(found, found.study.replace(OTHERS[name]))
    asked(second, absent=away)
    assert opened(found, rows_question("small")) == {everybody}


def test_lists_of_studies_give_away_the_site_that_is_in_one_of_them(consortium, monkeypatch):
    for module in (secure_sums, summed_replies):
        monkeypatch.setattr(module, "question_sha256", rounding_sha256)
    found = consortium(4)
    asked(found)
    second = approved(found, found.study.replace(OTHERS["learning rate"]))
    asked(second, absent=away)
    lists = [opened(found, rounding_sha256(study, SUMMARISE, None)) for study in (found.study, second.study)]
    assert [len(next(iter(of)).split(",")) for of in lists] == [4, 3]


@pytest.mark.studies
def test_sums_of_another_kind_have_the_same_list(consortium: Callable[..., Consortium], small_study: str):
    found = consortium(4)
    asked(found)
    everybody = ",".join(sorted(found.sites))
    trees = approved(found, Study.parse(trees_study(small_study, **ASKED)))
    grid = asked(trees, absent=lambda site, kind: site == FIRST and kind == BINS)
    assert BINS in grid.kinds() and STATISTIC not in grid.kinds()
    assert opened(found, rows_question("small")) == {everybody}
    # Once it is back the trees grow.
    assert conduct(trees, SummingGrid(trees)).status == "completed"
    assert opened(found, rows_question("small")) == {everybody}


@pytest.mark.studies
@pytest.mark.parametrize("consents", [False, True])
def test_a_site_joins_sums_of_rows_by_its_own_consent(consortium: Callable[..., Consortium], consents: bool):
    found = consortium(5)
    four = sorted(found.sites)[:4]
    for site in four:
        found.approve(site, pins={other: found.pins[other] for other in four}, co_sites=four)
    asked(found, four)
    for site in found.sites:
        found.approve(site, lifted=["site-05"] if consents and site == "site-05" else [])
    assert conduct(found, SummingGrid(found)).status == "completed"
    lists = opened(found, rows_question("small"))
    assert lists == {",".join(four), ",".join(sorted(found.sites))} if consents else lists == {",".join(four)}
