"""Codecs at the server: who knows them, what they save, and what sites had left out before a break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flwr.serverapp import Grid

from flfed.refusals import Refusal
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.updates.codec import Codec, Shapes, codec_of, download_of
from flfed.updates.messages.enrol import EnrolReply, reads_compact
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.in_memory import count_array_bytes
from flfed.updates.strategies.fedavg import FedAvg

FORGOTTEN = (
    "the run was resumed on an engine that keeps no site's error feedback: what sites had left out of their updates "
    "until then is lost, and the arrays are not those of a run without a break"
)
UNKEPT = (
    "the run was resumed on an engine that keeps no site's own arrays: what the strategy had kept at sites until then "
    "is lost, and the arrays are not those of a run without a break"
)

UNREADABLE = ("study-unusable", "study-unusable-untold")
"""Codes of gates that cannot read a study, as those of earlier versions cannot."""


def _codecs(study: Study) -> str:
    """Return the names of the codecs that sites must know, "" where there is none."""
    return ", ".join(dict.fromkeys(name for name in (study.codec.name, study.download) if name != "none"))


def reading(reply: EnrolReply, study: Study) -> EnrolReply:
    """Return an enrolment, refused where the site's version does not know the study's codecs."""
    # A site that refused read the study with such a version: that its table would not open says nothing of its table.
    if not _codecs(study) or reads_compact(reply.version):
        return reply
    return replace(
        reply,
        accepted=False,
        reason=str(Refusal("codec-unknown", version=reply.version or "0.1", codecs=_codecs(study))),
    )


def explained(said: Mapping[str, Refusal], study: Study) -> dict[str, Refusal]:
    """Return why gates refused, with what an earlier version cannot use named where a study was not usable."""
    return {
        site: Refusal("codec-unread", why=why, codecs=_codecs(study))
        if _codecs(study) and why.cause.code in UNREADABLE
        else why
        for site, why in said.items()
    }


def packing_saves(study: Study, arrays: Arrays) -> dict[str, Any]:
    """Return the codecs and the bytes that each takes off a message of training; empty where a study has none."""
    if not _codecs(study):
        return {}
    saved = {
        "saved-to-site": _shorter(download_of(study), arrays),
        "saved-to-server": _shorter(codec_of(study), arrays),
    }
    return {"update": study.codec.name, "download": study.download, **saved}


def _shorter(codec: Codec | None, arrays: Arrays) -> int:
    """Return how many bytes shorter the section of these arrays is once it is packed.

    They are counted on both sections: a packed array's size does not depend on its values.
    """
    if codec is None:
        return 0
    packed = codec.encode(arrays, generator(0, site="", purpose="codec-bytes"))
    return count_array_bytes(arrays) - count_array_bytes(packed)


def restore_sites(grid: Grid, round: int, states: Mapping[str, Arrays], strategy: FedAvg, model: Shapes) -> str:
    """Give sites back what they kept for themselves; returns what is lost where nobody has it.

    In one process it goes with the checkpoint; institutions have it on their own disks.
    """
    run = strategy.run
    if (restore := getattr(grid, "restore_states", None)) is not None:
        restore(round, states)
        return ""
    at_sites = getattr(grid, "sites_keep_state", False)
    if at_sites:
        return ""
    if run.codec is not None and run.codec.feedback:
        return FORGOTTEN
    return UNKEPT if strategy.extra_shapes(model).stay else ""
