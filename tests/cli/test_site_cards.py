"""`flfed coordinator cards`, `site cards` and `site approve --with LIST`, as people call them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.cards import LARGEST, CardList, read_cards
from flfed.deployment.site_state import approval
from flfed.paths import SiteFolder
from flfed.study.study import Study
from tests.terminal import in_terminal

TITLE = 'Heart <c> & "Ü"'
SITES = ("cleveland", "hungary", "switzerland")
Flfed = Callable[..., tuple[int, str, str]]


class Homes:
    """Machines of a coordinator and three sites, which have joined and been admitted."""

    def __init__(self, flfed: Flfed, root: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._flfed, self._root, self._monkeypatch = flfed, root, monkeypatch
        monkeypatch.chdir(root)
        self.list = root / "consortium.cards"
        self.at("coordinator", "coordinator", "init", "--title", TITLE, "--address", "localhost:4443")
        for site in SITES:
            self.at("coordinator", "coordinator", "invite", site)
            joined = json.loads(self.at(site, "site", "join", f"{site}.kit.zip", "--json"))
            typed = f"{site}={joined['node-key']}"
            self.at("coordinator", "coordinator", "admit", f"{site}.admission", "--fingerprint", typed)
            (root / site / "data").symlink_to(data)

    def go(self, machine: str) -> None:
        """Be at a machine."""
        self._monkeypatch.setenv("FLFED_HOME", str(self._root / machine))

    def at(self, machine: str, *words: object, code: int = 0) -> str:
        """Return what a command says at a machine, of both streams."""
        self.go(machine)
        found, out, err = self._flfed(*words)
        assert found == code, (words, out, err)
        return out + err


@pytest.fixture
def homes(flfed: Flfed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heart: Any, home: Path) -> Homes:
    root = tmp_path / "machines"
    root.mkdir()
    return Homes(flfed, root, home / "data", monkeypatch)


def summed(homes: Homes, changes: tuple[str, str] = ("", "")) -> Path:
    """Write a study with secure aggregation."""
    text = Study.load("heart-disease").text.replace(*changes)
    file = homes.list.with_name("summed.toml")
    file.write_text(text + '\n[privacy]\nsecure-aggregation = "on"\n')
    return file


def test_one_call_serves_all_approvals_of_all_sites(homes: Homes):
    said = homes.at("coordinator", "coordinator", "cards")
    assert "consortium.cards has the cards of 3 sites: cleveland, hungary, switzerland." in said
    cards = read_cards(homes.list)
    # The coordinator is not shown what the sites compare without it.
    assert cards.fingerprint() not in said
    study = summed(homes)
    for site in SITES:
        shown = homes.at(site, "site", "cards", site, homes.list)
        assert re.findall(r"(?:[a-z2-7]{4}-){10}[a-z2-7]{4}", shown) == [cards.fingerprint()]
        refused = homes.at(site, "site", "approve", study, "--site", site, "--with", homes.list, "--yes", code=2)
        others = ", ".join(name for name in SITES if name != site)
        assert f"{others} did not read out the fingerprint of this list" in refused
        # One reading each; what people hear has capitals and blanks.
        heard = cards.fingerprint().upper().replace("-", " ")
        done = homes.at(
            site, "site", "cards", site, homes.list, "--fingerprint", heard, "--from", others.replace(" ", ""), "--json"
        )
        facts = json.loads(done)
        assert facts["compared"] == others.split(", ") and facts["open"] == []
        assert facts["list-fingerprint"] == cards.fingerprint() and facts["cards"] == cards.gates
        homes.at(site, "site", "approve", study, "--site", site, "--with", homes.list, "--yes")
        (made,) = approval.approvals(SiteFolder(site))
        # The same pins as by reading in pairs.
        assert made.sums and made.pins == cards.gates and made.co_sites == tuple(others.split(", "))
        pairs = ",".join(f"{name}={cards.gates[name]}" for name in SITES)
        homes.at(site, "site", "approve", study, "--site", site, "--with", pairs, "--yes")
        assert approval.approvals(SiteFolder(site))[0].pins == made.pins


def test_the_dialogue_of_a_site_compares_the_list_before_it_approves(homes: Homes):
    homes.at("coordinator", "coordinator", "cards")
    # A list whose name has no dot is no site.
    file = homes.list.rename(homes.list.with_name("cards"))
    homes.go("cleveland")
    words = ("site", "setup", "cleveland", "--study", str(summed(homes)), "--with", file.name)
    typed = f"{read_cards(file).fingerprint()}\nhungary,switzerland\nlater\n"
    code, lines = in_terminal(*words, columns=200, typed=typed)
    shown = "\n".join(lines)
    assert code == 0 and "Type approve, refuse or later" in shown, shown
    assert shown.index("fingerprint") < shown.index("Purpose:")
    assert approval.approvals(SiteFolder("cleveland")) == []
    homes.at("cleveland", "site", "approve", homes.list.with_name("summed.toml"), "--with", "cards", "--yes")
    (made,) = approval.approvals(SiteFolder("cleveland"))
    assert made.pins == read_cards(file).gates


def test_a_study_of_some_sites_pins_these_and_one_of_a_site_without_a_card_is_refused(homes: Homes):
    homes.at("coordinator", "coordinator", "cards")
    cards = read_cards(homes.list)
    more = CardList(TITLE, {**cards.gates, "zurich": GATE})
    homes.list.write_bytes(more.content())
    reading = ("--fingerprint", more.fingerprint())
    homes.at("cleveland", "site", "cards", "cleveland", homes.list, *reading, "--from", "hungary,switzerland")
    named = ("[dataset]\n", '[dataset]\nsites = ["cleveland", "hungary", "switzerland"]\n')
    words = ("site", "approve", summed(homes, named), "--site", "cleveland", "--with", homes.list, "--yes")
    homes.at("cleveland", *words)
    (made,) = approval.approvals(SiteFolder("cleveland"))
    assert made.pins == cards.gates
    named = ("[dataset]\n", '[dataset]\nsites = ["cleveland", "hungary", "long-beach"]\n')
    summed(homes, named)
    assert "consortium.cards has no card of long-beach: the study needs it" in homes.at("cleveland", *words, code=2)
    summed(homes)
    assert "zurich did not read out the fingerprint of this list" in homes.at("cleveland", *words, code=2)


GATE = "d255-jrl3-avdk-svrf-e2zs-ilh6-lpr4-mfv5-tkxg"
READ = "5kuq-gtkz-ds3z-nf2h-4yhr-3wk4-mevv-ga5l-kkbs-npd4-uwob"


@pytest.mark.parametrize(("words", "expected"), [
    (("--fingerprint", GATE, "--from", "hungary"), "is the fingerprint of a gate, in nine groups; a list's has eleven"),
    (("--fingerprint", "hello", "--from", "hungary"), "is no fingerprint of a list: one has eleven groups"),
    (("--fingerprint", READ[:-1] + "a", "--from", "hungary"), "a character is wrong; let it be read out again"),
    (("--fingerprint", READ, "--from", "hungary"), "the other site has another list: it read 5kuq-"),
    (("--fingerprint", READ), "--fingerprint and --from go together"),
    (("--from", "hungary"), "--fingerprint and --from go together"),
])  # fmt: skip
def test_a_wrong_reading_is_refused_and_nothing_is_recorded(homes: Homes, words: tuple[str, ...], expected: str):
    homes.at("coordinator", "coordinator", "cards")
    assert expected in homes.at("cleveland", "site", "cards", "cleveland", homes.list, *words, code=2)
    assert not SiteFolder("cleveland").compared_cards.exists()


@pytest.mark.parametrize(("names", "expected"), [
    ("hungary,lyon", "'lyon' has no card in the list; other sites in it: hungary, switzerland"),
    ("cleveland", "no other site is named; without one the list was not compared"),
    (",", "no other site is named"),
])  # fmt: skip
def test_only_sites_of_the_list_can_have_read_it_out(homes: Homes, names: str, expected: str):
    homes.at("coordinator", "coordinator", "cards")
    reading = ("--fingerprint", read_cards(homes.list).fingerprint(), "--from", names)
    assert expected in homes.at("cleveland", "site", "cards", "cleveland", homes.list, *reading, code=2)
    assert not SiteFolder("cleveland").compared_cards.exists()


BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "nothing": (lambda text: "", "is no list of cards, as flfed coordinator cards writes it"),
    "a study": (lambda text: Study.load("heart-disease").text, "is no list of cards"),
    "another consortium's": (
        lambda text: text.replace(TITLE, "Lung"), "is a list of 'Lung', and cleveland has joined 'Heart <c> & \"Ü\"'"
    ),
    "a newer format": (lambda text: text.replace("format 1", "format 2"), "format 2 of a list of cards is unknown to"),
    "no consortium": (lambda text: text.replace("consortium: ", ""), "the second line does not name the consortium"),
    "a site twice": (lambda text: text + text.split("\n")[-2] + "\n", "switzerland has two cards"),
    "a wrong character": (
        lambda text: re.sub("(hungary: ..)(.)", lambda m: m[1] + ("a" if m[2] != "a" else "b"), text),
        "line 4: the fingerprint of hungary is damaged",
    ),
    "a bare name": (lambda text: text + "zurich\n", "line 6: the fingerprint of zurich is damaged"),
    "prose": (lambda text: text + "Yours sincerely\n", "line 6 is no card, as flfed coordinator cards writes it"),
    "another order": (lambda text: text + f"basel: {GATE}\n", "not in the order and form in which"),
    "one gate twice": (
        lambda text: text + re.sub(".*switzerland", "zurich", text, flags=re.DOTALL),
        "switzerland and zurich have the same fingerprint: one gate stands for one site",
    ),
    "one site": (lambda text: "\n".join(text.split("\n")[:3]) + "\n", "needs the cards of 2 sites or more, and has 1"),
    "too large": (lambda text: text + "x" * LARGEST, "a list of cards has at most 65,536 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_in_a_sentence_by_both_commands(homes: Homes, kind: str):
    homes.at("coordinator", "coordinator", "cards")
    change, expected = BAD[kind]
    homes.list.write_text(change(homes.list.read_text()))
    for words in (("cards", "cleveland", homes.list), APPROVE):
        said = homes.at("cleveland", "site", *words, code=2)
        assert expected in said and said.count("\n") == 1


APPROVE = ("approve", "heart-disease", "--site", "cleveland", "--with", "./consortium.cards", "--yes")


def test_bytes_that_are_no_text_and_files_that_are_not_there(homes: Homes):
    homes.list.write_bytes(b"flfed cards, format 1\nconsortium: \xff\n")
    assert "is no list of cards" in homes.at("cleveland", "site", *APPROVE, code=2)
    homes.list.unlink()
    assert "cannot be read (No such file or directory)" in homes.at("cleveland", "site", *APPROVE, code=2)
    homes.list.mkdir()
    assert "cannot be read (Is a directory)" in homes.at("cleveland", "site", "cards", "cleveland", homes.list, code=2)


def test_a_site_finds_its_own_card_gone_or_altered(homes: Homes):
    homes.at("coordinator", "coordinator", "cards")
    true = read_cards(homes.list)
    own = true.gates["cleveland"]
    swapped = {**true.gates, "cleveland": true.gates["hungary"], "hungary": own}
    without = {name: true.gates[name] for name in ("hungary", "switzerland")}
    for gates, expected in ((swapped, "Somebody altered the list, or this site made a new key"),
                            (without, "has no card of cleveland. Somebody left it out")):  # fmt: skip
        homes.list.write_bytes(CardList(TITLE, gates).content())
        for words in (("cards", "cleveland", homes.list), APPROVE):
            said = homes.at("cleveland", "site", *words, code=2)
            assert expected in said and own in said
    # A new key of the gate: the list has the former card.
    homes.list.write_bytes(true.content())
    SiteFolder("cleveland").signing_key.unlink()
    assert "no key to sign with yet: flfed site key" in homes.at(
        "cleveland", "site", "cards", "cleveland", homes.list, code=2
    )
    homes.at("cleveland", "site", "key", "cleveland")
    assert "made a new key" in homes.at("cleveland", "site", "cards", "cleveland", homes.list, code=2)


def test_the_coordinators_list_leaves_out_whom_it_cannot_list_and_says_so(homes: Homes):
    homes.go("coordinator")
    path = Path("coordinator/coordinator/sites/hungary.json")
    facts = json.loads(path.read_text())
    gate = facts.pop("gate-key")
    path.write_text(json.dumps(facts))
    facts = json.loads(homes.at("coordinator", "coordinator", "cards", "--output", "two.cards", "--json"))
    assert (sorted(facts["cards"]), facts["cardless"]) == (["cleveland", "switzerland"], ["hungary"])
    assert "No card, since no fingerprint of the gate is on record here: hungary." in homes.at(
        "coordinator", "coordinator", "cards", "--output", "two.cards"
    )
    homes.at("coordinator", "coordinator", "key", "hungary", gate)
    homes.at("coordinator", "coordinator", "revoke", "switzerland")
    facts = json.loads(homes.at("coordinator", "coordinator", "cards", "--output", "two.cards", "--json"))
    assert (sorted(facts["cards"]), facts["cardless"]) == (["cleveland", "hungary"], [])
    before = Path("two.cards").read_bytes()
    homes.at("coordinator", "coordinator", "revoke", "hungary")
    said = homes.at("coordinator", "coordinator", "cards", "--output", "two.cards", code=2)
    assert "needs the cards of 2 sites or more, and has 1" in said and Path("two.cards").read_bytes() == before
    assert Path("two.cards").stat().st_mode & 0o777 == 0o644


def test_a_gate_of_another_site_is_refused_at_once_and_a_wrong_record_is_removed(homes: Homes):
    status = json.loads(homes.at("coordinator", "coordinator", "status", "--json"))
    cleveland, hungary = [site["gate-key"] for site in status["sites"][:2]]
    key = ("coordinator", "key", "hungary")
    said = homes.at("coordinator", *key, cleveland.upper(), code=2)
    assert "site 'cleveland' has the gate with this fingerprint" in said and said.count("\n") == 1
    assert said.endswith("flfed coordinator key cleveland none\n")
    # Nothing was written: the list is whole, and the site's own fingerprint is no other's.
    assert homes.at("coordinator", "coordinator", "cards")
    assert json.loads(homes.at("coordinator", *key, hungary, "--json"))["before"] == hungary
    # Two records that were exchanged are put right.
    homes.at("coordinator", "coordinator", "key", "cleveland", "none")
    homes.at("coordinator", *key, cleveland)
    assert "'hungary' has the gate" in homes.at("coordinator", "coordinator", "key", "cleveland", cleveland, code=2)
    removed = homes.at("coordinator", *key, "none")
    assert f"fingerprint of its gate is none\nBefore it was {cleveland}" in removed
    homes.at("coordinator", "coordinator", "key", "cleveland", cleveland)
    assert json.loads(homes.at("coordinator", "coordinator", "cards", "--json"))["cardless"] == ["hungary"]


def test_at_a_terminal_a_person_types_the_reading_and_who_read_it(homes: Homes):
    homes.at("coordinator", "coordinator", "cards")
    reading = read_cards(homes.list).fingerprint()
    homes.go("cleveland")
    words, folder = ("site", "cards", "cleveland", "consortium.cards"), SiteFolder("cleveland")
    code, shown = in_terminal(*words, columns=200, typed="later\n")
    assert code == 0 and not folder.compared_cards.exists()
    assert shown[-1].endswith("Open, and pinned by no approval with this list: hungary, switzerland.")
    code, shown = in_terminal(*words, columns=200, typed=f"{READ}\n")
    assert code == 2 and "the other site has another list" in "\n".join(shown)
    code, shown = in_terminal(*words, columns=200, typed=f"{reading}\nhungary\n")
    assert code == 0 and json.loads(folder.compared_cards.read_text())["sites"] == ["hungary"]
    assert shown[-1].endswith("Open, and pinned by no approval with this list: switzerland.")
    code, shown = in_terminal(*words, columns=300, typed=f"{reading}\nswitzerland cleveland\n")
    assert code == 0 and "Read out by hungary, switzerland. To pin them: flfed site approve STUDY" in shown[-1]
    # Once compared, it asks for no call.
    code, shown = in_terminal(*words, columns=200, typed="")
    assert code == 0 and not any(line.startswith(("Type", "Compare it", "Never")) for line in shown)
