"""Importances of columns in a run, by permutation and by gain: over repeats, in tables and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flfed.errors import counted
from flfed.records.section import Section, Table
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import ABSENT, interval, metric_name, number

LOG_LOSS = "log_loss"
DECIMALS = 4
"""Of an increase of the loss: one that matters may be a few thousandths."""
FEW_SITES = 8
"""Sites up to which each one's reasons stand by themselves."""
TITLE = "Which columns the shared model needs"
SAYS = (
    "Each site shuffled the values of one column at a time among its own test rows, {times}, and all else stayed. "
    "What the {loss} (lower is better{now}) grew by says how much the shared model leans on that column: at 0 it does "
    "without it, and a little below 0 is chance. Over sites it is the mean, weighted by their test rows."
)
DOES_NOT_SAY = (
    "Columns that go together share what they tell: each may look small though the model needs one of them. It says "
    "nothing about what causes the outcome, nor how good a model would be that never had the column."
)
GAIN_TITLE = "What the trees split by"
GAIN_SAYS = (
    "The gain of a split is by how much it lowers the loss on the rows that were trained on. Shown is each column's "
    "share of the gain of all splits, of {trees} (XGBoost's total_gain). A column of many values has more splits to "
    "choose from and gains some by chance; of columns that go together one may get what another would have. It says "
    "nothing about what causes the outcome{beside}."
)
NO_SPLIT = (
    "No tree of the model has a split, so that it predicts the same for every row: validation rows did best without "
    "trees (select), or no split leaves both sides enough (min-rows, least-hessian)."
)
LARGEST_LOG_ODDS = 20.0
"""Up to which odds ratios are told: e^20 is 485 million, and of a model that diverged no ratio means anything."""
COEFFICIENTS_READ = (
    "For one step of an input, all else equal: an odds ratio of 2 doubles the odds of the outcome. A step is what "
    "inputs are scaled by in training: their spread over all sites, unless the study says otherwise. Inputs that "
    "go together share what they tell, and none of this says what causes the outcome. Sites keep their own models, "
    "so there is no spread over sites."
)
BESIDE = ", nor about test rows: [compare] importance in a study asks how much predictions of those need each column"


def over_repeats(payloads: Sequence[Mapping[str, Any] | None]) -> Report | None:
    """Return the importances over the repeats of a run, None where there are none.

    Parameters
    ----------
    payloads : sequence of dict or None
        The objects "importances" of the repeats.

    Returns
    -------
    dict
        `loss`, `permutations`, `rows` and `asked` as recorded. `columns`: by column `increase`, the mean over repeats;
        `low` and `high`, the least and the greatest of the repeats, None of one; `sites`, over how many; `least` and
        `greatest`, the site where it is so and its increase, None where no site's own is known. Of repeats in which
        fewer sites gave a column nothing is taken. `sites`: by site a list of `column`, `increase` and `why` there
        is none.
    """
    known = [payload for payload in payloads if payload is not None]
    if not known:
        return None
    sites = {
        site: [_of_site(name, known, site) for name in _names(payload["sites"].get(site, ()) for payload in known)]
        for site in dict.fromkeys(site for payload in known for site in payload["sites"])
    }
    columns = [_of_column(name, known, sites) for name in _names(payload["columns"] for payload in known)]
    told = {key: known[0][key] for key in ("loss", "permutations", "rows", "asked")}
    return told | {"columns": columns, "sites": sites}


def _names(lists: Any) -> list[str]:
    return list(dict.fromkeys(of["column"] for one in lists for of in one))


def _of_site(name: str, known: Sequence[Mapping[str, Any]], site: str) -> Report:
    found = [of for payload in known for of in payload["sites"].get(site, ()) if of["column"] == name]
    values = [of["increase"] for of in found if of["increase"] is not None]
    return {"column": name, "increase": _mean(values), "why": "" if values else found[0]["why"]}


