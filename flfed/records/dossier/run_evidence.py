"""Facts of a run on its institutions, rules, messages and privacy."""

from __future__ import annotations

from flfed.records.document.document import limits
from flfed.records.dossier.record import HASHES, Finding, RunRecord
from flfed.records.reports.audit_headlines import gave_away
from flfed.records.reports.faults import fault_kind
from flfed.records.reports.narrative import glossary_of
from flfed.records.reports.privacy import bound_in_words
from flfed.records.text import moment
from flfed.words import render

SITES = "Sites"
PRIVACY = "Privacy"


def took_part(record: RunRecord) -> Finding | None:
    """Return the sites that took part."""
    names = [site.title or site.site for site in record.sites]
    if not names:
        return None
    return Finding("took-part", {"sites": len(names), "names": names}, SITES, ["sites.*.title"])


def one_study(record: RunRecord) -> Finding:
    """Return the study with its hash."""
    facts = {"study": record.run.study, "hash": record.content.study_sha256}
    return Finding("one-study", facts, render(HASHES), ["study-sha256", "study"])


def purpose(record: RunRecord) -> Finding | None:
    """Return the purpose that the study states."""
    return _stated(record, "purpose")


def legal_basis(record: RunRecord) -> Finding | None:
    """Return the legal basis that the study states."""
    return _stated(record, "legal-basis")


def _stated(record: RunRecord, key: str) -> Finding | None:
    text = record.setting(key)
    # A new study has such a text in its place until somebody writes one.
    if not text or text in (render("study.template.validation"), render("study.template.basis")):
        return None
    return Finding(key, {"text": str(text).rstrip(".")}, render(HASHES), ["study"])


def own_decision(record: RunRecord) -> Finding | None:
    """Return the number of institutions that let the study run; a simulation has none."""
    if not record.at_institutions or not record.sites:
        return None
    accepted = len(record.sites)
    facts = {"accepted": accepted, "refused": len(record.content.shown.sites) - accepted}
    return Finding("own-decision", facts, SITES, ["runs.*.engine", "sites.*.status"])


def quality(record: RunRecord) -> Finding:
    """Return the numbers of faults, flags and attacks."""
    kinds = [fault_kind(fault) for fault in record.run.faults]
    events = [event.kind for event in record.content.shown.events]
    facts = {
        "rejected": kinds.count("update rejected"),
        "refused": kinds.count("site refused"),
        "faults": kinds.count("fault"),
        "flags": events.count("flag"),
        "attacks": len({figure.attack for figure in record.audit}),
    }
    return Finding("quality", facts, SITES, ["report.faults", "events", "report.audit"])


def admitted(record: RunRecord) -> Finding | None:
    """Return when the coordinator admitted the institutions of the run."""
    days = sorted(member.admitted for member in record.own_members)
    if not days or not all(days):
        return None
    revoked = [member for member in record.own_members if member.revoked]
    facts = {"members": len(days), "first": moment(days[0]), "last": moment(days[-1]), "revoked": len(revoked)}
    return Finding("admitted", facts, "", ["members.*.admitted", "members.*.revoked"])


def identities(record: RunRecord) -> Finding | None:
    """Return the fingerprints of the institutions' keys."""
    keys = [f"{member.site} {member.gate_key}" for member in record.own_members if member.gate_key]
    if not keys or len(keys) < len(record.own_members):
        return None
    return Finding("identities", {"keys": keys}, "", ["members.*.gate_key"])


def link(record: RunRecord) -> Finding | None:
    """Return how institutions were connected; a simulation has no connections."""
    if not record.at_institutions:
        return None
    return Finding("link", {"engine": record.entry.engine}, render(HASHES), ["runs.*.engine"])


def glossary(record: RunRecord) -> Finding:
    """Return the number of terms that the report defines."""
    terms = glossary_of(record.content.shown.report, trains=record.content.shown.trains)
    return Finding("glossary", {"terms": len(terms)}, "Glossary", [])


def registered(record: RunRecord) -> Finding:
    """Return the entry of the run in the store."""
    facts = {"run": record.run.run, "started": moment(record.entry.started), "status": record.run.status}
    return Finding("registered", facts, render(HASHES), ["runs.*.run", "runs.*.started", "report.status"])


