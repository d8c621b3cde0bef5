"""A site's noised answers, each drawn once in a run: counts before training, of scores, and of an analysis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flfed.federation.client.protection import run_charge
from flfed.rows.session import SiteSession
from flfed.rows.statistics.noised_counts import STEP, GaussianQuery, cell_queries, training_cells
from flfed.rows.training.private_noise import NoiseSource, SystemNoise, UnitCounts
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.private_scaling import HISTOGRAMS, VALUES, NoisedCells, noised_rows
from flfed.summaries.summary import Layout
from flfed.updates.accounting import Release
from flfed.updates.arrays import Arrays
from flfed.updates.mechanism import acting_mechanism

FAR = 10.0
"""Deviations of the noise within which a noised number of rows lies: the chance of more is one in 10^23."""


def draw_once(
    session: SiteSession,
    question: str,
    exact: Mapping[str, np.ndarray],
    queries: Mapping[str, GaussianQuery],
    request: str = "",
) -> Arrays:
    """Return numbers with noise, which is drawn once in a run: the same request gets them again, another one nothing.

    Parameters
    ----------
    session : SiteSession
    question : str
        Name of the answer.
    exact, queries : mapping of name to array and to GaussianQuery
        The exact numbers, and how each is noised.
    request : str
        Hash of the coordinator's choice, such as a model; an empty text without a choice.

    Raises
    ------
    NotSpent
        If the account does not allow it, or the noise was drawn for another request.
    """

    def noised() -> Arrays:
        chance: NoiseSource = SystemNoise()
        if session.protection is not None:
            # For a cut of one table the noise follows from the seed, as do its sites; else it is the system's.
            purpose = f"{question}-{request}"
            chance = session.protection.chance(generator(session.seed, site=session.site.name, purpose=purpose))
        return {part: query.answer(exact[part], chance) for part, query in queries.items()}

    own = run_charge(session.protection)
    return noised() if own is None else own.account.answer(own.charge, question, request, noised)


def releases_of(study: Study) -> Mapping[str, Release]:
    """Return the cost of a study's noised answers beside the updates, by name."""
    return acting_mechanism(study).answer_releases(study.plan, study.rounds)


def _queries(study: Study, layout: Layout) -> tuple[GaussianQuery, GaussianQuery]:
    releases = releases_of(study)
    return cell_queries(layout, (releases[HISTOGRAMS].noise, releases[VALUES].noise))


def noised_cells(session: SiteSession) -> Arrays:
    """Return the noised counts for the encoder; raises NotSpent."""
    cells = training_cells(session, by_person=session.study.by_person)
    names = (HISTOGRAMS, VALUES)
    queries = dict(zip(names, _queries(session.study, session.layout), strict=True))
    return draw_once(session, "cells", dict(zip(names, cells, strict=True)), queries)


def noised_holdout_counts(session: SiteSession, question: str, request: str, exact: np.ndarray) -> np.ndarray:
    """Return counts of test rows with noise, all of which one person moves by at most 1; raises NotSpent."""
    query = GaussianQuery(sensitivity=1.0, noise=releases_of(session.study)[question].noise, step=STEP)
    return draw_once(session, question, {question: exact}, {question: query}, request)[question]


def cells_of(study: Study, layout: Layout, numbers: Mapping[str, np.ndarray]) -> NoisedCells:
    """Return one site's noised counts with the deviations of their noise."""
    of_numbers, of_values = _queries(study, layout)
    return NoisedCells(
        numbers=numbers[HISTOGRAMS],
        numbers_deviation=of_numbers.deviation,
        values=numbers[VALUES],
        values_deviation=of_values.deviation,
    )


def trained_units(session: SiteSession) -> UnitCounts:
    """Return how many rows, or persons, training divides by, as the noised counts for the encoder have it."""
    rows, deviation = noised_rows(session.layout, cells_of(session.study, session.layout, noised_cells(session)))
    return UnitCounts(units=max(1.0, round(rows)), most=max(1, round(rows + FAR * deviation)))
