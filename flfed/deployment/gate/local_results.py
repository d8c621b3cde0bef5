"""A site's own results, kept at its gate.

They are its figures of the runs that it took part in, which its people may show without asking anybody.
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
from flfed.paths import RUN, SiteFolder, give
from flfed.registry import kebab
from flfed.study.tables import OWN_FAMILIES, OwnFamily
from flfed.updates.messages.compare import COMPARE, TRAINED, TRAINED_UNKNOWN, CompareReply, Figure
from flfed.updates.messages.fields import MalformedMessage

LOG = logging.getLogger("flfed.site")
FORMAT = 1


def _with_nan(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure of a file, where null stands for NaN."""
    defined_fields = {key: value for key, value in figure.items() if value is not None}
    return {**dict.fromkeys(("value", "low", "high", "extra"), math.nan), **defined_fields}


def _of_two(classes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the test rows without and with the outcome; raises ValueError where one is not there."""
    if classes is None:
        return None
    if not {"0", "1"} <= classes.keys():
        raise ValueError("rows of a class are missing")
    return {label: classes[label] for label in ("0", "1")}


def _family(name: object) -> object:
    """Return a family's name, None for one that is not known."""
    return name if name in OWN_FAMILIES else None


def _training(word: object) -> str:
    """Return whether a model was trained enough; of another word that is not known."""
    return str(word) if word in TRAINED else TRAINED_UNKNOWN


Shown = Annotated[Figure, BeforeValidator(_with_nan)]
Family = Annotated[OwnFamily | None, BeforeValidator(_family)]
Trained = Annotated[str, BeforeValidator(_training)]
Classes = Annotated[Mapping[str, int] | None, BeforeValidator(_of_two)]


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
    if reply.metadata.message_type != COMPARE or not RUN.fullmatch(run):
        return
    try:
        result = _result(request, reply, left, facts, messages)
        text = _FILE.dump_json(result, by_alias=True, exclude_none=True, indent=1)
        # The folder belongs to the gate's user, whoever runs this.
        if not folder.results.is_dir():
            folder.results.mkdir(mode=0o700)
            give(folder.results, folder.gate)
        write_whole(folder.results / f"{run}.json", text)
    except (MalformedMessage, FlfedError, OSError, ValueError) as error:
        LOG.error("the result of run %s is not kept: %s", run, error)


def _result(
    request: Message, reply: Message, left: Message, facts: Mapping[str, Any], messages: StudyMessages
) -> Result:
    """Return what a file says of a comparison: all of it is from the ledger's facts and the reply."""
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
    """Return a site's kept results and its unreadable files.

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
            datetime.fromisoformat(result.at)  # ValueError where it is none
            results.append(result)
        except FlfedError as error:
            problems.append(str(error))
        except (ValueError, AttributeError):
            problems.append(f"{path}: is not as it was written; remove it")
    return sorted(results, key=lambda result: (result.at, result.run), reverse=True), sorted(problems)
