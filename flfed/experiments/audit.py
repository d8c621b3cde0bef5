"""Audit of a run: attacks on its model at its sites, recorded beside the privacy guarantee."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from flwr.serverapp import Grid

from flfed import registry
from flfed.callbacks import Progress, no_progress
from flfed.errors import FlfedError, RunStopped, UsageError, interruption, nearest, unknown
from flfed.export.model_folder import SharedModel
from flfed.export.run_folder import WITHOUT_MODEL, model_of
from flfed.federation.client.audit import promise_of
from flfed.federation.engines.engine import RunConfig, RunResources, answer_of, engine_of, path_of
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.preflight import check
from flfed.federation.server.run_setting import ask, ask_enrolment, check_ledgers, deadline_of
from flfed.records.store.entries import AuditRow, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Site
from flfed.summaries.summary import merge, sums_sha256
from flfed.updates.mechanism import Promise
from flfed.updates.messages.compare import AUDIT, AuditReply, AuditRequest
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.words import render, usage_error


@dataclass(frozen=True)
class Audited:
    """Result of an audit, which the run's record has, too.

    Attributes
    ----------
    run, study : str
    promise : Promise or None
        Guarantee of the run as planned.
    findings : tuple of AuditRow
        By attack and site.
    faults : mapping of site to reason
        Sites that were not attacked, or not by every attack.
    repeat, repeats : int
        Repeat whose model was attacked, and their number; each has a model of its own.
    """

    run: str
    study: str
    promise: Promise | None
    findings: tuple[AuditRow, ...]
    faults: Mapping[str, str]
    repeat: int = 0
    repeats: int = 1

    def beyond(self) -> list[AuditRow]:
        """Return the findings beyond the run's guarantee."""
        return [row for row in self.findings if row.payload["verdict"] == "beyond the promise"]

    def as_object(self) -> dict[str, Any]:
        """Return the object of `flfed audit --json`."""
        return {
            "run": self.run,
            "study": self.study,
            "repeat": self.repeat,
            "repeats": self.repeats,
            "promise": self.promise and asdict(self.promise),
            "findings": [row.as_object() for row in self.findings],
            "faults": [{"site": site, "reason": reason} for site, reason in self.faults.items()],
        }


def audit(
    run: str,
    *,
    only: Sequence[str] = (),
    attacks: Sequence[str] = (),
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    progress: Progress = no_progress,
    jobs: int = 1,
) -> Audited:
    """Attack a run's final model at its sites, and add the figures to the run's record.

    Parameters
    ----------
    run : str
        Id of a run or a series, or "latest". In a series with repeats, the first model is attacked.
    only : sequence of str
        Sites, by their names in the record; default: all.
    attacks : sequence of str
        Listed attacks; default: all.
    sites : sequence of names, import paths or Site, optional
        Needed only if the run was on Site objects.
    store : str, optional
        Database URL.
    progress : callable (stage, done, of)
    jobs : int or Cluster
        Processes that train shadow models, as for `run`.

    Notes
    -----
    The sites are opened as in the run: same study, same repeat, and so the same holdout. In a deployment, the
    coordinator asks the sites, which attack themselves and return figures; otherwise this process opens their tables.
    A site that shares its figures only in sums is not attacked.

    Raises
    ------
    UsageError
        If there is no such run, site or attack, the run has no model, or its sites' rows have changed.
    FlfedError
        If no site could be attacked.

    Examples
    --------
    >>> from flfed import audit, run
    >>> result = run("wine", rounds=2)  # doctest: +SKIP
    >>> audited = audit("latest", attacks=["membership-inference"])  # doctest: +SKIP
    >>> audited.findings[0].metric  # doctest: +SKIP
    'auc-of-loss'
    """
    attack_names = registry.names("attack")
    for name in attacks:
        if name not in attack_names:
            raise unknown("attack", name, attack_names)
    chosen = list(dict.fromkeys(attacks)) or attack_names
    with RunReader.open(store) as reader:
        entries = reader.runs_of(run)
        series = reader.series(run)
        # Repeats differ only in seeds: the first with a model is attacked.
        entry = next((one for one in entries if one.status not in WITHOUT_MODEL), entries[0])
        # Some engines leave the attack to another engine, which reads the same tables.
        engine = engine_of(engine_of(entry.engine).audited_by)
        model = model_of(reader, entry)
        request = reader.summary(entry.run, "asked") or {}
        sums = reader.summary(entry.run, "training-sums") or {}
        made_at_sites = (reader.summary(entry.run, "secure-sums") or {}).get("kind") == "masked"
        recorded = {site.site: site for site in reader.sites(entry.run) if site.status == "accepted"}
    study = model.study
    if series.study != study.name:
        raise usage_error("experiments.audit.point", run=run)
    _check_named(only, recorded)
    if sites is None:
        if request.get("given"):
            raise usage_error("run.resume.objects", run=run, command="audit")
        sites = request.get("sites")
    if study.compare.is_summed:
        raise usage_error("experiments.audit.unshared", run=run)
    if study.covers_model:
        raise usage_error("experiments.audit.covered", run=run)
    facts = check(study)
    there = engine.sites(study, sites)
    attacked_sites = [site for site in there if site.name in request.get("names", [site.name])]
    torch.set_num_threads(1)
    # Under the run's own name: a site with a spent budget answers for a run that spent some of it.
    key = "run" if engine.remote else "run-here"
    config: RunConfig = {"study": study.text, "repeat": entry.repeat, key: entry.run}
    resources = RunResources(answer_of(path_of(engine, study, stacked=True), progress, jobs), progress)
    with RunStore.open(store) as opened:
        writer = opened.added_to(entry.run)
        recorder = Recorder(writer, facts["primary"], entry.rounds_planned, progress, entry.series)
        recorder.after(entry.rounds + 1)
        with engine.started(attacked_sites, config, resources) as (grid, tables):
            auditor = Auditor(grid, model, entry, recorded, recorder, opened, tables, sums, made_at_sites)
            done = auditor.conduct(chosen, only)
    return replace(done, repeat=entry.repeat, repeats=len(entries))


