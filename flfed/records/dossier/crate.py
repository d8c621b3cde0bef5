"""RO-Crate of a dossier, of the profile Process Run, with the Five Safes as entities.

Sources: RO-Crate 1.1; Process Run Crate 0.5. The Five Safes: Desai, Ritchie and Welpton 2016, "Five Safes: designing
data access for research".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from flfed.records.dossier.answers import Facts, find_evidence
from flfed.records.dossier.record import RunRecord
from flfed.words import render, sentences

VERSION = "1.1"
"""Version of RO-Crate on which the profile is based."""
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
FLFED = "https://github.com/flfed/flfed"
FORMATS = {"html": "text/html", "json": "application/json", "toml": "application/toml"}
STUDY = "study.toml"
RESULTS = ("report.html", "record.json")
SAFES = {
    "people": (),
    "projects": ("purpose", "legal-basis"),
    "settings": ("link", "secure-sums"),
    "data": ("rows", "encoding"),
    "outputs": ("output-control", "weights"),
}
"""Evidence of each of the Five Safes."""
ENDED = {"completed": "CompletedActionStatus", "running": "ActiveActionStatus"}
"""Status of an action by that of a run; of any other run it failed."""


def describe_crate(record: RunRecord, facts: Facts, files: Iterable[str]) -> Mapping[str, Any]:
    """Return the metadata of a crate with these files, as JSON-LD."""
    # Imported late: the extra `flfed[dossier]`.
    from rocrate.rocrate import ROCrate

    run = record.run
    crate = ROCrate(version=VERSION)
    profile = _add(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    owner = facts.person("owner")
    agent = _add(crate, "#owner", "Organization", name=owner or render("dossier.crate.owner"))
    what = sentences("dossier", "files")
    parts = {}
    for name in files:
        properties = {
            "name": name,
            "description": what.get(name, render("dossier.crate.sheet")),
            "encodingFormat": FORMATS[name.rpartition(".")[2]],
        }
        parts[name] = crate.add_file(dest_path=name, properties=properties)
    root = {
        "name": render("dossier.pages.title", study=run.study),
        "description": render("dossier.pages.run", run=run.run, study=run.study),
        "license": _licence(crate, facts),
        "author": agent,
        "conformsTo": profile,
        "mentions": [_action(crate, record, parts, agent), *_safes(crate, record, facts)],
    }
    for key, value in root.items():
        crate.root_dataset[key] = value
    metadata: Mapping[str, Any] = crate.metadata.generate()
    return metadata


def _add(crate: Any, identifier: str, kind: str, **properties: Any) -> Any:
    return crate.add_jsonld({"@id": identifier, "@type": kind, **properties})


def _licence(crate: Any, facts: Facts) -> Any:
    words = facts.person("licence") or render("dossier.crate.licence")
    return _add(crate, "#licence", "CreativeWork", name=words, description=words)


def _action(crate: Any, record: RunRecord, parts: Mapping[str, Any], agent: Any) -> Any:
    """Return the run as an action: its software, its study and rows, and its results."""
    entry = record.entry
    software = {"name": "flfed", "version": record.version, "url": FLFED}
    tool = _add(crate, f"{FLFED}#software", "SoftwareApplication", **software)
    rows = []
    for site in record.sites:
        words = render("dossier.crate.rows", site=site.title or site.site)
        rows.append(_add(crate, f"#rows-{site.site}", "CreativeWork", name=words, description=words))
    status = ENDED.get(record.run.status, "FailedActionStatus")
    action = {
        "name": render("dossier.crate.run", run=entry.run),
        "description": render("dossier.pages.run", run=entry.run, study=entry.study),
        "startTime": _whole_seconds(entry.started),
        "actionStatus": f"http://schema.org/{status}",
        "instrument": tool,
        "agent": agent,
        "object": [parts[STUDY], *rows],
        "result": [parts[name] for name in RESULTS],
    }
    if entry.finished:
        action |= {"endTime": _whole_seconds(entry.finished)}
    made = _add(crate, f"#run-{entry.run}", "CreateAction")
    for key, value in action.items():
        made[key] = value
    return made


def _whole_seconds(stamp: str) -> str:
    """Return a time of the record without fractions of a second, which the profile does not name.

    Examples
    --------
    >>> _whole_seconds("2026-11-28T02:47:48.719Z")
    '2026-11-28T02:47:48+00:00'
    """
    return datetime.fromisoformat(stamp).isoformat(timespec="seconds")


def _safes(crate: Any, record: RunRecord, facts: Facts) -> Sequence[Any]:
    """Return the Five Safes, each with the facts of the record, or with the texts of people."""
    made = []
    for name, evidence in SAFES.items():
        findings = [find_evidence(key, record) for key in evidence]
        lines = [finding.sentence() for finding in findings if finding is not None]
        text = facts.person(f"safe-{name}")
        if text:
            lines.append(text)
        words = " ".join(lines) or render("dossier.crate.open")
        title = render(f"dossier.safes.{name}")
        made.append(_add(crate, f"#safe-{name}", "DefinedTerm", name=title, description=words))
    return made
