"""A coordinator that hands out altered lists of cards: each shows at the site or in the call, before a gate answers."""

import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from flfed.deployment.cards import (
    CardList,
    note_comparison,
    open_sites,
    parse_cards,
    pins_of_cards,
    read_cards,
    read_own_cards,
)
from flfed.errors import UsageError
from flfed.paths import SiteFolder
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.signatures import cards_fingerprint, gate_fingerprint
from flfed.study.study import Study
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.train import TRAIN
from tests.deployment.summing import Consortium, Impostor, LyingServer, masked, said
from tests.deployment.test_lying_server import unmasked

TITLE = "Heart consortium"
FIRST = "site-01"
FIRST_KEY = 5000
OTHER_GATE = Refusal("run-key-other-gate", site="site-02")


class Scene:
    """Three gates and a site of the server's own, which all of them pin."""

    def __init__(self, sites: list[Site], study: Study) -> None:
        self.own = Impostor("x-00")
        self.gated = Consortium(sites, study, {"x-00": self.own.fingerprint})
        self.all, self.honest = sorted(self.gated.pins), sorted(self.gated.sites)

    def server(self, number: int = 1) -> LyingServer:
        """Return the server of one run."""
        return LyingServer(self.gated, f"20261120-{number:06d}-aaaa")

    def enter(self, server: LyingServer, *impostors: Impostor) -> dict[str, str]:
        """Give all gates the keys of a run, some of them the server's, and return what they say."""
        shown = {one.name: one.signed(server.study, server.run) for one in (self.own, *impostors)}
        return {site: said(reply) for site, reply in server.keys(shown=shown).items()}


@pytest.fixture
def found(small_sites: Callable[..., list[Site]], small_study: str) -> Scene:
    study = Study.parse(small_study).replace({"secure-aggregation": "on", "strategy.rounds": 3})
    return Scene(small_sites(3, rows=60, policy=Policy(disclosure="open", resplit=True)), study)


def fingerprint_of(number: int) -> str:
    """Return the fingerprint of a key that somebody made up."""
    return gate_fingerprint(number.to_bytes(32, "big").hex())


def hand_out(scene: Scene, gates: Mapping[str, str], tmp_path: Path, name: str = "consortium") -> Path:
    """Write a list as the coordinator sends it, to sites that have joined it."""
    for site in scene.honest:
        terms = SiteFolder(site).terms
        terms.write_text(f'coordinator = "{TITLE}"\n')
        terms.chmod(0o640)
    file = tmp_path / f"{name}.cards"
    file.write_bytes(CardList(TITLE, dict(gates)).content())
    return file


def compare(scene: Scene, file: Path, reading: str) -> None:
    """Let people of all sites read what they see in one call."""
    for site in scene.honest:
        folder = scene.gated.folders[site]
        note_comparison(folder, read_own_cards(folder, file), reading, ",".join(scene.all), by="Dr Kim")


def test_a_compared_list_gives_the_pins_of_reading_in_pairs(found: Scene, tmp_path: Path):
    file = hand_out(found, found.gated.pins, tmp_path)
    # Four sites: four readings in one call, and not twelve.
    compare(found, file, read_cards(file).fingerprint())
    for site in found.honest:
        pins = pins_of_cards(found.gated.folders[site], file, ())
        assert pins == found.gated.pins
        found.gated.approve(site, pins=pins)
    server = found.server()
    assert set(found.enter(server).values()) == {""}
    total = server.crafted(found.own)
    assert {said(server.train(site, total=total)) for site in found.honest} == {""}
    # A study that names fewer sites pins these alone.
    subset = ["site-01", "site-02", "x-00"]
    pins = pins_of_cards(found.gated.folders[FIRST], file, subset)
    assert pins == {name: found.gated.pins[name] for name in subset}


def test_a_key_of_the_coordinators_shows_in_the_call_and_its_run_is_refused_at_every_gate(found: Scene, tmp_path: Path):
    intruder = Impostor("site-02")
    true = hand_out(found, found.gated.pins, tmp_path)
    altered = hand_out(found, {**found.gated.pins, "site-02": intruder.fingerprint}, tmp_path, "altered")
    # The first site's card is unchanged, so that only the call can tell.
    folder = found.gated.folders[FIRST]
    seen, heard = read_own_cards(folder, altered).fingerprint(), read_cards(true).fingerprint()
    assert seen != heard
    with pytest.raises(UsageError, match=f"another list: it read {heard}, and this list's fingerprint is {seen}"):
        note_comparison(folder, read_own_cards(folder, altered), heard, ",".join(found.all), by="Dr Kim")
    with pytest.raises(UsageError, match="site-02, site-03, x-00 did not read out the fingerprint of this list"):
        pins_of_cards(folder, altered, ())
    # At the site whose card it is, the command finds it.
    with pytest.raises(UsageError, match=f"has the card {intruder.fingerprint} for site-02, and .* of this gate is"):
        read_own_cards(found.gated.folders["site-02"], altered)
    # A run with that key: the gates that pinned by the true list take none of it.
    refusals = found.enter(found.server(), intruder)
    assert all(refusals.values()) and refusals["site-01"] == refusals["site-03"] == OTHER_GATE
    # The site that was handed the altered list has no approval, and answers nothing.
    for path in folder.approvals.iterdir():
        path.unlink()
    found.gated.restart(FIRST)
    server = found.server(2)
    asked = EnrolRequest(dataset="small", schema_sha256=server.schema.sha256())
    assert said(server.ask(FIRST, ENROL, asked)) == Refusal("not-approved")


