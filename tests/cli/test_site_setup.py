"""`flfed site setup`: one dialogue that goes on where it ended, and what it answers to what others do wrong."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

import flfed as package
from flfed.callbacks import now_utc
from flfed.deployment.coordinator.admission import admit
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.coordinator.kits import invite
from flfed.deployment.operator import join as joining
from flfed.deployment.site_state.approval import approvals, pause
from flfed.errors import UsageError
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import spoken_fingerprint
from flfed.study.study import Study
from tests.machines import free_port
from tests.terminal import Dialogue, in_terminal

SITE, OTHERS = "kentucky-clinic", "minnesota-clinic,new-york-clinic"
Flfed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CoordinatorFolder:
    """A coordinator with a home of its own, whose kits come into the current folder."""
    monkeypatch.chdir(tmp_path)
    made = CoordinatorFolder(tmp_path / "coordinator")
    initialise(made, Settings("Three clinics", f"localhost:{free_port()}"))
    return made


@pytest.fixture
def kit(folder: CoordinatorFolder, tmp_path: Path) -> Path:
    """A kit of the site."""
    return invite(folder, SITE, to=tmp_path).file


def fingerprint_in(shown: str) -> str:
    return shown.partition("asks for by telephone: ")[2].split()[0]


@pytest.fixture
def begin(home: Path, tmp_path: Path) -> Iterator[Callable[..., Dialogue]]:
    """A function that starts the dialogue; what still runs at the end of the test is killed."""
    with ExitStack() as stack:

        def start(*words: str) -> Dialogue:
            dialogue = Dialogue("site", "setup", *words, environment=os.environ, folder=tmp_path)
            stack.callback(dialogue.kill)
            return dialogue

        yield start


@pytest.mark.proof
@pytest.mark.servers
def test_killed_after_each_step_and_called_again_it_goes_on(begin, folder: CoordinatorFolder, kit: Path):
    site = SiteFolder(SITE)
    first = begin(SITE)
    assert "kentucky-clinic fits" in first.wait_for("SITE.kit.zip (Enter")
    # A path that was typed wrong is asked for again.
    first.type("no-such.kit.zip")
    first.wait_for("no-such.kit.zip")
    first.kill()
    assert not site.join.exists()
    second = begin(SITE, "--kit", kit.name)
    fingerprint = fingerprint_in(second.wait_for("Study to approve"))
    second.kill()
    third = begin("--study", "preterm-birth", "--with", OTHERS)
    shown = third.wait_for("Type approve, refuse or later")
    assert "Step 2 of 5 is done" in shown and fingerprint_in(shown) == fingerprint
    third.kill()
    assert approvals(site) == []
    later = begin("--study", "preterm-birth", "--with", OTHERS)
    later.wait_for("Type approve, refuse or later")
    later.type("yes")
    later.wait_for("'yes' is not one of 'approve', 'refuse', 'later'")
    assert approvals(site) == []
    later.type("later")
    assert later.ended() == 0 and "waits for an approval of preterm-birth" in later.shown()
    assert approvals(site) == []
    fourth = begin()
    fourth.wait_for("Study to approve")
    fourth.type("preterm-birth")
    fourth.wait_for("The other sites that may take part")
    fourth.type("Minnesota")
    # A list that was typed wrong is asked for again.
    fourth.wait_for("a site's name is of a-z, 0-9")
    fourth.type(OTHERS)
    fourth.wait_for("Type approve, refuse or later")
    fourth.type("approve")
    fourth.wait_for("is approved")
    fourth.kill()
    (decided,) = approvals(site)
    assert (decided.decision, decided.co_sites) == ("approved", tuple(OTHERS.split(",")))
    fifth = begin()
    # The coordinator's server was not started.
    shown = fifth.wait_for("does not answer")
    assert all(f"Step {step} of 5 is done" in shown for step in (1, 2, 4)) and "Type approve" not in shown
    fifth.kill()
    sixth = begin("--kit", kit.name, "--study", "preterm-birth", "--with", OTHERS)
    shown = sixth.wait_for("Step 5 of 5: serve")
    assert "Step 4 of 5 is done" in shown and "--with and --start were not used" in shown
    admission = admit(folder, site.admission, typed=fingerprint)
    assert (admission.site, spoken_fingerprint(admission.fingerprint)) == (SITE, fingerprint)
    assert approvals(site) == [decided]


def cut(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], bool]:
    """End the work at the start of one of the writes of joining, as a kill does; tell whether it came to it."""
    write = joining.write_whole
    count = iter(range(100))
    came = []

    def write_or_end(path: Path, content: bytes, **options: int) -> None:
        if next(count) == number:
            came.append(path)
            raise KeyboardInterrupt
        write(path, content, **options)

    monkeypatch.setattr(joining, "write_whole", write_or_end)
    return lambda: bool(came)


@pytest.mark.parametrize("number", range(8))
def test_cut_off_at_any_file_of_joining_it_goes_on(
    flfed: Flfed, monkeypatch: pytest.MonkeyPatch, folder: CoordinatorFolder, kit: Path, number: int
):
    with monkeypatch.context() as patch:
        came = cut(patch, number)
        flfed("site", "setup", "--kit", kit.name)
        # There are seven files: the eighth is the proof that none was missed.
        assert came() == (number < 7)
    code, out, err = flfed("site", "setup", "--kit", kit.name)
    assert (code, out.count("waits for a study")) == (0, 1), err
    typed = fingerprint_in(" ".join(out.split()))
    assert admit(folder, SiteFolder(SITE).admission, typed=typed).already is False
    with pytest.raises(UsageError, match="belongs, or belonged|with another key"):
        other_home(folder, kit, patch_home=monkeypatch)


def other_home(folder: CoordinatorFolder, kit: Path, *, patch_home: pytest.MonkeyPatch) -> None:
    """Let somebody else use the same kit elsewhere, and send what comes of it."""
    patch_home.setenv("FLFED_HOME", str(kit.parent / "other-home"))
    (kit.parent / "elsewhere").mkdir()
    admit(folder, joining.join(kit, to=kit.parent / "elsewhere").admission)


def refused(flfed: Flfed, *words: str) -> str:
    """Return the sentence by which setup refuses."""
    code, _, err = flfed("site", "setup", *words)
    assert (code, err.count("\n")) == (2, 1), err
    return err


def test_what_is_wrong_with_a_kit_is_a_sentence(flfed: Flfed, folder: CoordinatorFolder, tmp_path: Path, monkeypatch):
    kits = {name: tmp_path / f"{name}.kit.zip" for name in ("expired", "protocol", "other", "cut")}
    past = now_utc() - timedelta(days=30)
    invite(folder, SITE, to=tmp_path, now=past).file.rename(kits["expired"])
    with monkeypatch.context() as patch:
        patch.setattr(package, "__version__", "9.9.9")
        patch.setattr("flfed.deployment.coordinator.kits.PROTOCOL", 9)
        invite(folder, SITE, to=tmp_path).file.rename(kits["protocol"])
    invite(folder, "minnesota-clinic", to=tmp_path).file.rename(kits["other"])
    kits["cut"].write_bytes(kits["other"].read_bytes()[:-200])
    assert "it expired on" in refused(flfed, SITE, "--kit", "expired.kit.zip")
    assert "kit: it is of protocol 9 (flfed 9.9.9), and flfed" in refused(flfed, SITE, "--kit", "protocol.kit.zip")
    assert f"the kit is of site 'minnesota-clinic', not of '{SITE}'" in refused(flfed, SITE, "--kit", "other.kit.zip")
    assert "it is not a zip, or a damaged one" in refused(flfed, SITE, "--kit", "cut.kit.zip")
    assert "is not a file" in refused(flfed, SITE, "--kit", "absent.kit.zip")
    assert "is not known" in refused(flfed, "kentuky-clinic")
    invite(folder, "st-mary", to=tmp_path)
    said = refused(flfed, "--kit", "st-mary.kit.zip")
    assert "the kit is of site 'st-mary', of which no package is here; no site has joined here." in said
    assert "name the site, or the coordinator's kit" in refused(flfed)
    assert not SiteFolder(SITE).join.exists()


def test_without_a_terminal_it_joins_and_ends_with_what_it_waits_for(flfed: Flfed, kit: Path):
    assert "waits for the coordinator's kit" in flfed("site", "setup", SITE)[1]
    assert "waits for a study" in flfed("site", "setup", "--kit", kit.name)[1]
    # Nobody can approve without a terminal, and there is no --yes.
    assert "there is no terminal to ask at" in refused(flfed, "--study", "preterm-birth", "--with", OTHERS)
    assert "--yes" in flfed("site", "setup", "--yes")[2]
    assert "the study does not name its sites" in refused(flfed, "--study", "preterm-birth")
    assert "no-such-study" in refused(flfed, "--study", "no-such-study")
    assert approvals(SiteFolder(SITE)) == []
    pause(SiteFolder(SITE), by="A")
    assert f"first: flfed site pause {SITE} --resume" in refused(flfed, SITE)


@pytest.mark.servers
def test_a_new_kit_replaces_the_earlier_one_with_another_key(flfed: Flfed, folder: CoordinatorFolder, kit: Path):
    first = fingerprint_in(" ".join(flfed("site", "setup", "--kit", kit.name)[1].split()))
    (kit.parent / f"{SITE}.admission").unlink()
    invite(folder, SITE, to=kit.parent)
    # Nobody is led to another coordinator by a script.
    assert "keeps the kit that it joined with" in refused(flfed, "--kit", kit.name)
    assert "keeps the kit" in " ".join(in_terminal("site", "setup", "--kit", kit.name, columns=200, typed="n\n")[1])
    code, shown = in_terminal("site", "setup", "--kit", kit.name, columns=200, typed="y\n\n")
    out = " ".join(" ".join(shown).split())
    assert code == 0 and f"SHA-256 of this one: {hashlib.sha256(kit.read_bytes()).hexdigest()}" in out
    second = fingerprint_in(out)
    assert second != first
    with pytest.raises(UsageError, match="the fingerprint is not that of the key") as error:
        admit(folder, kit.parent / f"{SITE}.admission", typed=first)
    assert second not in str(error.value)
    assert admit(folder, kit.parent / f"{SITE}.admission", typed=second).already is False


@pytest.mark.servers
def test_a_study_that_differs_by_a_byte_is_decided_about_again(flfed: Flfed, kit: Path, tmp_path: Path):
    flfed("site", "setup", "--kit", kit.name)
    text = Study.load("preterm-birth").text
    (tmp_path / "first.toml").write_text(text)
    flfed("site", "approve", "first.toml", "--site", SITE, "--with", OTHERS, "--yes")
    assert text.count("37 weeks") == 1
    (tmp_path / "second.toml").write_text(text.replace("37 weeks", "38 weeks"))
    words = ("site", "setup", "--study", "second.toml", "--with", OTHERS)
    code, shown = in_terminal(*words, columns=200, typed="refuse\n")
    assert code == 0 and any(line.startswith("Type approve, refuse or later") for line in shown)
    changed = "".join(shown).partition("Changed since")[2]
    assert "before 37 weeks" in changed and "before 38 weeks" in changed, changed
    decisions = {one.study_sha256: one.decision for one in approvals(SiteFolder(SITE))}
    assert decisions[Study.parse(text).sha256()] == "approved"
    assert sorted(decisions.values()) == ["approved", "refused"]
