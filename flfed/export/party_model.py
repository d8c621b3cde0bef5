"""Predictions of a model whose columns stand at several parties, each of which has a folder with its own part.

```
 column party   flfed predict PART TABLE --partial FILE     identifier, score
 label party    flfed predict PART TABLE --with FILE        identifier, probability (or the target in its unit)
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.export.model_folder import SharedModel
from flfed.export.predict import mapped_rows, read_site, read_table
from flfed.rows.data.findings.oddities import written_as
from flfed.rows.features.encode import input_names
from flfed.spreadsheet import csv_text
from flfed.vertical.steps import bounded_inputs, predictions
from flfed.words import render, usage_error

SCORES = ("identifier", "score", "party", "run")
"""Columns of a file of partial scores."""


@dataclass(frozen=True, eq=False)
class PartyScores:
    """Scores of one party's part, a row each.

    Attributes
    ----------
    identifiers : tuple of str
    scores : float64 array [rows]
    party, run : str
        Whose part of which run's model it is.
    """

    identifiers: tuple[str, ...]
    scores: np.ndarray
    party: str
    run: str

    def as_csv(self) -> str:
        """Return the rows as CSV, identifiers as they are: another program reads them."""
        columns = (list(self.identifiers), self.scores, self.party, self.run)
        return pd.DataFrame(dict(zip(SCORES, columns, strict=True))).to_csv(index=False)

    @classmethod
    def read(cls, path: Path) -> PartyScores:
        """Read a file that `as_csv` made.

        Raises
        ------
        UsageError
            If it is none.
        """
        try:
            text = {name: str for name in SCORES if name != "score"}
            table = pd.read_csv(path, dtype=text, keep_default_na=False)[list(SCORES)]
            scores = table["score"].to_numpy(dtype=float)
        except (OSError, ValueError, KeyError):
            raise usage_error("export.party.file", file=path) from None
        named = table[["party", "run"]].drop_duplicates()
        if table["identifier"].duplicated().any() or len(named) != 1 or not np.isfinite(scores).all():
            raise usage_error("export.party.file", file=path)
        return cls(tuple(table["identifier"]), scores, *named.iloc[0])


@dataclass(frozen=True, eq=False)
class JoinedPredictions:
    """Predictions for the people whom all parties have.

    Attributes
    ----------
    header : str
    identifiers : tuple of str
    values : float64 array [rows]
    only_here, only_there : int
        People of the label party's table alone, and of another party's file alone; they get no prediction.
    forms : str
        How identifiers are written on both sides, where fewer than half are on both; else "".
    """

    header: str
    identifiers: tuple[str, ...]
    values: np.ndarray
    only_here: int
    only_there: int
    forms: str = ""

    def as_csv(self) -> str:
        """Return the rows as CSV."""
        return csv_text((SCORES[0], self.header), zip(self.identifiers, self.values.tolist(), strict=True))


def party_scores(model: SharedModel, table: Path | None, site: str = "") -> PartyScores:
    """Return the scores of a party's part for a table, or for the rows of a site.

    Raises
    ------
    UsageError
        If the model is no party's part, a row has no identifier, or two rows are of one person.
    TableError
        For the first rule the table breaks: column, rule and count.
    """
    if not model.study.is_vertical:
        raise usage_error("export.party.whole")
    raw, mapping, missing = read_table(model, table) if table is not None else read_site(model, site)
    rows, _ = mapped_rows(model, raw, mapping, missing)
    identifiers = rows[model.schema.group]
    without = int(identifiers.isna().sum())
    again = int(identifiers.duplicated().sum()) - max(without - 1, 0)
    if without or again:
        raise usage_error("export.party.identifiers", column=model.schema.group, without=without, again=again)
    x = bounded_inputs(rows, model.layout, model.encoder)
    weight = model.arrays["weight"].reshape(len(input_names(model.layout)))
    scores = x @ weight.astype(float) + float(model.arrays["bias"].reshape(1)[0])
    return PartyScores(tuple(map(str, identifiers)), scores, str(model.figures.get("party", "")), model.run)


def joined_predictions(model: SharedModel, own: PartyScores, others: Sequence[PartyScores]) -> JoinedPredictions:
    """Return the predictions of the label party, from its own scores and those of the other parties.

    Raises
    ------
    UsageError
        If the part is of a party without the outcome, or the scores are not one file of each other party of its run.
    """
    # The party with the outcome alone has an intercept.
    if not model.arrays["bias"].any():
        raise usage_error("export.party.label")
    wanted = sorted(set(model.study.dataset.sites or ()) - {own.party})
    had = sorted(one.party for one in others)
    if had != wanted or any(one.run != model.run for one in others):
        raise usage_error("export.party.others", wanted=", ".join(wanted), had=", ".join(had), run=model.run)
    tables = [pd.Series(one.scores, index=list(one.identifiers)) for one in (own, *others)]
    everyone = pd.concat(tables, axis=1)
    common = everyone.loc[list(own.identifiers)].dropna()
    total = common.sum(axis=1).to_numpy()
    few = 2 * len(common) < min(map(len, tables))
    facts = {"here": written_as(own.identifiers), "there": written_as(others[0].identifiers)} if few else {}
    task = model.schema.task
    header = "prediction" if task == "regression" else "probability"
    return JoinedPredictions(
        header=header,
        identifiers=tuple(common.index),
        values=predictions(total, task, model.layout, model.encoder),
        only_here=len(own.identifiers) - len(common),
        only_there=len(everyone) - len(own.identifiers),
        forms=render("export.party.forms", **facts) if few else "",
    )
