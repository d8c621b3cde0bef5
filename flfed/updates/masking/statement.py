"""Statements: a site's key of a run with its facts, signed by the gate.

The coordinator passes them on and could exchange keys; it cannot sign as a gate whose fingerprint an approval names.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.errors import UsageError
from flfed.parsers import parse_json
from flfed.paths import NAME
from flfed.refusals import Refusal
from flfed.registry import kebab_keys
from flfed.signatures import HASH, canonical, gate_fingerprint, is_signed
from flfed.signatures import sign as sign_facts

WHAT = "run key"
"""Keeps a statement's signature apart from whatever else a gate's key signs."""
PINS = re.compile(r"[0-9a-f]{32}")
VERSION = re.compile(r"[0-9A-Za-z.+!-]{0,40}")
LONGEST = 4096
"""Bytes of a packed statement; one without lifted sites has about 180."""
_PARTS = {"public_key": 32, "signing_key": 32, "pins": 16, "signature": 64}
"""Bytes of what a packed statement begins with, in order."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a site's gate states of the key that the site has for a run.

    Attributes
    ----------
    study_sha256, run : str
    repeat : int
        For which it has the key.
    site : str
    public_key, signing_key : str, 64 hex digits
        X25519 key of the run, and the Ed25519 key of the gate.
    pins : str, 32 hex digits
        `pins_hash` of the sites that its approval pins. The sites themselves would make it long, and a reader has
        its own to compare with.
    single_cells : bool
        Whether its policy lets cells of few rows into sums.
    lifted : tuple of str
        Sites by which this site lets lists differ; its own name is its own consent.
    flfed : str
        Its version.
    """

    study_sha256: str
    run: str
    repeat: int
    site: str
    public_key: str
    signing_key: str
    pins: str
    single_cells: bool = False
    lifted: tuple[str, ...] = ()
    flfed: str

    def facts(self) -> dict[str, Any]:
        """Return what the signature covers."""
        return {"what": WHAT, "format": 1, **kebab_keys(asdict(self)), "lifted": list(self.lifted)}

    def is_well_formed(self) -> bool:
        """Return whether each value has its form."""
        forms = [(HASH, self.public_key), (HASH, self.signing_key), (PINS, self.pins), (VERSION, self.flfed)]
        forms += [(NAME, name) for name in (self.site, *self.lifted)]
        fit = all(isinstance(text, str) and form.fullmatch(text) for form, text in forms)
        return fit and isinstance(self.single_cells, bool)


def pins_hash(pinned: Mapping[str, str]) -> str:
    """Return the hash of the pinned sites with their fingerprints.

    Parameters
    ----------
    pinned : mapping of site to fingerprint
        The site itself counted.
    """
    return hashlib.sha256(canonical(dict(pinned))).hexdigest()[: 2 * _PARTS["pins"]]


def sign(statement: Statement, key: Ed25519PrivateKey) -> str:
    """Return the signature of a statement by a gate's key, as hex."""
    return sign_facts(statement.facts(), key)


def pack(statement: Statement, signature: str) -> bytes:
    """Return what crosses of a statement: all that its readers do not have themselves.

    Study, run and repeat are left out: the signature fits those of the reader, or it is wrong.
    """
    keys = statement.public_key + statement.signing_key + statement.pins + signature
    rest = [statement.site, statement.single_cells, statement.flfed, *statement.lifted]
    return bytes.fromhex(keys) + canonical(rest)


def read(content: bytes, *, study_sha256: str, run: str, repeat: int) -> tuple[Statement, str] | Refusal:
    """Return a packed statement and its unchecked signature.

    Parameters
    ----------
    content : bytes
        Of `pack`.
    study_sha256, run : str
    repeat : int
        Those of the reader.
    """
    if not isinstance(content, bytes) or not sum(_PARTS.values()) < len(content) <= LONGEST:
        return Refusal("statement-unreadable")
    stream = io.BytesIO(content)
    parts = {name: stream.read(size).hex() for name, size in _PARTS.items()}
    signature = parts.pop("signature")
    try:
        site, single_cells, version, *lifted = parse_json(stream.read(), "statement")
    except (UsageError, ValueError, TypeError):
        return Refusal("statement-unreadable")
    statement = Statement(
        **parts,
        study_sha256=study_sha256,
        run=run,
        repeat=repeat,
        site=site,
        flfed=version,
        single_cells=single_cells,
        lifted=tuple(lifted),
    )
    if statement.is_well_formed():
        return (statement, signature)
    return Refusal("statement-unreadable")


def statement_refusal(
    statement: Statement, signature: str, *, pinned: Mapping[str, str], study_sha256: str, run: str, repeat: int
) -> Refusal | None:
    """Return why a site's key is not taken for a run, None where it is.

    Parameters
    ----------
    statement : Statement
    signature : str
        As hex.
    pinned : mapping of site to fingerprint
        Those that the reader's own approval pins, the reader itself counted. All must pin the same: with others,
        threshold and lists would differ.
    study_sha256, run : str
    repeat : int
        Those of the reader.
    """
    if not statement.is_well_formed():
        return Refusal("statement-unreadable")
    site = statement.site
    if site not in pinned:
        return Refusal("cohort-not-pinned", site=site)
    if gate_fingerprint(statement.signing_key) != pinned[site]:
        return Refusal("statement-other-key", site=site)
    if (statement.study_sha256, statement.run, statement.repeat) != (study_sha256, run, repeat):
        return Refusal("statement-other-run", site=site)
    if not is_signed(statement.facts(), signature, statement.signing_key):
        return Refusal("statement-unsigned", site=site)
    # Only statements signed by the gate itself show its pins: anything else the coordinator may have written.
    if statement.pins == pins_hash(pinned):
        return None
    return Refusal("statement-other-pins", site=site)