def _of_column(name: str, known: Sequence[Mapping[str, Any]], sites: Mapping[str, Sequence[Report]]) -> Report:
    found = [of for payload in known for of in payload["columns"] if of["column"] == name]
    most = max(of["sites"] for of in found)
    # An institution gives it in one repeat alone: a mean over other sites would be another figure.
    values = [of["increase"] for of in found if of["sites"] == most and of["increase"] is not None]
    several = len(values) > 1
    own = [
        {"site": site, "increase": of["increase"]}
        for site, columns in sites.items()
        for of in columns
        if of["column"] == name and of["increase"] is not None
    ]
    ranked = sorted(own, key=lambda of: of["increase"])
    return {
        "column": name,
        "increase": _mean(values),
        "low": min(values) if several else None,
        "high": max(values) if several else None,
        "sites": most,
        "least": ranked[0] if ranked else None,
        "greatest": ranked[-1] if ranked else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def needed_columns(found: Mapping[str, Any]) -> Section | None:
    """Return by how much a run's loss grows without what a column tells, None where no study asked."""
    own = found.get("importances")
    if own is None:
        return None
    said = importance_in_words(own, found["global"])
    return Section(title=TITLE, tables=(Table(lines=importance_lines(own)),), note=tuple(said))


def split_columns(found: Mapping[str, Any]) -> Section | None:
    """Return which columns the trees of a run split by, None where no tree grew."""
    gains = found.get("gains")
    if gains is None:
        return None
    said = gains_in_words(gains, permuted="importances" in found)
    return Section(title=GAIN_TITLE, tables=(Table(lines=gain_lines(gains)),), note=(said,))


def coefficients(payloads: Sequence[Mapping[str, Any]]) -> Section:
    """Return what a linear model adds to the log-odds for each input.

    Parameters
    ----------
    payloads : sequence of dict
        The objects "coefficients" of the repeats, one or more.
    """
    names = payloads[0]["inputs"]
    by_input = {name: [payload["coefficients"][place] for payload in payloads] for place, name in enumerate(names)}
    ranked = sorted(by_input.items(), key=lambda item: -abs(sum(item[1])))
    lines = [_coefficient(name, values) for name, values in ranked]
    return Section(title="What the shared model goes by", tables=(Table(lines=lines),), note=(COEFFICIENTS_READ,))


def _coefficient(name: str, values: Sequence[float]) -> dict[str, str]:
    mean = sum(values) / len(values)
    line = {
        "Input": name,
        "Coefficient (log-odds)": number(mean, 3, signed=True),
        "Odds ratio": number(math.exp(mean), 2) if abs(mean) < LARGEST_LOG_ODDS else ABSENT,
    }
    return line | ({"In the repeats": interval(min(values), max(values))} if len(values) > 1 else {})


def importance_lines(found: Report) -> list[dict[str, str]]:
    """Return the lines of a table, the most important column first.

    One site's people, who see no figure over sites, have their own.
    """
    grows = f"{found['loss'].capitalize()} grows by"
    if not found["columns"]:
        own = [of for columns in found["sites"].values() for of in columns]
        return [{"Column": of["column"], grows: _increase(of["increase"])} for of in _ranked(own)]
    ranked = _ranked(found["columns"])
    several = any(of["low"] is not None for of in ranked)
    return [
        {
            "Column": of["column"],
            grows: _increase(of["increase"]),
            "Least, at": _at(of["least"]),
            "Most, at": _at(of["greatest"]),
            **({"In the repeats": interval(of["low"], of["high"], DECIMALS)} if several else {}),
            "Sites": f"{of['sites']} of {found['asked']}",
        }
        for of in ranked
    ]


def _ranked(columns: Sequence[Report]) -> list[Report]:
    return sorted(columns, key=lambda of: -of["increase"] if of["increase"] is not None else float("inf"))


def _increase(value: float | None) -> str:
    return number(value, DECIMALS)


def _at(of: Mapping[str, Any] | None) -> str:
    return ABSENT if of is None else f"{_increase(of['increase'])} ({of['site']})"


def importance_in_words(found: Report, over_all: Mapping[str, Any] | None = None) -> list[str]:
    """Return what the figures say, what they do not, and which there are none of.

    Parameters
    ----------
    found : dict
        From `over_repeats`.
    over_all : dict of metric to figure, optional
        Of the shared model over all sites: its own loss says what size matters.
    """
    times = "once" if found["permutations"] == 1 else f"{found['permutations']} times"
    loss = (over_all or {}).get(LOG_LOSS, {}).get("value") if found["loss"] == metric_name(LOG_LOSS) else None
    now = "" if loss is None else f"; over all sites it is {number(loss)}"
    return [SAYS.format(times=times, loss=found["loss"], now=now), DOES_NOT_SAY, *_without(found)]


def _without(found: Report) -> list[str]:
    """Return which columns have no figure at which site, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for site, columns in found["sites"].items():
        for of in columns:
            if of["why"]:
                reasons.setdefault((site, of["why"]), []).append(of["column"])
    silent = len({site for site, _ in reasons})
    if silent > FEW_SITES:
        return [f"At {silent} sites columns have no figure; flfed run show --json says why."]
    every = {site: len(columns) for site, columns in found["sites"].items()}
    return [
        f"No figure at {site} of {'any column' if len(names) == every[site] else ', '.join(names)} ({why})."
        for (site, why), names in reasons.items()
    ]


def gains_over_repeats(payloads: Sequence[Mapping[str, Any] | None]) -> Report | None:
    """Return the gains by column over the repeats of a run of trees, None where there are none.

    Parameters
    ----------
    payloads : sequence of dict or None
        The objects "gains" of the repeats.

    Returns
    -------
    dict
        `trees`: how many there are in each repeat. `columns`, in the study's order: `column`; `gain`, the sum over
        all splits, of a run of one repeat, else None; `share` of the gain of all columns, the mean over repeats, None
        where no tree has a split; `low` and `high`, the least and the greatest share of the repeats, None of one.
    """
    known = [payload for payload in payloads if payload is not None]
    if not known:
        return None
    columns = []
    for place, of in enumerate(known[0]["columns"]):
        shares = [share for share in (_share(payload["columns"], place) for payload in known) if share is not None]
        several = len(shares) > 1
        columns.append(
            {
                "column": of["column"],
                "gain": of["gain"] if len(known) == 1 else None,
                "share": _mean(shares),
                "low": min(shares) if several else None,
                "high": max(shares) if several else None,
            }
        )
    return {"trees": [payload["trees"] for payload in known], "columns": columns}


def _share(columns: Sequence[Mapping[str, Any]], place: int) -> float | None:
    whole = sum(of["gain"] for of in columns)
    return columns[place]["gain"] / whole if whole else None


def gain_lines(found: Report) -> list[dict[str, str]]:
    """Return the lines of a table of gains, the column with most first."""
    ranked = sorted(found["columns"], key=lambda of: -(of["share"] or 0))
    several = any(of["low"] is not None for of in ranked)
    return [
        {
            "Column": of["column"],
            "Share of the gain": _percent(of["share"]),
            **({"In the repeats": f"{_percent(of['low'])} to {_percent(of['high'])}"} if several else {}),
        }
        for of in ranked
    ]


def largest_gains(found: Report, most: int = 5) -> str:
    """Return the columns with most of the gain, in one line, or that no tree has a split."""
    lines = [line for line in gain_lines(found) if line["Share of the gain"] not in (ABSENT, _percent(0.0))]
    named = ", ".join(f"{line['Column']} {line['Share of the gain']}" for line in lines[:most])
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return f"Share of the gain of all splits, of {_trees(found)}: {named}{more}." if named else NO_SPLIT


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f} %"


def gains_in_words(found: Report, *, permuted: bool) -> str:
    """Return what gains say and what not; `permuted` where importances by permutation stand beside them."""
    return GAIN_SAYS.format(trees=_trees(found), beside="" if permuted else BESIDE)


def _trees(found: Report) -> str:
    least, most = min(found["trees"]), max(found["trees"])
    return counted(most, "tree") if least == most else f"{least:,} to {counted(most, 'tree')}"