def _check_named(only: Sequence[str], recorded: Mapping[str, SiteEntry]) -> None:
    """Refuse sites that the run does not have, ."""
    for name in only:
        if name not in recorded:
            names = sorted(recorded)
            raise UsageError(f"site {name!r} took no part in the run{nearest(name, names)} It had: {', '.join(names)}")


@dataclass
class Auditor:
    """Auditor of one run over a grid.

    Attributes
    ----------
    grid : Grid
    model : SharedModel
        Model under attack.
    entry : RunEntry
    recorded : mapping of name to SiteEntry
        The participants, by their names in the record.
    recorder : Recorder
    store : RunStore
    tables : PooledReference or None
        Tables of all sites, from an engine that has them.
    training_sums : mapping
        Hashes of the sums over the run's training rows; empty if its record has none.
    made_at_sites : bool
        Whether sites made the model themselves: then no model is sent, and each attacks the one that it compared.
    """

    grid: Grid
    model: SharedModel
    entry: RunEntry
    recorded: Mapping[str, SiteEntry]
    recorder: Recorder
    store: RunStore
    tables: PooledReference | None
    training_sums: Mapping[str, Any] = field(default_factory=dict)
    made_at_sites: bool = False
    faults: dict[str, str] = field(default_factory=dict, init=False)

    def conduct(self, attacks: Sequence[str], only: Sequence[str] = ()) -> Audited:
        """Enrol the sites, attack, and record the findings of each attack.

        Raises
        ------
        UsageError
            If the rows differ from those of the run.
        FlfedError
            If no site could be attacked.
        """
        nodes = self._enrol()
        # Sums can be compared with the record only if all sites of the run are here.
        if self.tables is not None and self._is_whole(nodes):
            self._check_rows(self.tables, sorted(nodes))
        wanted = self._wanted(nodes, only)
        findings = []
        for number, attack in enumerate(attacks):
            self.recorder.progress("attacks", number, len(attacks))
            try:
                findings += self._attack(attack, wanted)
            except KeyboardInterrupt as error:
                rest = _command(self.entry.run, attacks[number:], only)
                done = render("experiments.audit.stopped", done=number, of=len(attacks), rest=rest)
                raise RunStopped(f"{interruption(error)}; {done}") from None
        self.recorder.progress("attacks", len(attacks), len(attacks))
        # A fault at some sites is reported beside the findings; at all of them it is an error.
        if not findings and (self.faults or not wanted):
            why = "; ".join(f"{site}: {reason}" for site, reason in self.faults.items())
            why = why or "none that took part shares figures of its own"
            raise FlfedError(f"no site could be attacked ({why})")
        self.recorder.events("holdout-opened", dict.fromkeys(wanted, "audit"))
        return Audited(
            run=self.entry.run,
            study=self.model.study.name,
            promise=promise_of(self.model.study),
            findings=tuple(findings),
            faults=dict(sorted(self.faults.items())),
        )

    def _wanted(self, nodes: Mapping[str, int], only: Sequence[str]) -> dict[str, int]:
        """Return the sites to attack: those with figures of their own, or the named ones of them."""
        return {site: node for site, node in nodes.items() if not only or site in only}

    def _enrol(self) -> dict[str, int]:
        """Return the nodes of the run's sites that are present, in order of names."""
        nodes, answers = ask_enrolment(self.grid, self.model.study, self.model.schema)
        replies = {reply.site: (key, reply) for key, reply in answers.replies.items()}
        node_by_site = {}
        for site, (key, reply) in sorted(replies.items()):
            # A site without a record took no part in the run.
            if site in self.recorded and self._is_there(site, reply):
                node_by_site[site] = nodes[key]
        self.recorder.taking_part = set(node_by_site)
        sent = {site: answers.to_node[replies[site][0]] for site in node_by_site}
        received = {site: answers.to_server[replies[site][0]] for site in node_by_site}
        self.recorder.crossed(ENROL, sent, received)
        check_ledgers(self.grid, (reply for _, reply in replies.values() if reply.site in node_by_site))
        # Only an engine of institutions knows the site of a node without a reply.
        site_by_key = {str(node): site for site, node in getattr(self.grid, "nodes", {}).items()}
        for node, why in answers.faults.items():
            if node in site_by_key:
                self._fault(site_by_key[node], why.cause)
            else:
                self._fault(f"node {node}", why)
        return node_by_site

    def _is_there(self, site: str, reply: EnrolReply) -> bool:
        if not reply.accepted:
            self._fault(site, reply.reason)
        return reply.accepted

    def _is_whole(self, sites: Collection[str]) -> bool:
        """Return whether the sums of these sites made the run's encoder.

        A site without sums was not compared.
        """
        compared = {name for name, entry in self.recorded.items() if entry.rows is not None}
        return set(sites) == compared == set(self.recorded)

    def _check_rows(self, tables: PooledReference, sites: list[str]) -> None:
        """Refuse tables other than the run's, by their sums: an attack needs the training rows."""
        merged = merge([session.summary() for session in tables.sessions(sites)])
        if set(sums_sha256(merged)).isdisjoint(self.training_sums.get("rounded", ())):
            raise usage_error("experiments.audit.rows", run=self.entry.run)

    def _attack(self, attack: str, nodes: Mapping[str, int]) -> list[AuditRow]:
        """Make one attack at every site, and record the findings."""
        arrays = {} if self.made_at_sites else self.model.arrays
        request = AuditRequest(arrays=arrays, encoder=self.model.encoder, attack=attack)
        answers = ask(self.grid, AUDIT, request, nodes, AuditReply.from_record, timeout=deadline_of(self.model.study))
        self.recorder.crossed(AUDIT, answers.to_node, answers.to_server)
        for site, why in answers.faults.items():
            self._fault(site, why, attack)
        rows = []
        # The model never saw the rows of a site whose rows have changed.
        usable = {site: reply for site, reply in answers.replies.items() if not self._other_rows(site, reply)}
        for site, reply in usable.items():
            for figure in reply.figures:
                payload = {key: getattr(figure, key) for key in ("promise", "verdict", "says", "method", "rows")}
                rows.append(AuditRow(attack, site, figure.metric, figure.value, figure.low, figure.high, payload))
        self.store.audit(self.entry.run, rows)
        return rows

    def _other_rows(self, site: str, reply: AuditReply) -> bool:
        """Return whether a site's row count has changed, and record a change."""
        then = self.recorded[site]
        now = (reply.num_examples + reply.holdout_rows, reply.holdout_rows)
        if then.rows is None or now == (then.rows, then.holdout_rows):
            return False
        self._fault(site, render("experiments.audit.changed"))
        return True

    def _fault(self, site: str, reason: str, attack: str = "") -> None:
        """Note in the record that a site was not attacked."""
        text = f"{attack}: {reason}" if attack else reason
        before = self.faults.get(site, "")
        if text not in before:
            self.faults[site] = f"{before}; {text}" if before else text
            self.recorder.events("note", {site: f"not attacked: {text}"})


def _command(run: str, attacks: Sequence[str], sites: Sequence[str]) -> str:
    """Return the command for some attacks at some sites."""
    words = ["flfed", "audit", run]
    words += [f"--attack {name}" for name in attacks]
    words += [f"--site {name}" for name in sites]
    return " ".join(words)
