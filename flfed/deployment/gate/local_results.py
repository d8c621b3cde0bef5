"""A site's own results, kept at its gate.

They are its figures of the runs that it took part in, which its people may show without asking anybody.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from flwr.app import Message

from flfed.callbacks import now_utc
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.errors import FlfedError
from flfed.files import read_private, write_whole
from flfed.paths import RUN, SiteFolder, give
from flfed.study.tables import OWN_FAMILIES, OwnFamily
from flfed.updates.messages.compare import COMPARE, NOT_KNOWN, TRAINED, CompareReply, Figure
from flfed.updates.messages.fields import MalformedMessage

LOG = logging.getLogger("flfed.site")
FORMAT = 1
FACTS = ("study", "study-sha256", "dataset", "run", "at", "primary")
"""What a file says besides its numbers, all text."""


@dataclass(frozen=True)
class Result:
    """Figures of one run on a site's holdout.

    They are the figures that left the site, or stayed there where it shares them in sums only; no model is in them.

    Attributes
    ----------
    study, study_sha256, dataset, run : str
    at : str
        When the figures left; UTC, ISO 8601.
    primary : str
        The metric that the study calls its main one.
    repeat : int
    rows, holdout_rows : int
        Training rows, and rows that nobody trained on.
    arms, differences : tuple of Figure
        With 95 % intervals; NaN where there is no figure.
    note : str
        What was left out and why.
    own_family : str or None
        Of the site's own model; None where it is of the shared one's kind, or is not told.
    sites : int or None
        How many sites share figures, for which a verdict's interval is widened; None in files of earlier runs.
    trained : {"enough", "not-enough", "not-known"}
        Whether the shared model was trained enough, as the request said.
    worthwhile : float or None
        Gain in the primary metric from which on joining is worth it, where the study says one.
    classes : mapping of "0" and "1" to int, or None
        Test rows without and with the outcome, where their counts left.
    """

    study: str
    study_sha256: str
    dataset: str
    run: str
    at: str
    primary: str
    repeat: int
    rows: int
    holdout_rows: int
    arms: tuple[Figure, ...]
    differences: tuple[Figure, ...]
    note: str
    own_family: OwnFamily | None = None
    sites: int | None = None
    trained: str = NOT_KNOWN
    worthwhile: float | None = None
    classes: Mapping[str, int] | None = None


def keep_result(
    folder: SiteFolder,
    request: Message,
    reply: Message,
    left: Message,
    facts: Mapping[str, Any],
    messages: StudyMessages,
) -> None:
    """Keep the figures of a comparison that is answered.

    Nothing else of the reply is kept, and nothing of other kinds of messages.

    Parameters
    ----------
    folder : SiteFolder
    request : Message
    reply : Message
        As the site made it.
    left : Message
        What left of it, which has its line in the ledger. Differences in it are kept as they crossed, rounded; where
        none left, the site's own exact ones are.
    facts : mapping
        What the ledger says of the study and of the run.
    messages : StudyMessages
        Of the study.

    Notes
    -----
    A disk that cannot take the file holds no reply up: the figures are in the coordinator's record as well.
    """
    run = str(facts["run"])
    if reply.metadata.message_type != COMPARE or reply.has_error() or not RUN.fullmatch(run):
        return
    try:
        text = json.dumps(_as_object(request, reply, left, facts, messages), indent=1)
        # The folder belongs to the gate's user, whoever runs this.
        if not folder.results.is_dir():
            folder.results.mkdir(mode=0o700)
            give(folder.results, folder.gate)
        write_whole(folder.results / f"{run}.json", text.encode())
    except (MalformedMessage, FlfedError, OSError) as error:
        LOG.error("the result of run %s is not kept: %s", run, error)


def _as_object(
    request: Message, reply: Message, left: Message, facts: Mapping[str, Any], messages: StudyMessages
) -> dict[str, Any]:
    """Return what a file says of a comparison: all of it is from the ledger's facts and the reply."""
    compare = messages.study.compare
    found = CompareReply.from_record(reply.content)
    crossed = CompareReply.from_record(left.content)
    if any(math.isfinite(one.value) for one in crossed.differences):
        found = crossed
    values: dict[str, Any] = {"format": FORMAT}
    values |= {key: str(facts[key.replace("-", "_")]) for key in FACTS[:-2]}
    values |= {"primary": messages.primary, "at": now_utc().isoformat(timespec="seconds")}
    values |= {"repeat": facts["repeat"], "rows": found.num_examples, "holdout-rows": found.holdout_rows}
    values |= {"arms": list(map(_plain, found.arms)), "differences": list(map(_plain, found.differences))}
    values["note"] = found.note
    if found.own_family is not None:
        values["own-family"] = found.own_family
    asked = request.content["config"]
    values |= {"sites": asked["sites"], "trained": asked["trained"], "worthwhile": compare.worthwhile}
    if found.histogram is not None:
        values["classes"] = {str(label): int(rows.sum()) for label, rows in enumerate(found.histogram)}
    return values


def results_of(folder: SiteFolder) -> tuple[list[Result], list[str]]:
    """Return a site's kept results and its unreadable files.

    The latest result comes first. Only files are read.

    Parameters
    ----------
    folder : SiteFolder
    """
    found = []
    problems = []
    for path in folder.results.glob("*.json"):
        try:
            found.append(_read(json.loads(read_private(path))))
        except FlfedError as error:
            problems.append(str(error))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            problems.append(f"{path}: is not as it was written; remove it")
    return sorted(found, key=lambda result: (result.at, result.run), reverse=True), sorted(problems)


def _read(found: dict[str, Any]) -> Result:
    # Every value is converted, so that a file with other types in it is a problem and not a page that fails.
    values: dict[str, Any] = {key.replace("-", "_"): str(found[key]) for key in (*FACTS, "note")}
    datetime.fromisoformat(values["at"])  # ValueError where it is none
    values |= {key.replace("-", "_"): int(found[key]) for key in ("repeat", "rows", "holdout-rows")}
    values |= {key: tuple(map(_figure, found[key])) for key in ("arms", "differences")}
    if found.get("own-family") in OWN_FAMILIES:
        values["own_family"] = found["own-family"]
    if found.get("trained") in TRAINED:
        values["trained"] = found["trained"]
    if found.get("sites") is not None:
        values["sites"] = int(found["sites"])
    if found.get("worthwhile") is not None:
        values["worthwhile"] = float(found["worthwhile"])
    if found.get("classes") is not None:
        values["classes"] = {label: int(found["classes"][label]) for label in ("0", "1")}
    return Result(**values)


def _plain(figure: Figure) -> dict[str, Any]:
    """Return a figure without NaN, for JSON."""
    found = asdict(figure)
    for key, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            found[key] = None
    return found


def _figure(found: dict[str, Any]) -> Figure:
    values: dict[str, Any] = {key: str(found[key]) for key in ("metric", "arm", "method")}
    for key in ("value", "low", "high", "extra"):
        values[key] = math.nan if found[key] is None else float(found[key])
    return Figure(**values)
