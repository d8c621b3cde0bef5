"""A site's own results, stored at its gate.

They are its figures of the runs that it took part in. Its people may show them without a request to the coordinator.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from flwr.app import Message
from pydantic import BeforeValidator, ConfigDict, TypeAdapter

from flfed.callbacks import now_utc
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.errors import FlfedError
from flfed.files import read_private, write_whole
from flfed.paths import RUN, SiteFolder, make_for_owner
from flfed.registry import kebab
from flfed.study.tables import OWN_FAMILIES, OwnFamily
from flfed.updates.messages.compare import COMPARE, TRAINED, TRAINED_UNKNOWN, CompareReply, Figure
from flfed.updates.messages.fields import MalformedMessage
from flfed.words import render

LOG = logging.getLogger("flfed.site")
FORMAT = 1


def _with_nan(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure of a file, where null stands for NaN."""
    defined_fields = {key: value for key, value in figure.items() if value is not None}
    return {**dict.fromkeys(("value", "low", "high", "extra"), math.nan), **defined_fields}


def _of_two(classes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the test rows without and with the outcome.

    Raises ValueError where a count is missing.
    """
    if classes is None:
        return None
    if not {"0", "1"} <= classes.keys():
        raise ValueError("rows of a class are missing")
    return {label: classes[label] for label in ("0", "1")}


def _family(name: object) -> object:
    """Return a family's name, or None for an unknown one."""
    return name if name in OWN_FAMILIES else None


def _training(word: object) -> str:
    """Return whether a model was trained enough.

    Any other word counts as unknown.
    """
    return str(word) if word in TRAINED else TRAINED_UNKNOWN


Shown = Annotated[Figure, BeforeValidator(_with_nan)]
Family = Annotated[OwnFamily | None, BeforeValidator(_family)]
Trained = Annotated[str, BeforeValidator(_training)]
Classes = Annotated[Mapping[str, int] | None, BeforeValidator(_of_two)]


@dataclass(frozen=True)
class Result:
    """Figures of one run on a site's holdout.

    They are the figures that left the site, or that stayed there because it shares sums only; no model is in them.

    Attributes
    ----------
    study, study_sha256, dataset, run : str
    at : str
        When the figures left; UTC, ISO 8601.
    primary : str
        The study's primary metric.
    repeat : int
    rows, holdout_rows : int
        Training rows, and rows that no model was trained on.
    arms, differences : tuple of Figure
        With 95 % intervals; NaN where there is no figure.
    note : str
        Figures that were left out, with the reason.
    own_family : str or None
        Of the site's own model; None where it is of the shared model's kind, or unknown.
    sites : int or None
        Sites that share figures, for which a verdict's interval is widened; None in files of earlier runs.
    trained : {"enough", "not-enough", "not-known"}
        Whether the shared model was trained enough, by the request.
    worthwhile : float or None
        Least gain in the primary metric that makes joining worthwhile, where the study names one.
    classes : mapping of "0" and "1" to int, or None
        Test rows without and with the outcome, where their counts left.
    """

    __pydantic_config__ = ConfigDict(alias_generator=kebab)

    study: str
    study_sha256: str
    dataset: str
    run: str
    primary: str
    at: str
    repeat: int
    rows: int
    holdout_rows: int
    arms: tuple[Shown, ...]
    differences: tuple[Shown, ...]
    note: str
    own_family: Family = None
    sites: int | None = None
    trained: Trained = TRAINED_UNKNOWN
    worthwhile: float | None = None
    classes: Classes = None
    format: int = FORMAT


_FILE = TypeAdapter(Result)


def keep_result(
    folder: SiteFolder,
    request: Message,
    reply: Message,
    left: Message,
    facts: Mapping[str, Any],
    messages: StudyMessages,
) -> None:
    """Store the figures of a comparison that was answered.

    The rest of the reply, and other kinds of messages, are not stored.

    Parameters
    ----------
    folder : SiteFolder
    request : Message
    reply : Message
        As the site made it.
    left : Message
        The part that left, with a line in the ledger. Its differences are stored as they crossed, rounded; where none
        left, the site's own exact ones are stored.
    facts : mapping
        The ledger's facts about the study and the run.
    messages : StudyMessages
        Of the study.

    Notes
    -----
    A full disk does not delay the reply: the coordinator's record has the figures as well.
    """
    run = str(facts["run"])
    if reply.metadata.message_type != COMPARE or not RUN.fullmatch(run):
        return
    try:
        result = _result(request, reply, left, facts, messages)
        text = _FILE.dump_json(result, by_alias=True, exclude_none=True, indent=1)
        # The folder belongs to the gate's user, whichever user runs this.
        make_for_owner(folder.results)
        write_whole(folder.results / f"{run}.json", text)
    except (MalformedMessage, FlfedError, OSError, ValueError) as error:
        LOG.error(render("gate.log.result", run=run, why=error))


def _result(
    request: Message, reply: Message, left: Message, facts: Mapping[str, Any], messages: StudyMessages
) -> Result:
    """Return the stored result of a comparison.

    All of it is from the ledger's facts and the reply.
    """
    comparison = CompareReply.from_record(reply.content)
    crossed = CompareReply.from_record(left.content)
    if any(math.isfinite(one.value) for one in crossed.differences):
        comparison = crossed
    config: Any = request.content["config"]
    classes = None
    if comparison.histogram is not None:
        classes = {str(label): int(rows.sum()) for label, rows in enumerate(comparison.histogram)}
    return Result(
        **{key: facts[key] for key in ("study", "study_sha256", "dataset", "run", "repeat")},
        primary=messages.primary,
        at=now_utc().isoformat(timespec="seconds"),
        rows=comparison.num_examples,
        holdout_rows=comparison.holdout_rows,
        arms=comparison.arms,
        differences=comparison.differences,
        note=comparison.note,
        own_family=comparison.own_family,
        sites=config["sites"],
        trained=config["trained"],
        worthwhile=messages.study.compare.minimum_gain,
        classes=classes,
    )


def results_of(folder: SiteFolder) -> tuple[list[Result], list[str]]:
    """Return a site's stored results and its unreadable files.

    The latest result comes first. Only files are read.

    Parameters
    ----------
    folder : SiteFolder
    """
    results = []
    problems = []
    for path in folder.results.glob("*.json"):
        try:
            result = _FILE.validate_json(read_private(path))
            datetime.fromisoformat(result.at)  # ValueError where it is malformed
            results.append(result)
        except FlfedError as error:
            problems.append(str(error))
        except (ValueError, AttributeError):
            problems.append(render("gate.files.changed", file=path))
    return sorted(results, key=lambda result: (result.at, result.run), reverse=True), sorted(problems)
