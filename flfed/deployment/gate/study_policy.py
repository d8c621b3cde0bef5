"""Checks of a study against a site's policy, approvals and frozen rows.

They come before any row is read.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from flfed.callbacks import Today, today_utc
from flfed.deployment.site_state import approval as decided
from flfed.deployment.site_state.approval import Approval, has_start
from flfed.deployment.site_state.cohorts import COHORT_SHA256, SumRecord, cohort_facts
from flfed.deployment.site_state.freeze import list_changed
from flfed.deployment.site_state.trusted_files import open_folder, other_coordinator, own_fingerprint, signing_key
from flfed.deployment.site_state.used_people import choice_refusal
from flfed.errors import FlfedError, TableError, UsageError
from flfed.federation.client.protection import privacy_refusal
from flfed.parsers import parse_toml
from flfed.paths import NAME, RUN, SiteFolder
from flfed.refusals import CONTROL, NotTakingPart, Refusal, refusal_of
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import parse_settings
from flfed.rows.data.site import Site, dataset_refusal, study_refusal
from flfed.rows.snapshots import snapshot
from flfed.study.kinds import LEAST_PARTIES
from flfed.study.study import Study
from flfed.updates.messages.kinds import asks

if TYPE_CHECKING:
    from flfed.deployment.gate.message_schema import StudyMessages
    from flfed.federation.client.masked import SumApproval

LOG = logging.getLogger("flfed.gate")


def study_policy_refusal(study: Study, site: Site, *, noise: bool = True) -> Refusal | None:
    """Return why a site's policy refuses a study, or None.

    It considers the rows, and how the study computes; `noise` as for `privacy_refusal`.
    """
    if elsewhere := dataset_refusal(study, site):
        return elsewhere
    if study.dataset.partition is not None:
        return Refusal("research-sites")
    names = {"strategy": study.strategy.name, "model": study.model.name, "mechanism": study.privacy.name}
    refused = site.policy.not_allowed(**names, codec=study.codec.name, rounds=study.most_rounds)
    refused = refused or study_refusal(study, site.serving(study.dataset.name))
    # A mechanism with unusable settings raises here; that is the site's answer, and no crash.
    try:
        return refused or privacy_refusal(study, site, noise=noise)
    except FlfedError as error:
        return Refusal("privacy-unusable", error=error)


def table_refusal(study: Study, site: Site) -> str:
    """Return why a site refuses a study by its rows, which are read as in a run; "" where it does not."""
    from flfed.federation.client.client import open_or_refuse

    try:
        open_or_refuse(site, study)
    except (NotTakingPart, TableError) as error:
        return str(error)
    return ""


def cohort_refusal(names: Sequence[str], site: Site, co_sites: Sequence[str] | None, study: Study) -> Refusal | None:
    """Return why a site refuses to compute with these sites, or None.

    Parameters
    ----------
    names : sequence of str
        All requested sites, this one among them.
    site : Site
    co_sites : sequence of str or None
        The others that the approval names; None where the policy needs no approval, and there is none.
    study : Study
    """
    # A name that occurs twice would make a cohort look larger than it is.
    cohort = set(names)
    # What parties with different columns send each other is no sum, from which one could subtract its own.
    least = LEAST_PARTIES if study.is_vertical else site.policy.least_cohort()
    if len(cohort) < len(names) or site.name not in cohort:
        return Refusal("site-unlisted")
    if len(cohort) < least:
        return Refusal("too-few-sites", asked=len(cohort), least=least)
    # One more site in a second run shows its rows by the difference: only approved sites take part.
    approved: Collection[str] = cohort if co_sites is None else co_sites
    for code, allowed_sites in (("sites-added", approved), ("no-co-site", site.policy.co_sites or cohort)):
        if others := sorted(cohort - {site.name, *allowed_sites}):
            return Refusal(code, sites=", ".join(others[:3]))
    return None


LONGEST_STUDY = 100_000
"""Characters of a study's text: it is parsed before any approval."""
STUDIES = 4
"""Studies whose rows stay in memory."""
REPEATS = 1_000_000
"""Limit of a study's seed."""
MOST_SITES = 10_000
"""Names that a run config may list."""


