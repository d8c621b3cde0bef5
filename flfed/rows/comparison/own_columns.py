"""Columns that one site has beside those of the shared model.

Their fit is added to the shared model's score at that site only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from flfed.rows.data.site import Site
from flfed.rows.encoded_table import EncodedTable
from flfed.rows.features.encode import Encoded
from flfed.rows.features.summarise import layout_of
from flfed.rows.own_parts import INTERCEPT_SD, NO_SD, site_deviation
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import Asking
from flfed.rows.training.tuned_linear import LinearPredictor, tuned_beside
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder

ARM = "local-only-own-columns"
"""The arm of a site's own model of the shared columns and its own."""
LEAST_PRESENT = 0.5
"""Share of a site's training rows that must have a value of a column, or the site leaves the column out."""
DEVIATIONS = np.array([1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02])
"""Prior deviations of a weight that are tried, in log-odds (or target deviations) a deviation of the input: from
what one column hardly exceeds, to next to nothing."""


def list_requested_columns(study: Study, site: Site) -> tuple[str, ...]:
    """Return the columns of a site's own that a study asks it for: all that it declares, or none."""
    return tuple(site.own) if study.compare.site_columns else ()


def used_at(session: SiteSession) -> tuple[str, ...]:
    """Return the own columns that a site uses.

    They are those that at least half of its training rows have a value of; no test row is looked at.
    """
    requested = list_requested_columns(session.study, session.site)
    if not requested:
        return ()
    training = session.table.training
    present = {name: training[name].notna() for name in requested}
    return tuple(name for name, there in present.items() if len(there) and there.mean() >= LEAST_PRESENT)


def adjusted_scores(
    session: SiteSession, table: pd.DataFrame, arrays: Arrays, encoder: Encoder, sd: float | None = None
) -> Asking[np.ndarray]:
    """Yield requests and return the personalised arm's predictions.

    They are on the rows of `table`.

    Without own columns they are those of `SiteSession.personalised`; with them, of the shared model's score and
    the fit of the site's own columns beside it.
    """
    # The rows are encoded when they are needed: while other models are fitted they would only take memory.
    if not used_at(session):
        personalised = yield from session.personalised(arrays, encoder, sd)
        session.release_rows()
        return session.predictions(personalised(session.encode(table, session.in_use(encoder)).x), encoder)
    # Of a site that trains a model of its own beside the shared one, that is its adjusted model.
    arrays = session.own_arrays.model or session.own_arrays.at_site(arrays)
    own = yield from own_part(session, arrays, encoder, sd)
    outputs = yield from session.outputs(arrays, session.encode(table, session.in_use(encoder)).x)
    return session.predictions(outputs + own(table)[:, None], encoder)


def own_part(
    session: SiteSession, arrays: Arrays, encoder: Encoder, sd: float | None = None
) -> Asking[Callable[[pd.DataFrame], np.ndarray]]:
    """Yield one request and return the own columns' part of the score.

    It is a function of mapped rows, [rows]; only training rows are used to make it.

    Parameters
    ----------
    session : SiteSession
    arrays : dict of name to array
        The final global model.
    encoder : Encoder
        Of all sites, for the shared columns; the own ones are encoded by the site's training rows.
    sd : float, optional
        Prior deviation of the site's own intercept, as `SiteSession.personalised` takes it.
    """
    part = _with_columns(session, used_at(session))
    own_encoder = part.own_encoder()
    shared = session.training(encoder)
    rows = replace(shared, x=part.encode_training(own_encoder).x, weight=np.ones(len(shared)))
    offset = (yield from session.outputs(arrays, shared.x)).astype(float)
    deviation = INTERCEPT_SD if sd is None else site_deviation(offset, rows.y, session.task, sd)
    rng = generator(session.seed, site=session.site.name, purpose="own-columns")
    fit = own_fit(rows, offset, session.task, rng, deviation)
    return lambda table: fit(part.encode(table, own_encoder).x)[:, 0]


def local_scores(session: SiteSession, table: pd.DataFrame) -> Asking[np.ndarray]:
    """Yield requests and return predictions of the site's own model with its columns.

    The model is of the kind that the study compares with, of the shared columns and the own ones.
    """
    features = session.schema.features(session.study.dataset.features)
    wide = _with_columns(session, (*features, *used_at(session)))
    encoder = wide.own_encoder()
    rows = wide.encode_training(encoder)
    model = yield from session.tuned_model(rows, wide.layout, encoder)
    return wide.predictions(model.outputs(wide.encode(table, encoder).x), encoder)


def _with_columns(session: SiteSession, names: Sequence[str]) -> EncodedTable:
    schema = session.site.schema_of(session.schema)
    layout = layout_of(schema, names, missing_indicator=session.study.encode.missing_indicator)
    return EncodedTable(session.site, session.study, session.table, layout, session.schema, session.seed)


def own_fit(
    rows: Encoded, offset: np.ndarray, task: str, rng: np.random.Generator, sd: float = INTERCEPT_SD
) -> LinearPredictor:
    """Fit own columns beside a score, at the best ridge penalty.

    A ridge penalty is the precision of a normal prior of the weights.

    Parameters
    ----------
    rows : Encoded
        Training rows, of the own columns alone.
    offset : array [rows, 1]
        The shared model's score, whose coefficient stays 1.
    task : {"binary", "regression"}
    rng : Generator
        Draws the folds.
    sd : float, >= 0
        Prior deviation of the intercept.

    Notes
    -----
    The prior is the one whose loss over folds of these rows is least, the narrowest where no fold can be tested.
    """
    classes = 2 if task == "binary" else 0
    intercept = max(sd, NO_SD) ** -2.0
    return tuned_beside(rows, offset, task, classes, rng, lambda _: DEVIATIONS**-2.0, intercept)[0]
