"""Messages of an attack on a run's model.

The model is attacked at the run's sites. Each class says what its message reveals.

One exchange an attack: the model goes to the site, what the attack reached there comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from flwr.app import RecordDict

from flfed.refusals import Refusal
from flfed.summaries.summary import Encoder
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.fields import PROTOCOL, Arrays, MalformedMessage, MetricName
from flfed.updates.messages.in_memory import kebab_record, record_of
from flfed.updates.messages.train import read_request, request_sections

AUDIT = kinds.AUDIT
Verdict = Literal["within the promise", "beyond the promise", "not known", "no promise"]
AttackName = Annotated[str, r"[a-z0-9]+(-[a-z0-9]+)*"]
MOST_FIGURES = 16
"""Figures of one attack at one site."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditRequest:
    """Request to attack the final model at a site.

    The site's own rows are used.

    Attributes
    ----------
    arrays : dict of name to array
        The global model's, of names and shapes that follow from the study.
    encoder : Encoder
    attack : str
        Its name. What the run promises is not sent: it follows from the study, which the site has.

    Reveals: nothing about rows; it goes to the site.
    """

    arrays: Arrays
    encoder: Encoder
    attack: AttackName

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return record_of(request_sections(self.arrays, self.encoder, attack=self.attack))

    @classmethod
    def from_record(cls, record: RecordDict) -> AuditRequest:
        """Read the message's content."""
        return cast(AuditRequest, fields.made(cls, read_request(record)))


@dataclass(frozen=True, kw_only=True)
class AuditFigure:
    """One figure of an attack, against what was promised.

    Attributes
    ----------
    metric : str
        Its name.
    value, low, high : float
        The figure and its interval; NaN where it could not be had.
    promise : float
        The most that the promise lets `value` be; NaN where nothing is promised.
    verdict : {"within the promise", "beyond the promise", "not known", "no promise"}
        Not known: nothing is, of how low the figure may be.
    rows : int
        Rows that the figure is over; 0 where it is over none.
    method, says : str
        How it was had, and what it means, in fixed words and these numbers.
    """

    metric: MetricName
    value: float
    low: float
    high: float
    promise: float
    verdict: Verdict
    rows: int
    method: str
    says: str


@dataclass(frozen=True, kw_only=True)
class AuditReply:
    """Result of one attack at one site.

    Attributes
    ----------
    num_examples, holdout_rows : int
        Training rows and holdout rows, so that it is seen whether they are as many as in the run.
    figures : tuple of AuditFigure

    Reveals: the exact numbers of training and holdout rows; how well an attacker who has the model
    tells the site's rows from others, or how many of some it rebuilds: figures over at least the
    cell minimum of rows under disclosure "institution", with intervals. No row, and no word on which
    rows an attack was right about. The figures follow from rows without noise: no promise of
    differential privacy covers them. The model attacked is one that the site judged in the run's
    comparison (behind a gate, another one is refused), and the same attack gives the same figures
    again, so that asking more often tells no more.
    """

    num_examples: int
    holdout_rows: int
    figures: tuple[AuditFigure, ...]

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        plain = {"num_examples": self.num_examples, "holdout_rows": self.holdout_rows}
        records: dict[str, Any] = {"config": kebab_record(protocol=PROTOCOL, **plain)}
        # A record of columns needs at least one row, so that no figures are no section.
        if self.figures:
            records["figures"] = fields.rows_record(self.figures)
        return record_of(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> AuditReply:
        """Read the message's content."""
        config = fields.config_of(record)
        found = cls(
            num_examples=fields.whole(config, "num-examples"),
            holdout_rows=fields.whole(config, "holdout-rows"),
            figures=fields.read_figures(record, "figures", AuditFigure, kind_of="attack"),
        )
        # The message came from outside, so that what no site can have is refused.
        if len(found.figures) > MOST_FIGURES or min(found.num_examples, found.holdout_rows) < 0:
            raise MalformedMessage(Refusal("counts-impossible", message="AuditReply"))
        return found
