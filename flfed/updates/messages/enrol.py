"""Messages at the beginning of a run: a site enrols, and says where its ledger ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from flwr.app import RecordDict

from flfed.refusals import Refusal, recorded, unmarked
from flfed.study.tables import LEAST_COHORT
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.fields import TITLE, MalformedMessage, PlainMessage
from flfed.updates.messages.in_memory import kebab_record, record_of
from flfed.updates.messages.kinds import PROTOCOL

ENROL = kinds.ENROL
HashOrNone = Annotated[str, r"([0-9a-f]{64})?"]


@dataclass(frozen=True, kw_only=True)
class EnrolRequest:
    """Request for a node's site and its participation.

    The study travels in the run config.

    Attributes
    ----------
    dataset : str
        Its name in the study.
    schema_sha256 : str
        Hash of the dataset's schema, which must be the site's.
    known_line : int
        Number of the last line of the site's ledger that the coordinator knows; 0 where it knows none.

    Reveals: nothing about rows; it goes to the site.
    """

    dataset: str
    schema_sha256: str
    known_line: int = 0

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        plain = {"dataset": self.dataset, "schema": self.schema_sha256, "known_line": self.known_line}
        return record_of({"config": kebab_record(protocol=PROTOCOL, **plain)})

    @classmethod
    def from_record(cls, record: RecordDict) -> EnrolRequest:
        """Read the message's content."""
        config = fields.config_of(record)
        return cls(
            dataset=fields.text(config, "dataset"),
            schema_sha256=fields.text(config, "schema"),
            known_line=fields.whole(config, "known-line"),
        )


@dataclass(frozen=True, kw_only=True)
class EnrolReply(PlainMessage):
    """Reply of a site, accepted or refused by its policy.

    Attributes
    ----------
    site, title : str
        The site's name, and the institution's for people.
    version : str
        Of its flfed.
    accepted : bool
        Whether it takes part.
    reason : str
        Why it refuses, in fixed words.
    rows_low, rows_high : int
        Ends of the band of training rows; of all rows where a statistic is asked for, and that of any table
        for an analysis.
    disclosure : {"open", "institution"}
        What its policy lets leave of sums and scores.
    resplit : bool
        Whether repeats may hold out other rows.
    epsilon_budget, epsilon_spent : float
        Of the dataset, and what all studies there have spent; NaN where there is none.
    signed_key : bytes
        The site's key of the run for secure sums, as its gate signed it; crosses only where the site approved sums.
    width : float
        Share of the model's hidden units that the site trains; crosses only where it is not all of them.
    minimum_cohort : int
        Fewest sites of a run; crosses only where its policy names a number. 0 stands for 3 under "institution", 2
        under "open".
    ledger_lines : int
        Lines of the site's ledger, with that of this reply; only a gate has a ledger, so that it sets these three.
    ledger_head : str
        Hash of the last of them.
    known_hash : str
        Hash of the line that the request names; empty where the ledger has none of that number.

    Reveals: the site's name and versions, and its number of training rows as a band of one power of ten. An analysis
    does without the band. The reply has no count, but for one in the reason of a refusal. A reason is a fixed phrase of
    flfed: a column, a rule, and a count that is "fewer than 5" when small. Where the study asks for record-level
    differential privacy, the reply has the site's budget of epsilon for the dataset. It also has the epsilon that all
    studies there have spent (NaN: no budget, or none counted). These show how much was computed with the rows, and
    nothing of what is in them. A site that trains a part of the model names the part, and one whose policy names the
    fewest sites of a run names their number: settings of its policy. The number of the ledger's lines shows how many
    messages the site has answered or refused in all, under every study, and so by how many it grew since the run
    before. The hashes reveal nothing to a reader who does not know the lines; one who knows the line before can check a
    guess of a whole line: its time, and the hash of what left.
    """

    site: fields.SiteName
    title: str
    version: fields.Version
    accepted: bool
    reason: str = ""
    rows_low: int = 0
    rows_high: int = 0
    disclosure: Literal["open", "institution"] = "institution"
    resplit: bool = False
    epsilon_budget: float = math.nan
    epsilon_spent: float = math.nan
    signed_key: bytes = b""
    width: float = 1.0
    minimum_cohort: int = 0
    ledger_lines: int = 0
    ledger_head: HashOrNone = ""
    known_hash: HashOrNone = ""

    @property
    def least_sites(self) -> int:
        """Fewest sites of a run, by the site's policy."""
        return self.minimum_cohort or LEAST_COHORT[self.disclosure]

    def __post_init__(self) -> None:
        """Refuse a share that is none, and a negative number of lines."""
        for name, fits in (("width", 0 < self.width <= 1), ("ledger-lines", self.ledger_lines >= 0)):
            if not fits:
                raise MalformedMessage(Refusal("fields-unfit", message="EnrolReply", fields=name))

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        # What a site does not set does not cross.
        left_out = {"signed_key": b"", "width": 1.0, "minimum_cohort": 0}
        left_out |= {"ledger_lines": 0, "ledger_head": "", "known_hash": ""}
        plain = {key: value for key, value in fields.fields_of(self).items() if left_out.get(key) != value}
        return record_of({"config": kebab_record(protocol=PROTOCOL, **plain)})

    @classmethod
    def from_record(cls, record: RecordDict) -> EnrolReply:
        """Read the message's content."""
        config = dict(fields.config_of(record).items())
        # The texts are shown to people: marks that turn a line around are removed, and a reason must be known.
        for key in ("title", "reason"):
            if isinstance(text := config.get(key), str):
                config[key] = unmarked(text)
        reply = fields.made(cls, config)
        reason = reply.reason and recorded(reply.reason)
        return replace(reply, title=reply.title[:TITLE], reason=reason)
