"""An approval decides by the pinned sites whether updates leave for sums only, and says what that means."""

import json
import stat
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from flfed.cli.commands import app
from flfed.deployment.operator.secure_sums import Agreement, agreed, has_sums, read_sites
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.approval import Approval
from flfed.deployment.site_state.cohorts import cohort_facts, note_cohort
from flfed.deployment.site_state.trusted_files import make_signing_key, own_fingerprint
from flfed.errors import UsageError
from flfed.paths import SiteFolder
from flfed.records.site_state import state_of
from flfed.refusals import Refusal
from flfed.rows.data.site import Site
from flfed.signatures import gate_fingerprint, signing_public
from flfed.study.study import Study
from tests.approval_text import details
from tests.deployment.conftest import Gated

SITE = SiteFolder("site-01")
PINS = {
    name: gate_fingerprint(signing_public(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)))
    for n, name in enumerate(("site-02", "site-03", "site-04", "site-05"))
}
ASKED = '\n[privacy]\nsecure-aggregation = "{}"\n'


def study(text: str, asked: str) -> Study:
    return Study.parse(text + ASKED.format(asked))


def pinned(*names: str) -> dict[str, str]:
    return {name: PINS[name] for name in names}


@pytest.fixture
def own() -> str:
    """The site's gate with its key."""
    return make_signing_key(SITE)[0]


@pytest.mark.parametrize(
    ("asked", "expected"), [("off", [False] * 4), ("auto", [False, False, True, True]), ("on", [True] * 4)]
)
def test_auto_has_sums_from_three_sites_on(small_study: str, asked: str, expected: list[bool]):
    assert [has_sums(study(small_study, asked), taking_part) for taking_part in (1, 2, 3, 20)] == expected


def test_all_who_take_part_are_pinned_the_site_too(small_study: str, own: str):
    for asked in ("auto", "on"):
        found = agreed(SITE, study(small_study, asked), pinned("site-03", "site-02"))
        assert found == Agreement(True, {"site-01": own, **pinned("site-02", "site-03")})
        assert list(found.pins) == ["site-01", "site-02", "site-03"]
    # One list for all sites, with each one's own in it, is a list that each of them may use.
    whole = agreed(SITE, study(small_study, "on"), {"site-01": own, **pinned("site-02", "site-03")})
    assert whole == found


def test_without_sums_an_approval_is_as_it_was(small_study: str):
    plain = dict.fromkeys(("site-02", "site-03"), "")
    assert agreed(SITE, study(small_study, "off"), plain) == Agreement()
    assert agreed(SITE, study(small_study, "auto"), {"site-02": ""}) == Agreement()
    # Neither needs a key of the gate, and a fingerprint that is named is written down.
    assert not SITE.signing_key.exists()
    assert agreed(SITE, study(small_study, "off"), pinned("site-02")) == Agreement(pins=pinned("site-02"))


@pytest.mark.parametrize(("asked", "sites", "expected"), [
    ("on", {"site-02": PINS["site-02"]}, "3 sites or more must take part, this one counted: name at least two"),
    ("on", {"site-02": "", "site-03": ""}, "of site-02, site-03 the fingerprint of the gate is missing. Name "
     "it by --with site-02=FINGERPRINT,site-03=FINGERPRINT, each as the people there read it out"),
    ("auto", {"site-02": "", "site-03": PINS["site-03"]}, "of site-02 the fingerprint of the gate is missing"),
    ("on", {"site-02": PINS["site-02"], "site-03": PINS["site-02"]}, "site-02 and site-03 have the same"),
    ("on", {**pinned("site-02", "site-03"), "site-01": PINS["site-04"]}, "this site's own fingerprint is "),
])  # fmt: skip
def test_what_gives_no_right_to_sums_is_refused_with_what_to_do(small_study, own, asked, sites, expected):
    with pytest.raises(UsageError) as error:
        agreed(SITE, study(small_study, asked), sites)
    assert expected in str(error.value)