def test_a_site_that_approved_by_an_altered_list_is_alone_with_the_servers_key(found: Scene):
    intruder = Impostor("site-02")
    # Nobody compared: one site pins by its own list, the others by theirs.
    altered = {**found.gated.pins, "site-02": intruder.fingerprint}
    found.gated.approve(FIRST, pins=altered)
    found.gated.restart(FIRST)
    # The one with the altered list takes the server's key and is alone with it: the sum needs all.
    refusals = found.enter(found.server(), intruder)
    assert [site for site, why in refusals.items() if not why] == [FIRST]
    refusals = found.enter(found.server(2))
    unshared = str(Refusal("key-unsealed", site=FIRST))
    assert refusals.pop(FIRST) == OTHER_GATE and set(refusals.values()) == {unshared}


def names_alone(content: bytes) -> str:
    """Return a wrong fingerprint: of the sites' names, without their gates."""
    return cards_fingerprint("\n".join(parse_cards(content, Path("x")).gates).encode())


def test_a_fingerprint_over_names_alone_gives_a_sites_update_away(found: Scene, tmp_path: Path):
    others = found.honest[1:]
    true = hand_out(found, found.gated.pins, tmp_path)
    impostors = {name: Impostor(name) for name in others}
    altered = found.gated.pins | {name: one.fingerprint for name, one in impostors.items()}
    file = hand_out(found, altered, tmp_path, "altered")
    # By the wrong fingerprint the call finds nothing; by the right one it does.
    assert names_alone(file.read_bytes()) == names_alone(true.read_bytes())
    assert read_cards(file).fingerprint() != read_cards(true).fingerprint()
    found.gated.approve(FIRST, pins=altered)
    found.gated.restart(FIRST)
    # The coordinator has the keys in all other names, and takes the masks of the first site off.
    server = found.server()
    assert found.enter(server, *impostors.values())[FIRST] == ""
    request = server.request(total=server.crafted(found.own))
    vector = masked(server.ask(FIRST, TRAIN, request))
    assert unmasked(server, {**impostors, "x-00": found.own}, vector, request) == 1


