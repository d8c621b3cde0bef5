"""Commands run as another account, also where this checkout or its Python lies below a folder closed to others."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534


def account(user: int, *options: str, groups: Sequence[int] = ()) -> list[str]:
    """Return the start of a command line that runs as a plain account, without a capability of root's."""
    others = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    words = ["setpriv", "--reuid", str(user), "--regid", str(user), *others, "--inh-caps=-all", "--bounding-set=-all"]
    return [*way_in(), *words, *options]


@cache
def way_in() -> tuple[str, ...]:
    """Return the start of a command line, for root, in whose process what these tests need can be entered by all.

    A mount namespace of that process alone: over each folder that only its owner may enter lies an empty one that
    everybody may enter, and in it what is needed stands where it stood. Empty where nothing is in the way.
    """
    trees = _outermost({ROOT, *(Path(path).resolve() for path in [sys.prefix, sys.base_prefix, *sys.path] if path)})
    closed = _outermost({folder for tree in trees for folder in tree.parents if not folder.stat().st_mode & 0o001})
    if not closed:
        return ()
    hidden = [tree for tree in trees if any(tree.is_relative_to(folder) for folder in closed)]
    lines = ["set -e", "mount -t tmpfs -o mode=755 none /mnt"]
    for number, tree in enumerate(hidden):
        lines += [f"mkdir /mnt/{number}", f"mount --bind {_quoted(tree)} /mnt/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 none {_quoted(folder)}" for folder in closed]
    for number, tree in enumerate(hidden):
        lines += [f"mkdir -p {_quoted(tree)}", f"mount --bind /mnt/{number} {_quoted(tree)}"]
    lines += ['cd "$PWD" 2>/dev/null || cd /', 'exec "$@"']
    words = ("unshare", "--mount", "sh", "-c", "\n".join(lines), "sh")
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if tried.returncode == 0 else ()


def _outermost(folders: set[Path]) -> list[Path]:
    return sorted(one for one in folders if one.is_dir() and not folders & set(one.parents))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