def test_another_sites_fingerprint_may_not_be_this_sites_own(small_study: str, own: str):
    with pytest.raises(UsageError, match="site-03 and site-01 have the same fingerprint"):
        agreed(SITE, study(small_study, "on"), {**pinned("site-02"), "site-03": own})


def test_a_site_without_a_key_is_told_how_to_make_one(small_study: str):
    with pytest.raises(UsageError, match="no key to sign with yet: flfed site key site-01"):
        agreed(SITE, study(small_study, "on"), pinned("site-02", "site-03"))


def test_sites_and_fingerprints_are_read_as_a_person_types_them():
    said = PINS["site-02"]
    assert read_sites(f"site-02={said.upper()} , site-03") == {"site-02": said, "site-03": ""}
    assert read_sites(f"site-02={said.replace('-', ' ')}") == {"site-02": said}
    last = "a" if said[-1] != "a" else "b"
    for text, expected in {
        f"site-02={said[:-1]}{last}": "--with site-02: .* a character is wrong; let it be read out again",
        "site-02=": "--with site-02: .* nine groups of four",
        f"site-02=SHA256:{'a' * 43}": "nine groups of four",
        f"Site-02={said}": "a site's name is of a-z",
        f"site-02={said},site-02={PINS['site-03']}": "named twice, and not the same",
        f"site-02={said},site-02": "named twice, and not the same",
        "site-02,,site-03": "a site's name is of a-z",
    }.items():
        with pytest.raises(UsageError, match=expected):
            read_sites(text)


def written(gated: Gated, **changes: Any) -> Approval:
    own = make_signing_key(gated.folder)[0]
    names = [site.name for site in gated.others]
    pins = {gated.site.name: own, **{name: PINS[name] for name in names}}
    return gated.approve(**{"sums": True, "pins": pins, **changes})


def test_an_approval_keeps_what_was_agreed_and_its_file_says_it(gated: Callable[..., Gated]):
    site = gated()
    made = written(site, changed_sites=True)
    path = site.folder.approvals / f"{site.study.sha256()}.json"
    found = approval.approval_of(site.folder, site.study.sha256())
    assert found == made and found is not None and found.sums and found.changed_sites
    assert json.loads(path.read_text())["pins"] == made.pins and stat.S_IMODE(path.stat().st_mode) == 0o600
    (withdrawn,) = approval.withdraw(site.folder, site.study.name, by="Dr Kim")
    assert (withdrawn.sums, withdrawn.pins) == (True, made.pins)


@pytest.mark.parametrize("changed", [
    {"sums": "yes"}, {"sums": 1}, {"pins": []}, {"pins": "x"}, {"pins": {"site-02": 7}}, {"changed-sites": "yes"},
    {"changed-sites": 1}, {"study": ["s"]}, {"co-sites": "site-02"}, {"at": True},
], ids=str)  # fmt: skip
def test_an_approval_whose_file_was_changed_is_none(gated: Callable[..., Gated], changed: dict[str, Any]):
    site = gated()
    facts = json.loads(written(site).to_json())
    assert Approval.from_json(json.dumps(facts).encode()).sums
    with pytest.raises(ValueError):
        Approval.from_json(json.dumps(facts | changed).encode())


def test_sums_are_never_written_down_with_a_site_that_is_not_pinned(gated: Callable[..., Gated]):
    site = gated()
    own = make_signing_key(site.folder)[0]
    names = [other.name for other in site.others]
    for pins in (None, {}, {name: PINS[name] for name in names}, {site.site.name: own, "site-05": PINS["site-05"]}):
        with pytest.raises(ValueError, match="a fingerprint of each site that takes part"):
            site.approve(sums=True, pins=pins)
    assert not any(one.sums for one in approval.approvals(site.folder))


