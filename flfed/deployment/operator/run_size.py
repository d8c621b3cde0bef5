"""How many bytes a run takes at each site, before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from flfed.deployment.gate.message_schema import StudyMessages, Way
from flfed.deployment.operator.secure_sums import has_sums
from flfed.deployment.operator.wording import size_in_bytes
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.study.study import Study


def bytes_of_runs(study: Study, schema: Schema, sites: Sequence[Site]) -> dict[str, dict[str, int]]:
    """Return the most bytes of a run of the study at each site, and how many runs its policy's day has room for.

    Every round is asked once. No table is read.
    """
    known: dict[tuple[int, int, str], dict[str, int]] = {}
    found = {}
    pinned = len(sites) if has_sums(study, len(sites)) else 0
    for site in sites:
        # A message of one site is as long as another's with as long a name and the same policy.
        like = (len(site.name), len(site.title or site.name), repr(site.policy))
        if like not in known:
            known[like] = _bytes_of_runs(StudyMessages(study, schema, site, pinned))
        found[site.name] = known[like]
    return found


def _bytes_of_runs(messages: StudyMessages) -> dict[str, int]:
    a_run = messages.run_bytes()
    a_day = messages.site.policy.daily_bytes
    return {
        "run-to-server": a_run,
        "run-to-site": messages.run_bytes("to-site"),
        "round-to-server": messages.round_bytes(),
        "round-to-site": messages.round_bytes("to-site"),
        "daily-bytes": a_day,
        "runs-a-day": a_day // a_run,
    }


def bytes_in_words(found: Mapping[str, int]) -> str:
    """Return the bytes of a run at one site, of `bytes_of_runs`, in words.

    Examples
    --------
    >>> of_a_run = {"run-to-server": 3_100_000, "run-to-site": 900_000}
    >>> of_a_round = {"round-to-server": 30_000, "round-to-site": 9_000}
    >>> for said in bytes_in_words(of_a_run | of_a_round | {"daily-bytes": 20_000_000, "runs-a-day": 6}).split("; "):
    ...     print(said)
    a run sends at most 3.1 MB (30 kB a round) of the 20 MB a day that its policy allows, so at most 6 runs a day
    it gets at most 900 kB (9 kB a round)
    >>> "would stop: raise daily-bytes" in bytes_in_words(
    ...     of_a_run | of_a_round | {"daily-bytes": 3_000_000, "runs-a-day": 0}
    ... )
    True
    """
    sizes = {}
    for way in get_args(Way):
        sizes[way] = size_in_bytes(found[f"run-{way}"])
        a_round = found[f"round-{way}"]
        if a_round:
            sizes[way] += f" ({size_in_bytes(a_round)} a round)"
    out = sizes["to-server"]
    back = sizes["to-site"]
    a_day = size_in_bytes(found["daily-bytes"])
    runs = found["runs-a-day"]
    gets = f"it gets at most {back}"
    if not runs:
        return (
            f"a run may send {out}, more than the {a_day} a day that its policy allows, and would stop: "
            f"raise daily-bytes in policy.toml first; {gets}"
        )
    many = "1 run" if runs == 1 else f"{runs:,} runs"
    return f"a run sends at most {out} of the {a_day} a day that its policy allows, so at most {many} a day; {gets}"
