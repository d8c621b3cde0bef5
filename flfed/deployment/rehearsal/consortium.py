"""Coordinator and sites of a rehearsal, with a home, keys and a ledger each in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flfed.callbacks import Notify
from flfed.deployment.coordinator import admission, certificates, kits
from flfed.deployment.operator import join
from flfed.deployment.operator.secure_sums import has_sums
from flfed.deployment.processes.child_processes import free_port
from flfed.deployment.processes.relay import check_length
from flfed.deployment.rehearsal.preparation import at_home
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.words import render

TITLE = "Rehearsal on one machine"
"""Title of the coordinator, which each site's approvals and app show."""
OPERATOR = "automatic operator of a rehearsal"
"""Who decides at each site, as its approvals show it."""
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Rehearsal:
    """Consortium of a study in one folder.

    Attributes
    ----------
    folder : Path
        Of `rehearsal_folder`.
    study : Study
    sites : tuple of Site
        At least two.
    real : Path
        Home of this machine: its downloads and its lists of opt-outs are read.
    notify : callable
        Receives a sentence about each step.
    """

    folder: Path
    study: Study
    sites: tuple[Site, ...]
    real: Path
    notify: Notify

    @property
    def names(self) -> list[str]:
        """Names of the sites."""
        return [site.name for site in self.sites]

    @property
    def coordinator_home(self) -> Path:
        """Home of the coordinator."""
        return self.folder / COORDINATOR

    @property
    def exchange(self) -> Path:
        """Folder of the study and of the files that coordinator and sites would send to each other."""
        return self.folder / "exchange"

    @property
    def study_file(self) -> Path:
        """File with the text of the study, which every site approves."""
        return self.exchange / f"{self.study.name}.toml"

    def home(self, site: str) -> Path:
        """Return the home of a site; homes have numbers, since the path of a socket must be short."""
        return self.folder / str(1 + self.names.index(site))

    def homes(self) -> dict[str, object]:
        """Return the homes of coordinator and sites, for a program."""
        sites = {name: str(self.home(name)) for name in self.names}
        return {"coordinator": str(self.coordinator_home), "sites": sites}

    def take_in(self) -> dict[str, str]:
        """Set up the coordinator, and let every site join and be admitted; return the fingerprints of their gates."""
        for folder in (self.exchange, self.coordinator_home, *map(self.home, self.names)):
            folder.mkdir(mode=0o700)
        self.study_file.write_text(self.study.text, encoding="utf-8")
        with at_home(self.coordinator_home):
            settings = certificates.Settings(TITLE, f"localhost:{free_port()}")
            certificates.initialise(CoordinatorFolder.default(), settings)
        fingerprints = {}
        for name in self.names:
            self._link_downloads(name)
            with at_home(self.coordinator_home):
                kit = kits.invite(CoordinatorFolder.default(), name, to=self.exchange).file
            with at_home(self.home(name)):
                check_length(SiteFolder(name).socket)
                membership = join.join(kit, to=self.exchange)
                self._copy_opt_outs(name)
            with at_home(self.coordinator_home):
                admission.admit(CoordinatorFolder.default(), membership.admission)
            fingerprints[name] = membership.gate_key
        self.notify(render("rehearsal.steps.joined", sites=", ".join(self.names)))
        return fingerprints

    def _link_downloads(self, name: str) -> None:
        """Let a site read the downloads of this machine."""
        downloads = self.real / "data"
        if downloads.is_dir():
            (self.home(name) / "data").symlink_to(downloads.absolute())

    def _copy_opt_outs(self, name: str) -> None:
        """Copy the lists of people who opted out at this machine's site of this name: they opted out here, too."""
        gate = self.real / "sites" / name / "gate"
        own = SiteFolder(name).gate
        for path in gate.glob("excluded*.csv"):
            write_whole(own / path.name, path.read_bytes())

    def partners(self, fingerprints: Mapping[str, str]) -> str:
        """Return all sites as `flfed site approve --with` takes them; with fingerprints under secure aggregation."""
        if not has_sums(self.study, len(self.names)):
            return ",".join(self.names)
        return ",".join(f"{name}={fingerprints[name]}" for name in self.names)
