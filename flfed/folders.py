"""Where a coordinator and a site keep their files: paths only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flfed.errors import UsageError
from flfed.paths import home, private_folder


@dataclass(frozen=True)
class CoordinatorFolder:
    """The coordinator's folder, `coordinator` under `FLFED_HOME`; only its owner may enter.

    Parameters
    ----------
    root : Path
    """

    root: Path

    @classmethod
    def default(cls) -> CoordinatorFolder:
        """Return the folder of this user."""
        return cls(home() / "coordinator")

    @property
    def settings(self) -> Path:
        """Name, address and ports, as TOML."""
        return self.root / "coordinator.toml"

    @property
    def keys(self) -> Path:
        """`ca.key`, `ca.crt` (two certificates during a change), `server.key`, `server.crt`, `signing.key`."""
        return self.root / "keys"

    @property
    def sites(self) -> Path:
        """One JSON file a site: invited, admitted or revoked, when, its public key and node id."""
        return self.root / "sites"

    @property
    def log(self) -> Path:
        """What was invited, admitted, refused, revoked and rotated, and when: one JSON line each."""
        return self.root / "log.jsonl"

    @property
    def server(self) -> Path:
        """Of the running server: Flower's database, logs, the Caddyfile, `executor.secret`, process ids."""
        return self.root / "server"

    @property
    def receipts(self) -> Path:
        """The heads of the sites' ledgers that this coordinator signed, one JSON line each."""
        return self.root / "receipts.jsonl"

    def make(self) -> None:
        """Make the folders where they are absent, for their owner alone."""
        for folder in (self.root, self.keys, self.sites, self.server):
            if not folder.is_dir():
                folder.mkdir(parents=True, mode=0o700)
                folder.chmod(0o700)


NAME = re.compile(r"(?=.{1,100}$)[a-z0-9]+(-[a-z0-9]+)*")
"""A site's name."""


@dataclass(frozen=True)
class SiteFolder:
    """The folders of one site, under `FLFED_HOME`.

    Parameters
    ----------
    site : str
        The site's name.

    Notes
    -----
    `network` belongs to the user that has the network (and no data), `gate` to the one that has the
    data (and no network); both may enter `link`, where the socket between them is.
    """

    site: str

    def __post_init__(self) -> None:
        """Refuse a name that could lead out of the folder."""
        if not NAME.fullmatch(self.site):
            raise UsageError(f"site name {self.site!r} must be of a-z, 0-9 and single hyphens")

    @property
    def root(self) -> Path:
        """The folder of the site."""
        return home() / "sites" / self.site

    @property
    def network(self) -> Path:
        """Of the user with the network: `join.toml`, `ca.crt`, `node.key`."""
        return self.root / "network"

    @property
    def gate(self) -> Path:
        """Of the user with the data: `approvals/`, `frozen/`, `excluded.csv`, `ledger.jsonl`, `receipts.jsonl`."""
        return self.root / "gate"

    @property
    def link(self) -> Path:
        """Of both: `gate.sock`, `executor.secret`, and `terms.toml`, what the gate must know of the kit."""
        return self.root / "link"

    @property
    def join(self) -> Path:
        """What the kit gave and the site chose, as TOML."""
        return self.network / "join.toml"

    @property
    def admission(self) -> Path:
        """A copy of what the site sent to the coordinator to be admitted."""
        return self.network / f"{self.site}.admission"

    @property
    def node_key(self) -> Path:
        """The site's private key, made here; it never leaves."""
        return self.network / "node.key"

    @property
    def known_as(self) -> Path:
        """The number by which the coordinator's server knows the node that ran last."""
        return self.network / "node.id"

    @property
    def node_pulse(self) -> Path:
        """When the node last had an answer of the coordinator's server."""
        return self.network / "node.pulse"

    @property
    def gate_pulse(self) -> Path:
        """When the gate last reached its node."""
        return self.gate / "gate.pulse"

    @property
    def authority(self) -> Path:
        """The certificate of the coordinator's authority."""
        return self.network / "ca.crt"

    @property
    def socket(self) -> Path:
        """Where the gate reaches the node of the network user."""
        return self.link / "gate.sock"

    @property
    def secret(self) -> Path:
        """What the gate and the node know of each other."""
        return self.link / "executor.secret"

    @property
    def terms(self) -> Path:
        """What the gate must know of the kit, as TOML: bundle's hash, the coordinator's public signing key."""
        return self.link / "terms.toml"

    @property
    def approvals(self) -> Path:
        """One JSON file a study, by its SHA-256."""
        return self.gate / "approvals"

    @property
    def frozen(self) -> Path:
        """One folder a dataset: the mapped rows that are served, and what is known of them."""
        return self.gate / "frozen"

    @property
    def incoming(self) -> Path:
        """One folder a run: what the site was asked in its rounds, so that `site replay` can answer again."""
        return self.gate / "incoming"

    @property
    def results(self) -> Path:
        """One JSON file a run: the site's own figures of its comparison, as they left."""
        return self.gate / "results"

    @property
    def excluded(self) -> Path:
        """Identifiers of people who opted out, under the name of a column of the site's own table."""
        return self.gate / "excluded.csv"

    @property
    def ledger(self) -> Path:
        """What left the site, line by line, each line sealed by the one before."""
        return self.gate / "ledger.jsonl"

    @property
    def receipts(self) -> Path:
        """The coordinator's signatures of the ledger's head."""
        return self.gate / "receipts.jsonl"

    def make(self) -> None:
        """Make the folders where they are absent, for their owner alone (the link: for its group too)."""
        private_folder(self.root.parent)
        for folder, mode in ((self.root, 0o711), (self.network, 0o700), (self.gate, 0o700), (self.link, 0o770)):
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
                folder.chmod(mode)
