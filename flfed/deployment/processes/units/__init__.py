"""Service files for one site's two users.

They are units for systemd and a compose file, with the site's own names filled in.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import flfed
from flfed.deployment.coordinator.certificates import host_and_port
from flfed.paths import SiteFolder
from flfed.words import flfed_error, usage_error

BASE = Path("/var/lib/flfed")
PLAIN = re.compile(r"/[A-Za-z0-9._+/-]*")
"""A path that is plain to every reader of units, shell and YAML."""
TEMPLATES = ("network.service", "gate.service", "sysusers.conf", "tmpfiles.conf", "compose.yaml")
"""Filled in they have the site's name before their own."""
ANYWHERE = "# No egress rule: the {peer} is named, not numbered. With --address IP: IPAddressDeny, IPAddressAllow."


def filled(
    site: str,
    *,
    command: Path,
    base: Path = BASE,
    address: str = "",
    peer: str = "coordinator",
) -> dict[str, str]:
    """Return the files of one site, by name.

    Parameters
    ----------
    site : str
    command : Path
        Path of the installed `flfed`.
    base : Path
        The folder of the two users' folders; each has an `FLFED_HOME` of its own in it.
    address : str
        The peer's, "host:port". Where its host is an IP address, the node may reach that alone.
    peer : str
        The node's only peer: the coordinator, or its site's outbound proxy.

    Raises
    ------
    UsageError
        If a path is not absolute, or has characters with another meaning in a unit; or the address is none.
    """
    SiteFolder(site)
    # Checked against few characters: each reader of these files quotes in another way.
    for path in (command, base):
        if not PLAIN.fullmatch(str(path)):
            raise usage_error("processes.files.path", path=path)
    host = number_of(address)
    egress = f"IPAddressDeny=any\nIPAddressAllow=localhost {host}" if host else ANYWHERE.format(peer=peer)
    # A program in a person's home could not be started otherwise.
    protect_home = "read-only" if command.parts[1] in ("home", "root") else "yes"
    values = {
        "SITE": site,
        "VERSION": flfed.__version__,
        "COMMAND": str(command),
        "BASE": str(base),
        "PROTECT_HOME": protect_home,
        "HOST": host or "any",
        "PEER": peer,
        "EGRESS": egress,
    }
    folder = Path(__file__).parent
    files = {}
    for template in TEMPLATES:
        text = (folder / template).read_text(encoding="utf-8")
        files[f"flfed-{site}-{template}"] = re.sub("@([A-Z_]+)@", lambda word: values[word[1]], text)
    return files


def number_of(address: str) -> str:
    """Return the IP address in "host:port".

    "" where the host is a name.
    """
    if not address:
        return ""
    # A mistyped number must not pass for a name, to which no rule applies.
    host = host_and_port(address)[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write the files into a folder.

    The folder is made where it is absent; files of these names are replaced.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / name for name in files]
        for path in written:
            path.write_text(files[path.name], encoding="utf-8")
    except OSError as error:
        raise flfed_error("processes.files.unwritten", folder=folder, why=error.strerror) from None
    return written