class Refused(FlfedError):
    """A refusal of a message by the site.

    The sentence is one of flfed's own and may leave.
    """


def reject(code: str, **facts: object) -> NoReturn:
    """Raise `Refused` with a refusal."""
    raise Refused(Refusal(code, **facts)) from None


def parsed(text: str) -> Study:
    """Return the study, or raise Refused with a sentence."""
    try:
        return Study.parse(text)
    except UsageError as error:
        # The parser's sentence may quote the study; it is cut, and control characters are removed.
        reject("study-unusable", error=CONTROL.sub(" ", str(error))[:300])
    except (RecursionError, ValueError, OverflowError):
        reject("study-unreadable")


def name_of(text: str) -> str:
    """Return the name in an unapproved study's text.

    An empty text where no name can be read.
    """
    try:
        name = parse_toml(text, "the study").get("name")
    except UsageError:
        return ""
    return name if isinstance(name, str) else ""


def _checked_text(config: Mapping[str, object]) -> str:
    """Return the study's text of a run config.

    It comes from the coordinator, so each value's type and size is checked before it is used. Raises `Refused`.
    """
    text = config.get("study")
    repeat = config.get("repeat", 0)
    run = config.get("run")
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_STUDY:
        reject("no-study")
    if type(repeat) is not int or not 0 <= repeat < REPEATS:
        reject("repeat-unfit", most=REPEATS - 1)
    if not isinstance(run, str) or not RUN.fullmatch(run):
        reject("run-unnamed")
    return text


