"""Status of the consortium.

It shows which sites are admitted and online, and the part of each in its last run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flfed.deployment.coordinator import admission
from flfed.deployment.coordinator.certificates import server_days_left, settings
from flfed.deployment.flower.link import LAST_REQUESTS, NODES, Link, Node, pem_of
from flfed.errors import FlfedError
from flfed.paths import CoordinatorFolder
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.refusals import read
from flfed.registry import kebab_keys

RUNS_LOOKED_AT = 20
"""A site that took part in none of so many runs has no last run here."""


@dataclass(frozen=True)
class LastRun:
    """A site's part in its newest run.

    The run is the newest one that requested it.

    Attributes
    ----------
    run, study, state : str
        `state` is the run's: running, interrupted, completed, stopped or failed.
    answer : str
        The site's: "accepted", "refused" or "not there".
    reason : str
        Why it refused, or is missing.
    round, of : int
        Rounds committed so far, and planned.
    """

    run: str
    study: str
    state: str
    answer: str
    reason: str
    round: int
    of: int


@dataclass(frozen=True)
class SiteStatus:
    """Status of one site.

    Attributes
    ----------
    site : str
    status : str
        "invited", "admitted" or "revoked".
    since : str
        Since when, ISO 8601.
    node : str
        "online", "offline", "never seen", or "not known" where the server does not answer; empty
        where it may not connect.
    online_since : str
        ISO 8601; empty where it is not online.
    seconds_since_request : float or None
        Since its node's last request; `None` where there was none since the server began.
    last_run : LastRun or None
    gate_key : str
        The fingerprint of its gate's key; empty where it is not on record here.
    unanswered, unanswered_seconds : str, float
        The kind and the age of its oldest request without an answer; the kind is empty without one.
    """

    site: str
    status: str
    since: str
    node: str
    online_since: str
    seconds_since_request: float | None
    last_run: LastRun | None
    gate_key: str = ""
    unanswered: str = ""
    unanswered_seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return kebab_keys({**asdict(self), "online_since": self.online_since or None})


@dataclass(frozen=True)
class Status:
    """Status of the consortium.

    Attributes
    ----------
    title, address : str
    serving : bool
        Whether the server answers.
    server_days : int
        How long its certificate is valid.
    sites : tuple of SiteStatus, by name
    problems : tuple of str
        A sentence for each site whose file is damaged; it is not among `sites`.
    """

    title: str
    address: str
    serving: bool
    server_days: int
    sites: tuple[SiteStatus, ...]
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return kebab_keys({**vars(self), "sites": [site.as_json() for site in self.sites]})


def status(folder: CoordinatorFolder) -> Status:
    """Return the consortium's present status."""
    own = settings(folder)
    nodes, seconds = _nodes(folder)
    members, problems = admission.readable(folder)
    last = last_runs()
    sites = tuple(_site(member, nodes, seconds.get(name), last.get(name)) for name, member in sorted(members.items()))
    days = server_days_left(folder)
    return Status(own.title, own.address, nodes is not None, days, sites, problems)


def _nodes(folder: CoordinatorFolder) -> tuple[dict[bytes, Node] | None, dict[str, float]]:
    """Return the registered nodes and their last requests.

    Nodes are None where the server does not answer. Last requests are seconds ago, by site.
    """
    try:
        link = Link.of(folder)
        nodes = [Node.from_json(entry) for entry in link.ask(NODES)]
        seconds = {str(site): float(entry) for site, entry in link.ask(LAST_REQUESTS).items()}
    except FlfedError:
        return None, {}
    return {node.public_key: node for node in nodes}, seconds


def _site(
    member: admission.Membership, nodes: dict[bytes, Node] | None, seconds: float | None, last: LastRun | None
) -> SiteStatus:
    since = {"invited": member.invited, "admitted": member.admitted, "revoked": member.revoked}[member.status]
    node = ""
    online_since = ""
    request = ("", 0.0)
    # Only an admitted site may connect, so only its node has a status.
    if member.status == "admitted":
        node = "not known"
        if nodes is not None:
            registration = nodes.get(pem_of(member.public_key))
            node = "never seen"
            if registration is not None:
                request = (registration.unanswered, registration.unanswered_seconds)
                online_since = registration.online_since
                node = registration.status if registration.status != "registered" else node
    return SiteStatus(member.site, member.status, since, node, online_since, seconds, last, member.gate_key, *request)


def last_runs() -> dict[str, LastRun]:
    """Return each site's newest run, by site.

    It is the newest run over a deployment that requested the site.
    """
    runs_by_site: dict[str, LastRun] = {}
    with RunReader.open() as reader:
        for run in [run for run in reader.runs() if run.at_institutions][:RUNS_LOOKED_AT]:
            for site, (answer, reason) in _answers(reader, run).items():
                last = LastRun(run.run, run.study, run.status, answer, reason, run.rounds, run.rounds_planned)
                runs_by_site.setdefault(site, last)
    return runs_by_site


def _answers(reader: RunReader, run: RunEntry) -> dict[str, tuple[str, str]]:
    """Return each site's answer in a run with its reason, by name."""
    answers = {site.site: (site.status, site.reason) for site in reader.sites(run.run)}
    # A missing site has no row of its own: its absence is an event.
    for event in reader.events([run.run]):
        absence = read(event.reason) if event.code.startswith("not-there") else None
        if event.site is not None and absence is not None:
            answers.setdefault(event.site, ("not there", absence.facts["why"]))
    return answers