def test_the_gate_holds_an_approval_to_the_key_that_the_other_sites_pin(gated: Callable[..., Gated]):
    site = gated()
    made = written(site)
    check = site.gate._studies.check_decision
    assert check(site.study.text) == made
    site.folder.signing_key.unlink()
    for _ in range(2):
        with pytest.raises(Exception, match="the gate's key was changed after the approval") as error:
            check(site.study.text)
        assert error.value.args[0] == Refusal("approved-other-key")
        assert site.gate._studies.standing(made) == Refusal("approved-other-key")
        make_signing_key(site.folder)
    # A plain approval needs no key.
    site.approve()
    site.folder.signing_key.unlink()
    assert check(site.study.text) is not None


def words(site: Site, asked: Study, sites: dict[str, str], **given: Any) -> str:
    agreement = agreed(SITE, asked, sites, **given)
    return "\n".join(details(asked, site, list(sites), "Heart consortium", agreement=agreement))


def test_the_words_say_what_sums_mean_here(small_sites: Callable[..., list[Site]], small_study: str, own: str):
    (site,) = small_sites(1)
    asked = study(small_study, "on")
    whole = words(site, asked, PINS)
    for said in (
        "Sums: secure aggregation adds up the updates.",
        "the sum over all 5 sites that take part, this one included, and no update of one site",
        "subtracts its own update from such a sum: if all others do, the rest is this site's update",
        f"Pinned: site-02 ({PINS['site-02']}), site-03 ({PINS['site-03']})",
        f"Read this site's fingerprint to each of them: {own}",
        "All of these sites must approve with the same fingerprints",
        "Same sites: all studies on small have their sums over these sites, or none.",
        "the coordinator's memory never holds this site's own",
    ):
        assert said in whole, said
    assert "uses no secure aggregation" not in whole and "holds this site's own updates" not in whole
    changed = "Changed: sums of small may be over other sites than before."
    assert changed not in whole and changed in words(site, asked, PINS, changed_sites=True)


def test_the_words_of_a_plain_study_are_as_they_were_and_auto_says_why_there_are_no_sums(small_sites, small_study):
    (site,) = small_sites(1)
    plain = words(site, study(small_study, "off"), {"site-02": "", "site-03": ""})
    assert plain.replace(study(small_study, "off").sha256(), "") == words(
        site, Study.parse(small_study), {"site-02": "", "site-03": ""}
    ).replace(Study.parse(small_study).sha256(), "")
    assert "adds no noise and uses no secure aggregation" in plain and "Sums: " not in plain
    two = words(site, study(small_study, "auto"), {"site-02": ""})
    assert "with 3 sites or more (secure aggregation 'auto'). Here 2 take part" in two
    assert "adds no noise and uses no secure aggregation" in two


BEFORE: dict[str, dict[str, Any]] = {
    "sums over the same sites": {"sums": ("site-02", "site-03")}, "nothing": {},
    "sums over more sites": {"sums": ("site-02", "site-03", "site-04"), "why": "were over other sites before"},
    "alone": {"sums": (), "why": "left this site alone before"},
    "another dataset": {"sums": (), "dataset": "other"},
}  # fmt: skip


@pytest.mark.parametrize("before", BEFORE)
def test_other_sites_than_a_dataset_had_before_need_a_word_of_their_own(small_study: str, own: str, before: str):
    case = BEFORE[before]
    if "sums" in case:
        pins = {"site-01": own, **pinned(*case["sums"])}
        cohort = cohort_facts(pins, changed=False) if case["sums"] else {}
        with state_of(SITE).transaction() as step:
            note_cohort(step.tables, {"dataset": case.get("dataset", "small"), **cohort}, "")
    asked, sites = study(small_study, "on"), pinned("site-02", "site-03")
    if "why" in case:
        with pytest.raises(UsageError, match=case["why"]):
            agreed(SITE, asked, sites)
    else:
        assert not agreed(SITE, asked, sites).changed_sites
    assert agreed(SITE, asked, sites, changed_sites=True).changed_sites
    # The other way round, too.
    if case.get("sums"):
        with pytest.raises(UsageError, match="were over other sites before"):
            agreed(SITE, Study.parse(small_study), sites)


