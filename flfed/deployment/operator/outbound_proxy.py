"""Outbound proxy of a site, through which its node reaches the coordinator.

The node is the only process of a site with a connection to the coordinator. The proxy forwards its TLS unopened (HTTP
CONNECT). Address and password are in a private file of the network's folder, and in no environment or command line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from flfed.deployment.coordinator.certificates import host_and_port
from flfed.deployment.operator.join import joined
from flfed.errors import UsageError
from flfed.files import locked, read_private, write_whole
from flfed.parsers import parse_toml
from flfed.paths import SiteFolder
from flfed.words import flfed_error, usage_error

SCHEME = "http"
NONE = "none"
PASSWORD_REFUSED = frozenset({401, 407})
"""Status codes of a proxy that refuses a password; the standard's is 407, tinyproxy's is 401."""


@dataclass(frozen=True)
class OutboundProxy:
    """Outbound proxy of a site's node.

    Parameters
    ----------
    address : str
        "host:port".
    user, password : str
        Empty where the proxy wants none.
    """

    address: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """URL without user and password."""
        return f"{SCHEME}://{self.address}"


def read_proxy(folder: SiteFolder) -> OutboundProxy | None:
    """Return the outbound proxy of a site's node, or None where it connects directly.

    Raises
    ------
    UsageError, FlfedError
        If its file cannot be read, is damaged, or others may read it.
    """
    if not os.path.lexists(folder.proxy):
        return None
    content = read_private(folder.proxy)
    try:
        proxy = OutboundProxy(**parse_toml(content, folder.proxy.name))
        host_and_port(proxy.address)
    # The parser's own text could quote the password.
    except (UsageError, TypeError):
        raise flfed_error("join.proxy.damaged", file=folder.proxy, site=folder.site) from None
    return proxy


def set_proxy(folder: SiteFolder, url: str, password_file: Path | None = None) -> OutboundProxy | None:
    """Set the outbound proxy of a site's node, or remove it, and return it.

    Parameters
    ----------
    folder : SiteFolder
    url : str
        "http://HOST:PORT", or "none".
    password_file : Path, optional
        Private file with the line USER:PASSWORD, which is copied.

    Raises
    ------
    UsageError, FlfedError
        If the site has not joined, or URL or file is refused; nothing is changed then.
    """
    joined(folder)
    if url == NONE and password_file is not None:
        raise usage_error("join.proxy.needless")
    proxy = None if url == NONE else OutboundProxy(proxy_address(url), *_credentials(password_file))
    with locked(folder.network):
        if proxy is None:
            folder.proxy.unlink(missing_ok=True)
        else:
            facts = {"address": proxy.address, "user": proxy.user, "password": proxy.password}
            write_whole(folder.proxy, tomli_w.dumps(facts).encode())
    return proxy


def proxy_address(url: str) -> str:
    """Return "host:port" of a proxy's URL.

    Raises
    ------
    UsageError
        If it is no such URL, has another scheme, or a user or password.

    Examples
    --------
    >>> proxy_address("http://proxy.st-mary.example:3128")
    'proxy.st-mary.example:3128'
    """
    # Before anything is repeated: what stands before the "@" is a secret.
    if "@" in url:
        raise usage_error("join.proxy.password")
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() != SCHEME:
        raise usage_error("join.proxy.scheme", scheme=scheme[:20])
    try:
        host_and_port(rest.removesuffix("/"))
    except UsageError:
        raise usage_error("join.proxy.url", url=url[:100]) from None
    return rest.removesuffix("/")


def _credentials(file: Path | None) -> tuple[str, str]:
    if file is None:
        return "", ""
    try:
        text = read_private(file).decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    user, colon, password = text.partition(":")
    if not (user and colon and text.isprintable()):
        raise usage_error("join.proxy.line", file=file)
    return user, password