def transfers(record: RunRecord) -> Finding | None:
    """Return the messages and bytes by direction."""
    crossed = record.content.crossed
    if not crossed:
        return None
    facts = {
        "messages": sum(one.messages for one in crossed),
        "sent": sum(one.bytes for one in crossed if one.direction == "to-server"),
        "received": sum(one.bytes for one in crossed if one.direction == "to-site"),
    }
    return Finding("transfers", facts, PRIVACY, ["sent.*.messages", "sent.*.bytes"])


def versions(record: RunRecord) -> Finding | None:
    """Return the versions of the software, and the hash of flfed's code."""
    packages = [f"{name} {version}" for name, version in record.entry.versions.items()]
    if not packages or not record.code_sha256:
        return None
    facts = {"versions": ", ".join(sorted(packages)), "code": record.code_sha256}
    return Finding("versions", facts, render(HASHES), ["runs.*.versions", "runs.*.hashes"])


def output_control(record: RunRecord) -> Finding | None:
    """Return at how many institutions the policy controls outputs; a simulation has no institutions."""
    if not record.at_institutions or not record.sites:
        return None
    controlled = [site for site in record.sites if site.disclosure == "institution"]
    facts = {"controlled": len(controlled), "sites": len(record.sites)}
    finding = Finding("output-control", facts, SITES, ["sites.*.disclosure"])
    if len(controlled) < len(record.sites):
        return finding.unmet("output-control-lacking")
    return finding


def listed_outputs(record: RunRecord) -> Finding | None:
    """Return the number of kinds of output that no privacy guarantee covers."""
    uncovered = record.privacy.uncharged
    if not uncovered:
        return None
    facts = {"outputs": len(uncovered), "sites": len(record.sites)}
    return Finding("listed-outputs", facts, PRIVACY, ["report.privacy.uncharged"])


def attacks(record: RunRecord) -> Finding | None:
    """Return the attacks on the model, and how many figures exceed the guarantee or give rows away."""
    if not record.audit:
        return None
    names = sorted({figure.attack for figure in record.audit})
    beyond = [figure for figure in record.audit if gave_away(figure) or figure.verdict == "beyond the promise"]
    facts = {"attacks": len(names), "names": names, "figures": len(record.audit), "beyond": len(beyond)}
    finding = Finding("attacks", facts, PRIVACY, ["report.audit"])
    return finding.unmet("attacks") if beyond else finding


def weights(record: RunRecord) -> Finding | None:
    """Return what bounds the disclosure by the model's weights: the guarantee, else attacks without success."""
    if not record.content.shown.trains:
        return None
    privacy = record.privacy
    if privacy.epsilon is not None:
        facts = {
            "mechanism": str(privacy.mechanism),
            "unit": privacy.unit,
            "bound": bound_in_words(privacy),
            "runs": privacy.repeats,
        }
        return Finding("guarantee", facts, PRIVACY, ["report.privacy.epsilon", "report.privacy.mechanism"])
    return attacks(record) or Finding("unbounded", {}, PRIVACY, ["report.privacy.mechanism", "report.audit"], met=False)


def only_sums(record: RunRecord) -> Finding | None:
    """Return how updates were added up, where the coordinator sees only sums."""
    sums = record.privacy.sums()
    if sums.kind not in ("masked", "encrypted"):
        return None
    return Finding("secure-sums", {"kind": sums.kind}, PRIVACY, ["report.privacy.secure-sums"])


def duration(record: RunRecord) -> Finding | None:
    """Return the seconds of the run."""
    if record.run.seconds is None:
        return None
    return Finding("duration", {"seconds": record.run.seconds}, "", ["report.seconds"])


def stated_limits(record: RunRecord) -> Finding:
    """Return the number of limits that the report states."""
    section = limits(record.content)
    return Finding("limits", {"limits": len(section.says)}, section.title, [])


EVIDENCE = {
    "took-part": took_part,
    "one-study": one_study,
    "purpose": purpose,
    "legal-basis": legal_basis,
    "own-decision": own_decision,
    "quality": quality,
    "admitted": admitted,
    "identities": identities,
    "link": link,
    "glossary": glossary,
    "registered": registered,
    "transfers": transfers,
    "versions": versions,
    "output-control": output_control,
    "listed-outputs": listed_outputs,
    "attacks": attacks,
    "weights": weights,
    "secure-sums": only_sums,
    "duration": duration,
    "limits": stated_limits,
}
"""Evidence by the name that a sheet gives it."""
