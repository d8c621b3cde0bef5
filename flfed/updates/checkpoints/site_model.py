"""The last model of a run of which the coordinator lacks all or a part, kept at a site.

So it is where the coordinator has ciphertexts only, and where a part of the model is the site's own. A site writes it
down when it compares the run's models, and forgets the key and its state of the run then: from there on nobody opens
what the coordinator has, and a comparison that is asked again is answered from here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from flfed.folders import RUN
from flfed.paths import home, private_folder, replace_whole
from flfed.refusals import Refusal
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.checkpoints.reply_cache import NotKept
from flfed.updates.checkpoints.tensor_file import file_content, read_file
from flfed.updates.messages.fields import Arrays

FACTS = ("study", "of", "sha256")
"""What a file says besides its arrays: the study's text, the hash of what was opened, and that of the arrays."""
_MODEL, _ENCODER, _OWN = "model/", "encoder/", "own/"


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteModel:
    """The last model of a run at a site.

    Attributes
    ----------
    study : str
        The study's text.
    of : str
        Hash of what came: of the ciphertexts that it was opened from, where it was encrypted.
    arrays : dict of name to array
        Of the shared model.
    encoder : Encoder
    own : dict of name to array
        What is the site's own of the model, or its own model beside the shared one.
    """

    study: str
    of: str
    arrays: Arrays
    encoder: Encoder
    own: Arrays = field(default_factory=dict)

    def write(self, site: str, run: str, repeat: int) -> None:
        """Write it whole or not at all, for its owner alone; raises NotKept."""
        parts = {f"{_MODEL}{name}": value for name, value in self.arrays.items()}
        parts |= {f"{_ENCODER}{name}": value for name, value in self.encoder.arrays().items()}
        parts |= {f"{_OWN}{name}": value for name, value in self.own.items()}
        facts = {"study": self.study, "of": self.of, "sha256": arrays_sha256(parts)}
        path = path_of(site, run, repeat)
        try:
            private_folder(path.parent)
            replace_whole(path, b"".join(file_content(parts, facts)))
        except OSError as error:
            raise NotKept(Refusal("state-not-kept", error=error.strerror)) from None


def path_of(site: str, run: str, repeat: int) -> Path:
    """Return the file of a run's last model; raises ValueError for a run without a plain name."""
    if not RUN.fullmatch(run):
        raise ValueError("a run's name is a plain word")
    return home() / "sites" / site / "models" / f"{run}-{repeat}.safetensors"


def site_model(site: str, run: str, repeat: int) -> SiteModel | None:
    """Return the last model of a run at a site, None where it is not here or damaged."""
    with suppress(OSError, SafetensorError, ValueError):
        arrays, facts = read_file(path_of(site, run, repeat))
        if set(facts) == set(FACTS) and facts["sha256"] == arrays_sha256(arrays):
            encoder = Encoder(**_named(arrays, _ENCODER))
            shared, own = _named(arrays, _MODEL), _named(arrays, _OWN)
            return SiteModel(study=facts["study"], of=facts["of"], arrays=shared, encoder=encoder, own=own)
    return None


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
