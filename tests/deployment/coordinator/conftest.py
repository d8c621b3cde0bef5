"""A coordinator with a signing key, and sites that joined it: folders, and no process."""

from pathlib import Path

import pytest

from flfed.deployment.coordinator.certificates import signing_key
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import private_text, signing_public

SITES = ("cleveland", "hungarian", "switzerland")


@pytest.fixture
def coordinator(home: Path) -> CoordinatorFolder:
    """A coordinator with a signing key, and nothing else that it would have."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder = CoordinatorFolder.default()
    folder.make()
    write_whole(folder.keys / "signing.key", private_text(Ed25519PrivateKey.generate()))
    return folder


@pytest.fixture
def joined(coordinator: CoordinatorFolder) -> list[SiteFolder]:
    """Three sites that joined it."""
    folders = [SiteFolder(site) for site in SITES]
    for folder in folders:
        folder.make()
        folder.terms.write_text(f'signing-key = "{signing_public(signing_key(coordinator))}"\n')
    return folders