def sha256_of(text: str) -> str:
    """Return the hash of a study's text.

    Every text has one, also one that could not be a file's text.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class StudyAdmission:
    """Admission of studies by policy, approval, rows and cohort.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
        As the institution installed it.
    today : callable
        Returns the date.

    Attributes
    ----------
    site : Site
        With the policy that was adopted last.
    """

    def __init__(self, folder: SiteFolder, site: Site, *, today: Today = today_utc) -> None:
        self.site = site
        self._folder = folder
        self._today = today
        self._policy_file = site.folder / "policy.toml" if site.folder else None
        self._policy_of_none = None if self._policy_file and self._policy_file.is_file() else site.policy
        self._admitted: OrderedDict[str, StudyMessages] = OrderedDict()
        self._rows: dict[str, str] = {}

    def messages(self, study_sha256: str) -> StudyMessages | None:
        """Return the messages of a study that was admitted."""
        return self._admitted.get(study_sha256)

    def rows_sha256(self, study_sha256: str) -> str:
        """Return the hash of the frozen rows that a study was checked with.

        An empty text where it was not.
        """
        return self._rows.get(study_sha256, "")

    def rows_in_line(self, study_sha256: str) -> str:
        """Return the hash of the rows for a ledger's line.

        It is empty for an analysis: the ledger's head leaves, and must not depend on exact rows. The line of the charge
        has a keyed hash.
        """
        messages = self.messages(study_sha256)
        if messages is not None and messages.study.is_covered:
            return ""
        return self.rows_sha256(study_sha256)

    def facts(self, config: Mapping[str, object]) -> dict[str, Any]:
        """Return the ledger's facts about a message of a run config.

        They can be written whatever the message holds.
        """
        text = str(config.get("study", ""))
        sha256 = sha256_of(text)
        repeat = config.get("repeat", 0)
        run = str(config.get("run", ""))[:100]
        facts: dict[str, Any] = {"study": "", "dataset": "", "study_sha256": sha256, "run": run}
        facts |= {"repeat": None, "rows_sha256": self.rows_in_line(sha256)}
        if type(repeat) is int and 0 <= repeat < REPEATS:
            facts["repeat"] = repeat
        messages = self.messages(sha256)
        if messages is not None:
            study = messages.study
            facts |= {"study": study.name, "dataset": study.dataset.name}
            facts |= messages.cohort
            if not study.train:
                facts["start_sha256"] = study.start_sha256
        return facts

    def adopt(self) -> bool:
        """Apply the present policy to studies; return whether it has changed.

        Studies that were admitted under the earlier one are admitted again. Raises `Refused` where it is unreadable.
        """
        policy = self.policy_now()
        if policy == self.site.policy:
            return False
        self._admitted.clear()
        if policy is None:
            reject("policy-unreadable", site=self.site.name)
        self.site = replace(self.site, policy=policy)
        return True

    def policy_now(self) -> Policy | None:
        """Return the present policy.

        None where its file is unreadable or gone. A site that came without a file keeps its policy.
        """
        try:
            if self._policy_file is not None and self._policy_file.exists():
                return parse_settings(Policy, self._policy_file)
            return self._policy_of_none
        except (FlfedError, OSError):
            return None

    def check(self, config: Mapping[str, object], kind: str) -> StudyMessages:
        """Return the messages of a run config's study.

        Raises `Refused` where the run config has no study that may be answered, or one without messages of this kind.
        """
        study, approval = self._study(config)
        if not asks(study, kind):
            reject("kind-of-another-study")
        if approval is None and (study.aggregation.sums_updates or study.is_vertical):
            # Without a person's approval no key is pinned: the sums could be of invented sites.
            reject("sums-not-approved")
        cohort: dict[str, Any] = {}
        if approval is not None:
            cohort = cohort_facts(approval.pins if approval.sums else {}, changed=approval.changed_sites)
        messages = self._admitted.get(sha256_of(study.text))
        if messages is not None and messages.cohort == cohort:
            return messages
        return self._messages(study, cohort)

    def sum_approval(self, study: Study, record: SumRecord) -> SumApproval | None:
        """Return the approval of a study's secure sums, or of its parties' keys, or None.

        It is None where its updates may cross in the clear. Raises `Refused` where the study may not be answered.
        """
        from flfed.federation.client.masked import SumApproval  # torch and Flower: a site's status needs neither

        approval = self.check_decision(study.text)
        if approval is None or not (approval.sums or study.is_vertical):
            return None
        cohort = cohort_facts(approval.pins, changed=False).get(COHORT_SHA256, "")
        return SumApproval(
            pinned=approval.pins,
            changed=approval.changed_sites or record.has_changed(study.dataset.name),
            allows_change=approval.changed_sites,
            key=signing_key(self._folder),
            has_keys=record.has_keys,
            trained_elsewhere=partial(record.trained_elsewhere, study.dataset.name, cohort),
        )

    def standing(self, approval: Approval) -> Refusal | None:
        """Return why a study would be refused now, or None.

        All facts at the site are considered, and its present policy.

        Neither the model is made nor its noise computed: both were at the approval, for this same version of flfed.
        Nothing else here needs torch or an accountant.
        """
        # The approval's own sites stand in for a run's: a person agreed to this cohort.
        names = ",".join(sorted({self.site.name, *approval.co_sites}))
        try:
            self.adopt()
            self._study({"study": approval.text, "run": "status", "sites": names}, noise=False)
        except Refused as error:
            return refusal_of(error)
        return None

    def _study(self, config: Mapping[str, object], *, noise: bool = True) -> tuple[Study, Approval | None]:
        """Return a run config's study, which may be answered, and its approval.

        Raises `Refused` where it has none.
        """
        text = _checked_text(config)
        # The decision comes first: a refused text is not parsed as a study.
        approval = self.check_decision(text)
        messages = self._admitted.get(sha256_of(text))
        study = messages.study if messages is not None else parsed(text)
        if study.expires is not None and self._today() > study.expires:
            reject("expired", day=study.expires.isoformat())
        if refused := study_policy_refusal(study, self.site, noise=noise):
            raise Refused(refused)
        if not has_start(self._folder, study):
            reject("start-absent")
        self._check_rows(study, approval)
        site_list = config.get("sites")
        names = str(site_list).split(",")
        if len(names) > MOST_SITES or not isinstance(site_list, str) or not all(map(NAME.fullmatch, names)):
            reject("sites-unnamed")
        # Approval and policy may each name the sites that may take part.
        named = None if approval is None else approval.co_sites
        if refused := cohort_refusal(names, self.site, named, study):
            raise Refused(refused)
        return study, approval

    def check_decision(self, text: str) -> Approval | None:
        """Return the approval of a study's exact text.

        None where the policy needs none. Raises `Refused` where the study may not be answered.
        """
        if decided.is_paused(self._folder):
            reject("paused")
        if why := open_folder(self._folder):
            LOG.warning("%s", why)
            reject("folders-unsafe", site=self.site.name)
        others: list[Approval] = []
        try:
            approval = decided.approval_of(self._folder, sha256_of(text))
            if approval is None:
                others = decided.approvals(self._folder)
        except FlfedError:
            reject("approvals-unsafe", site=self.site.name)
        if approval is None:
            self._check_unapproved(name_of(text), others)
        else:
            self._check_approval(approval)
        return approval

    def _check_approval(self, approval: Approval) -> None:
        """Refuse a study whose decision is not valid now."""
        if approval.decision != "approved":
            reject("decided-against", decision=approval.decision, day=approval.at[:10])
        # An approval is valid for its coordinator, and for no other.
        if other_coordinator(self._folder, approval.coordinator):
            reject("approved-other-coordinator")
        # Other sites pin the earlier key: with another one this site could not take part.
        if self._folder.site in approval.pins:
            own = ""
            with suppress(FlfedError):
                own = own_fingerprint(self._folder)
            if approval.pins.get(self.site.name) != own:
                reject("approved-other-key")

    def _check_unapproved(self, name: str, others: Sequence[Approval]) -> None:
        """Refuse a study without a decision, by its name, where the policy needs one.

        Also without a need for approval, a study that a person refused or withdrew stays refused when it is reworded.
        """
        free = self.site.policy.approval == "none"
        decisions = {other.decision for other in others if other.study == name}
        if free and decisions <= {"approved"}:
            return
        if name and decisions:
            reject("study-changed", study=name[:60])
        reject("not-approved")

    def _check_rows(self, study: Study, approval: Approval | None) -> None:
        """Refuse a study whose columns or rows have changed.

        They are compared with those of the approval.
        """
        schema_sha256 = datasets.load(study.dataset.name).schema.sha256()
        if approval is not None and approval.schema_sha256 != schema_sha256:
            reject("schema-changed-after-approval", dataset=study.dataset.name)
        try:
            rows = snapshot.read_facts(self.site.serving(study.dataset.name), self._folder.frozen)
            changed = rows is not None and list_changed(self._folder, rows)
        except FlfedError:
            reject("rows-unserved", site=self.site.name)
        if rows is None:
            reject("no-frozen-rows", dataset=study.dataset.name)
        if changed:
            reject("opt-outs-changed", site=self.site.name)
        # Also without an approval, rows that were frozen under another schema have another meaning.
        if rows.schema_sha256 != schema_sha256:
            reject("schema-changed-after-freeze", dataset=study.dataset.name)
        if approval is not None and rows.sha256 != approval.rows_sha256:
            reject("rows-changed")
        try:
            other = choice_refusal(self._folder, study, self.site, rows)
        except FlfedError:
            reject("use-unreadable")
        if other is not None:
            raise Refused(other)
        self._rows[study.sha256()] = rows.sha256

    def _messages(self, study: Study, cohort: Mapping[str, Any]) -> StudyMessages:
        from flfed.deployment.gate.message_schema import StudyMessages

        messages = StudyMessages(study, datasets.load(study.dataset.name).schema, self.site, cohort)
        try:
            _ = messages.model  # made once, now: a study whose model cannot be made is refused
        except FlfedError as error:
            reject("model-unmade", error=error)
        except (MemoryError, ValueError):
            reject("model-too-large")
        self._admitted[sha256_of(study.text)] = messages
        while len(self._admitted) > STUDIES:
            self._admitted.popitem(last=False)
        return messages
