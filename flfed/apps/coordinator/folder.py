"""Where the coordinator keeps its keys, its invitations and the server's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flfed.home import home


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