def test_a_change_of_sites_withdraws_earlier_approvals_of_the_dataset(gated: Callable[..., Gated]):
    site = gated()
    earlier = written(site)
    other = site.study.replace({"name": "other"})
    own = make_signing_key(site.folder)[0]
    pins = {site.site.name: own, **pinned("site-02", "site-04")}
    site.approve(other, co_sites=["site-02", "site-04"], sums=True, pins=pins, changed_sites=True)
    found = {one.study: one.decision for one in approval.approvals(site.folder)}
    assert found == {earlier.study: "withdrawn", "other": "approved"}


@pytest.fixture
def run(heart: Any, tmp_path: Any) -> Callable[..., Result]:
    """A function that calls `flfed site` for Cleveland and a study with sums."""
    file = tmp_path / "summed.toml"
    file.write_text(Study.load("heart-disease").text + ASKED.format("auto"))

    def call(*words: str, asked: bool = True) -> Result:
        return CliRunner().invoke(app, ["site", *words[:1], *([str(file)] if asked else []), *words[1:]])

    return call


WITH = ",".join(f"{name}={said}" for name, said in zip(("hungary", "switzerland", "long-beach"), PINS.values()))


def test_the_command_pins_and_decides_for_sums(run: Callable[..., Result]):
    folder = SiteFolder("cleveland")
    options = ("--site", "cleveland", "--yes", "--by", "Dr Kim")
    refused = run("approve", *options, "--with", WITH)
    assert "no key to sign with yet" in str(refused.exception) and not folder.approvals.exists()
    own = make_signing_key(folder)[0]
    missing = run("approve", *options, "--with", "hungary,switzerland,long-beach")
    assert "the fingerprint of the gate is missing" in str(missing.exception) and not folder.approvals.exists()
    said = run("approve", *options, "--with", WITH, "--changed-sites", "--all")
    assert said.exit_code == 0, said.output
    for word in (f"hungary ({PINS['site-02']})", "Changed: sums of heart-disease", "is approved"):
        assert word in said.output
    (made,) = approval.approvals(folder)
    assert made.sums and made.changed_sites and made.pins["cleveland"] == own
    assert sorted(made.pins) == ["cleveland", "hungary", "long-beach", "switzerland"]
    (shown,) = json.loads(run("status", "cleveland", "--json", asked=False).stdout)["studies"]
    assert (shown["sums"], shown["pins"], shown["changed-sites"]) == (True, made.pins, True)
    assert shown["reason"] == "" and own_fingerprint(folder) == own
    facts = json.loads(run("approve", *options, "--with", "hungary", "--json").stdout)
    assert (facts["sums"], facts["pins"], facts["changed-sites"]) == (False, {}, False)


def test_the_command_writes_a_plain_approval_where_the_study_asks_for_no_sums(heart: Any):
    words = ["site", "approve", "heart-disease", "--site", "cleveland", "--with", "hungary,switzerland", "--yes"]
    said = CliRunner().invoke(app, [*words, "--all"])
    assert said.exit_code == 0 and "uses no secure aggregation" in said.output
    assert not approval.approvals(SiteFolder("cleveland"))[0].sums


def test_the_words_of_ciphertexts_say_who_can_read_an_update(small_sites, small_study, own):
    (site,) = small_sites(1)
    asked = study(small_study, "ckks")
    assert has_sums(asked, taking_part=2)
    found = words(site, asked, pinned("site-02", "site-03"))
    for said in (
        "updates leave under homomorphic encryption (CKKS)",
        "one site, each in its turn, opens the sum of one part from each of the 3 sites, this one included",
        "All 3 sites share one key, this one included, and this site makes it",
        "One site that colludes with the coordinator can read the updates of every site",
        f"Pinned: site-02 ({PINS['site-02']})",
        "A coordinator and a site together can read each site's update, and craft models.",
        "under homomorphic encryption reads each site's update",
    ):
        assert said in found
    masked = ("number of rows of each site", "subtracts its own update", "in which a site drops out", "rounds, masked")
    for other in masked:
        assert other not in found