GATES = {"basel": fingerprint_of(1), "lyon": fingerprint_of(2), "oslo": fingerprint_of(3)}
LIES = {
    "another key": GATES | {"lyon": fingerprint_of(9)},
    "one left out": {name: GATES[name] for name in ("basel", "oslo")},
    "one added": GATES | {"porto": fingerprint_of(9)},
    "two swapped": GATES | {"lyon": GATES["oslo"], "oslo": GATES["lyon"]},
    "another name": {"basel": GATES["basel"], "lyons": GATES["lyon"], "oslo": GATES["oslo"]},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_list_that_lies_about_other_sites_has_another_fingerprint(lie: str):
    fingerprints = {CardList(TITLE, gates).fingerprint() for gates in (GATES, LIES[lie])}
    assert len(fingerprints) == 2
    assert CardList("Heart  consortium", GATES).fingerprint() not in fingerprints


@pytest.mark.parametrize(("lie", "expected"), [
    ("another key", "has the card .* for lyon, and the fingerprint of this gate is"),
    ("one left out", "has no card of lyon. Somebody left it out"),
    ("two swapped", "has the card .* for lyon, and the fingerprint of this gate is"),
    ("another name", "has no card of lyon"),
])  # fmt: skip
def test_a_site_finds_a_lie_about_its_own_card_by_itself(
    lie: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLFED_HOME", str(tmp_path))
    folder = SiteFolder("lyon")
    folder.make()
    folder.terms.write_text(f'coordinator = "{TITLE}"\n')
    folder.terms.chmod(0o640)
    monkeypatch.setattr("flfed.deployment.cards.own_fingerprint", lambda folder: GATES["lyon"])
    file = tmp_path / "x.cards"
    file.write_bytes(CardList(TITLE, LIES[lie]).content())
    with pytest.raises(UsageError, match=expected):
        read_own_cards(folder, file)
    file.write_bytes(CardList(TITLE, GATES).content())
    assert read_own_cards(folder, file) == CardList(TITLE, GATES)


def joined(content: bytes) -> str:
    """Return a wrong fingerprint: of names and gates one after the other, in the order of the file, without lengths."""
    lines = [line.split(": ") for line in content.decode().splitlines()[2:]]
    names, gates = ("".join(part) for part in zip(*lines))
    return cards_fingerprint((names + gates).encode())


def test_a_fingerprint_without_lengths_or_with_the_files_order_fails_in_both_ways():
    one = CardList(TITLE, {"oslo": GATES["oslo"], "p": GATES["basel"], "qr": GATES["lyon"]})
    other = CardList(TITLE, {"oslo": GATES["oslo"], "pq": GATES["basel"], "r": GATES["lyon"]})
    assert joined(one.content()) == joined(other.content())
    assert one.fingerprint() != other.fingerprint()
    # The same cards in another order: two fingerprints there, and here one of the list, whose file has one order.
    content = one.content()
    head, rows = content.splitlines(keepends=True)[:2], content.splitlines(keepends=True)[2:]
    turned = b"".join([*head, *reversed(rows)])
    assert joined(turned) != joined(content)
    assert CardList(TITLE, dict(reversed(one.gates.items()))).fingerprint() == one.fingerprint()
    with pytest.raises(UsageError, match="not in the order and form"):
        parse_cards(turned, Path("x"))


def forty_bits(content: bytes) -> bytes:
    """Return a wrong fingerprint: of five bytes."""
    return hashlib.sha256(b"flfed cards " + content).digest()[:5]


def test_of_forty_bits_a_coordinator_finds_two_lists_with_one_fingerprint():
    # It has two sites of its own, x and y. With 1,100 keys each, 2^20 lists have lyon's gate and as many a key of its
    # own in lyon's place; of 2^40 fingerprints, one pair is expected to be the same. Of five beginnings that were
    # tried with 1,500 keys, this one has a pair among the first 400, so that the test takes a second.
    keys = [f"{{}}: {fingerprint_of(number)}\n" for number in range(FIRST_KEY, FIRST_KEY + 400)]
    gates = (GATES, GATES | {"lyon": fingerprint_of(9)})
    lasts = [key.format("y").encode() for key in keys]
    digests = []
    for of_one in gates:
        begun = hashlib.sha256(b"flfed cards " + CardList(TITLE, of_one).content())
        found = bytearray()
        for key in keys:
            with_x = begun.copy()
            with_x.update(key.format("x").encode())
            for last in lasts:
                whole = with_x.copy()
                whole.update(last)
                found += whole.digest()[:5] + bytes(3)
        digests.append(np.frombuffer(bytes(found), np.uint64))
    common, *places = np.intersect1d(*digests, return_indices=True)
    assert len(common) >= 1
    made = []
    for of_one, place in zip(gates, places):
        x, y = divmod(int(place[0]), len(keys))
        made.append(CardList(TITLE, {**of_one, "x": fingerprint_of(FIRST_KEY + x), "y": fingerprint_of(FIRST_KEY + y)}))
    assert forty_bits(made[0].content()) == forty_bits(made[1].content())
    assert made[0].gates["lyon"] != made[1].gates["lyon"]
    # The fingerprint of 200 bits tells them apart: there a collision takes 2^100 tries.
    assert made[0].fingerprint() != made[1].fingerprint()
    assert len(made[0].fingerprint().replace("-", "")) * 5 - 20 == 200


def normalised(content: bytes) -> str:
    """Return a wrong fingerprint: of cards whose names are made alike before, of which the last of a name counts."""
    text = unicodedata.normalize("NFKC", content.decode()).casefold().translate({0x435: "e", 0x2010: "-"})
    cards = {}
    for line in text.split("\n")[2:]:
        name, _, gate = line.partition(":")
        if name.strip():
            cards[name.strip()] = gate.strip()
    return cards_fingerprint(repr(sorted(cards.items())).encode())


HIDDEN = {
    "a capital": lambda text: text.replace("lyon:", "Lyon:"),
    "a capital in a fingerprint": lambda text: text.replace(GATES["lyon"], GATES["lyon"].upper()),
    "a blank more": lambda text: text.replace("lyon: ", "lyon:  "),
    "a blank before": lambda text: text.replace("lyon: ", " lyon: "),
    "a blank at the end": lambda text: text.replace(GATES["lyon"], GATES["lyon"] + " "),
    "a tab": lambda text: text.replace("lyon: ", "lyon:\t"),
    "another hyphen": lambda text: text.replace(GATES["lyon"], GATES["lyon"].replace("-", "‑")),
    "wide letters": lambda text: text.replace("lyon:", "\uff4cyon:"),
    "a letter that looks like another": lambda text: text.replace("basel:", "bas\u0435l:"),
    "a name twice": lambda text: text.replace("lyon: ", f"lyon: {fingerprint_of(9)}\nlyon: "),
    "a line more": lambda text: text.replace("lyon: ", "\nlyon: "),
    "no last line break": lambda text: text[:-1],
    "other line breaks": lambda text: text.replace("\n", "\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("difference", HIDDEN)
def test_no_difference_is_made_alike_before_the_fingerprint(difference: str):
    whole = CardList(TITLE, GATES).content()
    other = HIDDEN[difference](whole.decode()).encode()
    # Where names are made alike, people would compare two lists, and hear one fingerprint.
    assert other != whole and normalised(other) == normalised(whole)
    assert cards_fingerprint(other) != cards_fingerprint(whole)
    with pytest.raises(UsageError, match="ask for the file again|is no list of cards"):
        parse_cards(other, Path("x.cards"))


@pytest.mark.parametrize(
    "title", ["He\u0430rt consortium", "heart consortium", "Heart consortium ", "Herz \u00fc", "Herz u\u0308"]
)
def test_titles_that_look_alike_are_other_lists(title: str):
    assert parse_cards(CardList(title, GATES).content(), Path("x")).consortium == title
    others = {TITLE, "Herz \u00fc", "Herz u\u0308"} - {title}
    assert CardList(title, GATES).fingerprint() not in {CardList(other, GATES).fingerprint() for other in others}


@pytest.mark.parametrize("title", ["", " ", "Heart\u00a0consortium", "Heart\u2028consortium", "\u202eHeart"])
def test_a_title_that_no_coordinator_can_have_is_no_list(title: str):
    with pytest.raises(UsageError, match="the second line does not name the consortium"):
        parse_cards(CardList(title, GATES).content(), Path("x"))


def test_who_did_not_read_the_list_out_stays_open_until_it_does(found: Scene, tmp_path: Path):
    file = hand_out(found, found.gated.pins, tmp_path)
    folder, cards = found.gated.folders[FIRST], read_cards(file)
    assert open_sites(folder, cards) == ("site-02", "site-03", "x-00")
    reading = cards.fingerprint().upper().replace("-", " ")
    note_comparison(folder, cards, reading, "site-03, site-02", by="Dr Kim")
    assert open_sites(folder, cards) == ("x-00",)
    with pytest.raises(UsageError, match="^x-00 did not read out the fingerprint of this list"):
        pins_of_cards(folder, file, ())
    # A study without the open site needs it not.
    assert set(pins_of_cards(folder, file, ["site-01", "site-02", "site-03"])) == set(found.honest)
    note_comparison(folder, cards, reading, "x-00", by="Dr Kim")
    assert pins_of_cards(folder, file, ()) == found.gated.pins
    # Of another list nothing was read out, and what was read of the first counts no more.
    more = hand_out(found, {**found.gated.pins, "z-00": fingerprint_of(9)}, tmp_path, "more")
    assert len(open_sites(folder, read_cards(more))) == 4
    note_comparison(folder, read_cards(more), read_cards(more).fingerprint(), "z-00", by="Dr Kim")
    assert open_sites(folder, cards) == ("site-02", "site-03", "x-00")
    # A new key of this site: the list has an old card of it.
    folder.signing_key.unlink()
    with pytest.raises(UsageError, match="no key to sign with yet"):
        pins_of_cards(folder, more, ())


def test_a_site_that_the_coordinator_invented_in_all_lists_alike_is_pinned_by_nobody(found: Scene, tmp_path: Path):
    file = hand_out(found, {**found.gated.pins, "y-00": fingerprint_of(9)}, tmp_path)
    reading = read_cards(file).fingerprint()
    # The command finds nothing, and all hear the same fingerprint; but nobody hears the invented site.
    compare(found, file, reading)
    for site in found.honest:
        with pytest.raises(UsageError, match="^y-00 did not read out the fingerprint of this list"):
            pins_of_cards(found.gated.folders[site], file, ())
        assert pins_of_cards(found.gated.folders[site], file, found.all) == found.gated.pins


def test_the_record_of_a_comparison_is_read_whole_or_not_at_all(found: Scene, tmp_path: Path):
    file = hand_out(found, found.gated.pins, tmp_path)
    compare(found, file, read_cards(file).fingerprint())
    folder, cards = found.gated.folders[FIRST], read_cards(file)
    path = folder.compared_cards
    text = path.read_text()
    assert open_sites(folder, cards) == () and path.stat().st_mode & 0o777 == 0o600
    for changed in (text.replace('"by"', '"who"'), text.replace('"site-02"', "7"), text[:-9], "[]", '{"sites": []}'):
        path.write_text(changed)
        with pytest.raises(Exception, match="the record of the compared list is damaged; remove it"):
            open_sites(folder, cards)
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(Exception, match="others may read or write it"):
        open_sites(folder, cards)
