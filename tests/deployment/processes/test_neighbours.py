"""What another account put into the current folder does not run at a site, and there is one of each process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.processes.child_processes import PASSED_ON, PREFIXES
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import new_node_key, private_text
from tests.another_account import NOBODY, account
from tests.browser import free_port
from tests.deployment.processes.test_serving import processes

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(240)]
COMMAND = str(Path(sys.executable).with_name("flfed"))
"""As a person types it: a Python that is started with -c looks in the current folder by itself."""
SERVE = ("site", "serve", "cleveland")
OTHER = 41234
PLANTED = ("ctypes.py", "sitecustomize.py", "streamlit.py", "flfed/__init__.py", "sites/cleveland/__init__.py")


@pytest.fixture
def short_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """FLFED_HOME below a folder that every account may enter."""
    with tempfile.TemporaryDirectory(prefix="flfed-", dir="/tmp") as folder:
        monkeypatch.setenv("FLFED_HOME", folder)
        yield Path(folder)


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder of another account with modules that write down that they ran, and where they do."""
    folder, ran = tmp_path / "shared", tmp_path / "ran"
    for name in PLANTED:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"open({str(ran)!r}, 'a').write(__file__ + '\\n')\n")
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    folder.chmod(0o777)
    yield folder, ran
    assert not ran.exists(), ran.read_text()


def started(*words: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *words], cwd=cwd, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    return said


def test_nothing_in_the_current_folder_runs_in_the_gate_and_of_the_environment_only_a_list_comes(home, planted):
    folder = SiteFolder("cleveland")
    folder.make()
    folder.secret.write_text("0" * 64)
    folder.secret.chmod(0o600)
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(str(folder.socket))
        node.listen()
        node.settimeout(120)
        more = {"OF_THE_CALLER": "x", "https_proxy": "http://127.0.0.1:1", "LC_TIME": "C", "FLFED_OWN": "1"}
        serving = started("site", "serve", "cleveland", "--gate-only", cwd=planted[0], **more)
        try:
            node.accept()[0].close()  # the gate has loaded the site's package, and asks for messages
            passed = Path(f"/proc/{processes('cleveland')['executor']}/environ").read_text().split("\0")[:-1]
        finally:
            said = ended(serving)
    names = {text.partition("=")[0] for text in passed}
    assert {name for name in names if name not in PASSED_ON and not name.startswith(PREFIXES)} == set()
    assert names >= {"PATH", "FLFED_HOME", "FLFED_OWN", "LC_TIME"}
    assert "sites/cleveland in the current folder is ignored; to use it: FLFED_PATH=$PWD flfed …" in said
    assert "/sites/cleveland (FLFED_PATH is not set)" in said


