"""Models that approved studies begin from, kept at a site: the coordinator sends none of them.

A person gives the folder of an exported model with the approval. The model is kept under the hash that the study's
text names, and is held to that hash each time that it is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.errors import UsageError
from flfed.files import write_whole
from flfed.folders import SiteFolder
from flfed.paths import give
from flfed.refusals import Refusal
from flfed.study.study import Study

if TYPE_CHECKING:
    from flfed.rows.warm_start import Source

MODEL = "model/"
ENCODER = "encoder/"
"""What the names of a file's arrays begin with."""


def has_start(folder: SiteFolder, study: Study) -> bool:
    """Tell whether a site has what a study begins from, which is not read."""
    return not study.warm_start or _path(folder, study).is_file()


def given_start(folder: SiteFolder, study: Study, given: Path | None) -> Source | None:
    """Return the model that a person gives with an approval; None where none is needed, or the site has it.

    Parameters
    ----------
    folder : SiteFolder
    study : Study
    given : Path, optional
        Folder of an exported model.

    Raises
    ------
    UsageError
        If it is not the one that the study's text names, or none is given where one is needed.
    """
    if given is None:
        if not has_start(folder, study):
            raise UsageError(
                f"the study begins from the model {study.warm_start!r}, of which this site needs a copy: ask the "
                "coordinator for the folder that flfed run export wrote, and add: --start FOLDER"
            )
        return None
    if not study.warm_start:
        raise UsageError(f"--start {given}: study {study.name!r} begins from no earlier model (it has no warm-start)")
    from flfed.rows.data import datasets  # its models need torch, which a site's status does not
    from flfed.rows.warm_start import read_source

    found = read_source(given, f"--start {given}")
    found.check(study, datasets.load(study.dataset.name).schema, f"--start {given}")
    return found


def keep_start(folder: SiteFolder, study: Study, source: Source) -> None:
    """Keep what a study begins from, whole or not at all; raises FlfedError where it cannot be written."""
    from flfed.updates.checkpoints.tensor_file import file_content

    parts = {f"{MODEL}{name}": value for name, value in source.arrays.items()}
    parts |= {f"{ENCODER}{name}": value for name, value in source.encoder.arrays().items()}
    folder.make()
    if not folder.starts.is_dir():
        folder.starts.mkdir(mode=0o700)
        give(folder.starts, folder.gate)  # root may make what the gate's user must be able to enter
    write_whole(_path(folder, study), b"".join(file_content(parts, {"facts": json.dumps(source.facts())})))


def kept_start(folder: SiteFolder, study: Study) -> Source:
    """Return the site's own copy of what a study begins from.

    Raises
    ------
    NotTakingPart
        If it is not here, is damaged, or is another model than the study's text names.
    """
    from safetensors import SafetensorError

    from flfed.federation.client.redaction import NotTakingPart
    from flfed.rows.warm_start import Source
    from flfed.summaries.summary import Encoder
    from flfed.updates.checkpoints.tensor_file import read_file

    absent = NotTakingPart(Refusal("start-absent"))
    try:
        arrays, metadata = read_file(_path(folder, study))
        encoder = Encoder(**_named(arrays, ENCODER))
        found = Source.of_facts(json.loads(metadata["facts"]), _named(arrays, MODEL), encoder)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        raise absent from None
    if found.sha256() != study.start_sha256:
        raise absent
    return found


def _path(folder: SiteFolder, study: Study) -> Path:
    return folder.starts / f"{study.start_sha256}.safetensors"


def _named(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
