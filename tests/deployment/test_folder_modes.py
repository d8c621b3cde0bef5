"""Modes of a site's folders: where other accounts may write, nothing is answered, and the site is told what to do."""

import logging
import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.operator.status import status_of
from flfed.deployment.processes.serve import serve
from flfed.deployment.site_state.trusted_files import open_folder
from flfed.paths import SiteFolder
from flfed.rows.data import datasets
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from tests.deployment.conftest import Gated

FOLDERS = ("root", "gate", "frozen", "approvals")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to a group of others")


def messages_of(site: Gated) -> list[Any]:
    """Return a message of each step of a run."""
    schema_sha256 = datasets.load("small").schema.sha256()
    return [
        site.message(ENROL, EnrolRequest(dataset="small", schema_sha256=schema_sha256)),
        site.message(SUMMARISE, SummariseRequest()),
        site.trained(),
    ]  # fmt: skip


def command_of(sentence: str) -> list[str]:
    """Return the command that a sentence names."""
    command = shlex.split(sentence.partition("chmod ")[2].partition(";")[0])
    return ["chmod", *command]


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_nothing_is_answered_while_every_account_may_write_and_the_command_ends_it(name, mode, gated, caplog):
    site = gated()
    place: Path = getattr(site.folder, name)
    place.chmod(mode)
    with caplog.at_level(logging.WARNING, logger="flfed.gate"):
        said = {site.answer(message).error.reason for message in messages_of(site)}
    assert said == {"its folders cannot be used safely; at the site: flfed site status site-01"}
    told = caplog.messages[0]
    assert told.startswith(f"{place}: every account may write there (mode {mode:o}): chmod go-w {place};")
    assert status_of(site.folder, site.site)["problems"] == [told]
    subprocess.run(command_of(told), check=True)
    assert [site.answer(message).has_error() for message in messages_of(site)] == [False] * 3


def test_a_folder_that_is_opened_while_an_answer_is_computed_holds_it_back(gated: Callable[..., Gated]):
    site = gated()
    message = site.trained()
    assert not site.refusal(message)
    computed = site.gate._side(site.context()).app()(message, site.context())
    assert not computed.has_error()
    site.folder.gate.chmod(0o777)
    left = site.gate.leaving(message, computed, site.context())
    assert "its folders cannot be used safely" in left.error.reason


def test_of_a_link_it_is_the_folder_that_it_leads_to(gated: Callable[..., Gated], tmp_path: Path):
    site = gated()
    frozen = site.folder.frozen
    frozen.rename(tmp_path / "elsewhere")
    frozen.symlink_to(tmp_path / "elsewhere")
    assert open_folder(site.folder) == ""  # though a link's own mode is 777
    assert not site.answer(site.trained()).has_error()
    (tmp_path / "elsewhere").chmod(0o777)
    assert "its folders cannot be used safely" in site.refusal(site.trained())
    subprocess.run(command_of(open_folder(site.folder)), check=True)
    assert open_folder(site.folder) == ""


@needs_root
def test_a_group_of_others_may_not_write_and_one_of_this_account_alone_may(gated: Callable[..., Gated]):
    site = gated()
    place = site.folder.gate
    place.chmod(0o2770)  # new files take the folder's group
    assert os.stat(place).st_gid == 0
    assert open_folder(site.folder) == ""  # root's own group, which bears its name
    assert not site.answer(site.trained()).has_error()
    os.chown(place, -1, 65534)
    place.chmod(0o2770)
    told = open_folder(site.folder)
    assert told.startswith(f"{place}: its group, with other accounts, may write there (mode 2770): chmod g-w {place};")
    assert "its folders cannot be used safely" in site.refusal(site.trained())
    subprocess.run(command_of(told), check=True)
    assert not site.answer(site.trained()).has_error()


def test_site_check_and_serve_say_at_their_start_what_to_do(heart, flfed):
    folder = SiteFolder("cleveland")
    folder.make()
    assert "WARNING" not in flfed("site", "check", "cleveland")[2]
    folder.root.chmod(0o777)
    told, stop = list[str](), threading.Event()
    stop.set()
    serve(folder, stop, network=False, notify=told.append)
    for said in (flfed("site", "check", "cleveland")[2], "\n".join(told)):
        assert f"WARNING, {folder.root}: every account may write there (mode 777): chmod go-w {folder.root};" in said