@pytest.mark.proof
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another account: run as root")
def test_a_plain_account_serves_packages_of_its_own_and_of_roots(short_home: Path, tmp_path: Path):
    # Without root's rights the gate leaves the network by a user namespace, where every other account is nobody.
    folder = SiteFolder("own-clinic")
    folder.make()
    folder.secret.write_text("0" * 64)
    package = short_home / "packages/sites/own_clinic"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from flfed import Csv, Holdout, Site\n"
        'site = Site(name="own-clinic", dataset="heart-disease", source=Csv("t.csv"), holdout=Holdout(0.2))\n'
    )
    for path in (short_home, *short_home.rglob("*")):
        os.chown(path, OTHER, OTHER)
        path.chmod(0o700 if path.is_dir() else 0o600)
    words = [*account(OTHER), COMMAND, "site", "serve", "own-clinic", "--gate-only"]
    environment = {**os.environ, "FLFED_PATH": str(short_home / "packages"), "HOME": str(short_home)}
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(str(folder.socket))
        folder.socket.chmod(0o777)
        node.listen()
        node.settimeout(120)
        serving = subprocess.Popen(
            words, cwd="/", env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            node.accept()[0].close()  # the gate has loaded the site's package, and asks for messages
        finally:
            said = ended(serving)
            log = (folder.gate / "gate.log").read_text()
    assert "this process has no network" in log, said
    assert "Traceback" not in log and "ended" not in said


@pytest.mark.proof
def test_nothing_in_the_current_folder_runs_in_other_commands_of_a_site(home: Path, planted: tuple[Path, Path]):
    for words in ("status cleveland", "approve heart-disease --site cleveland --with hungary --yes", "pause cleveland"):
        done = subprocess.run(
            [COMMAND, "site", *words.split()], cwd=planted[0], capture_output=True, text=True, check=False, timeout=90
        )
        assert "sites/cleveland in the current folder is ignored" in done.stderr
    (planted[0] / ".streamlit").mkdir()
    (planted[0] / ".streamlit/config.toml").write_text('[server]\nbaseUrlPath = "planted"\n')
    app = started("site", "app", "cleveland", "--headless", "--port", str(free_port()), cwd=planted[0])
    assert app.stdout is not None
    address = next(line for line in app.stdout if line.startswith("Open http"))
    ended(app)
    assert "planted" not in address


def test_settings_that_another_account_put_into_the_current_folder_do_not_move_the_coordinators_app(home, planted):
    settings, port = planted[0] / ".streamlit", free_port()
    settings.mkdir()
    (settings / "config.toml").write_text('[browser]\nserverPort = 6666\n[server]\nbaseUrlPath = "planted"\n')
    (settings / "secrets.toml").write_text('[auth]\nredirect_uri = "http://127.0.0.1:6666"\n')
    for path in (settings, *settings.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    app = started("app", "--headless", "--port", str(port), cwd=planted[0])
    assert app.stdout is not None
    lines = list[str]()
    while not lines or not lines[-1].startswith("Open http"):
        lines.append(app.stdout.readline())
    ended(app)
    assert f"The settings in {settings} are not read: " in "".join(lines)
    assert f"Open http://127.0.0.1:{port}/?token=" in lines[-1]


def test_the_users_own_settings_in_the_current_folder_are_read(home: Path, tmp_path: Path):
    settings, port = tmp_path / ".streamlit", free_port()
    settings.mkdir()
    (settings / "config.toml").write_text('[server]\nbaseUrlPath = "mine"\n')
    app = started("app", "--headless", "--port", str(port), cwd=tmp_path)
    assert app.stdout is not None
    address = next(line for line in app.stdout if line.startswith("Open http"))
    ended(app)
    assert address.startswith(f"Open http://127.0.0.1:{port}/mine/?token=")


def test_nothing_in_the_current_folder_runs_at_the_coordinator(home: Path, planted: tuple[Path, Path]):
    words = [COMMAND, "coordinator", "init", "--title", "T", "--address", f"localhost:{free_port()}"]
    subprocess.run(words, cwd=planted[0], check=True, timeout=90, capture_output=True)
    serving = started("coordinator", "serve", cwd=planted[0], OF_THE_CALLER="x")
    try:
        assert serving.stdout is not None
        assert any(line.startswith("sites can connect") for line in serving.stdout)
        children = Path(f"/proc/{serving.pid}/task/{serving.pid}/children").read_text().split()
        assert len(children) == 2
        for child in children:
            assert "OF_THE_CALLER" not in Path(f"/proc/{child}/environ").read_text()
    finally:
        ended(serving)


def refused(*words: str) -> str:
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("flfed: ")
    return sentence


def joined(root: Path) -> SiteFolder:
    """Return the folder of a site whose coordinator is not there: its node waits for it."""
    keys, folder, port = CoordinatorFolder(root / "coordinator"), SiteFolder("cleveland"), free_port()
    initialise(keys, Settings("Test", f"localhost:{port}"))
    folder.make()
    folder.join.write_text(f'site = "cleveland"\naddress = "localhost:{port}"\n')
    shutil.copy(keys.keys / "ca.crt", folder.authority)
    write_whole(folder.node_key, private_text(new_node_key()))
    return folder


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that serves cleveland in the background; what it started ends with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*options: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "said").open("ab") as log:
            running.append(subprocess.Popen([COMMAND, *SERVE, *options], stdout=log, stderr=log))
        return running[-1]

    yield begin
    for process in running:
        process.terminate()
    assert [process.wait(60) for process in running] == [0] * len(running)


@pytest.mark.proof
def test_a_second_gate_or_node_of_a_site_is_refused_and_the_first_is_undisturbed(home, tmp_path, serve, wait_until):
    folder = joined(tmp_path)
    gate = f"flfed: {folder.gate}: the gate of cleveland is served already; end that process first"
    first = serve("--gate-only")
    wait_until(lambda: list(processes("cleveland")) == ["executor"], 60)
    before = processes("cleveland")
    assert refused(*SERVE, "--gate-only") == gate
    assert refused(*SERVE) == gate  # node and gate
    time.sleep(1)
    assert processes("cleveland") == before and first.poll() is None
    node = serve("--network-only")  # which is the other half, and may
    wait_until(lambda: folder.socket.exists(), 60)
    before = processes("cleveland")
    assert set(before) == {"node", "executor"}
    taken = f"flfed: {folder.socket}: this site is served already; end that process first"
    assert refused(*SERVE, "--network-only") == taken
    assert (processes("cleveland"), node.poll(), first.poll()) == (before, None, None)
    for process in (node, first):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    both = serve()
    wait_until(lambda: set(processes("cleveland")) == {"node", "executor"}, 60)
    wait_until(lambda: folder.socket.exists(), 60)
    before = processes("cleveland")
    assert refused(*SERVE, "--gate-only") == gate
    assert refused(*SERVE) == taken
    assert (processes("cleveland"), both.poll()) == (before, None)
