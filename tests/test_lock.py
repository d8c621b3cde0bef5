"""requirements.lock is the one that `make lock` wrote for this pyproject.toml."""

import pytest

from tests.lock import LOCK, defects, locked_versions, signed

TEXT = LOCK.read_text(encoding="utf-8")


def test_the_lock_has_each_dependency_within_its_bounds():
    assert defects(TEXT) == []
    versions = locked_versions(TEXT)
    assert {"flwr", "torch", "ray", "psycopg-binary"} <= versions.keys()
    assert not [name for name in versions if name.startswith(("nvidia", "cuda", "triton"))]
    # Each package has a hash, and the torch wheels that could not be reached are named.
    packages = [block for block in TEXT.split("\n") if block and not block.startswith(("#", " "))]
    assert all(line.endswith("\\") for line in packages) and "--hash=sha256:" in TEXT
    assert TEXT.count("no CPU wheel of torch") + TEXT.count("\ntorch==") == 6


@pytest.mark.parametrize(
    ("old", "new"), [("flwr==1.42.0", "flwr==1.42.1"), ("--hash=sha256:286e", "--hash=sha256:286f"), ("\n", "\n\n")]
)
def test_a_version_or_a_hash_that_was_changed_fails(old: str, new: str):
    assert old in TEXT
    assert defects(TEXT.replace(old, new, 1)) == ["requirements.lock was changed since it was made: make lock"]


def test_a_dependency_beyond_the_lock_is_named():
    body = TEXT.partition("\n")[2].replace("tomli-w==1.", "tomli-w==9.")
    (found,) = defects(signed(body))
    assert found.startswith("tomli-w<2,>=1.0 is not in requirements.lock")
