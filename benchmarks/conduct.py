"""One run of a study at its institutions, with a note of when each round was over: `python -m benchmarks.conduct`.

What `flfed coordinator run` calls, with an observer; in the coordinator's home (`FLFED_HOME`).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import fmean

from flfed.federation.server.run import run
from flfed.records.store.reader import RunReader
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint


def main(words: list[str]) -> None:
    """Run the study of a file at some sites; write the times, then losses and final arrays."""
    study, out = Study.load(words[0]), Path(words[1])
    with out.with_suffix(".marks").open("a", buffering=1) as marks:

        def mark(stage: str, number: int) -> None:
            if stage == "round":
                marks.write(f"{time.time()}\n")

        result = run(study, engine="deployment", sites=words[2:], observer=mark)
    if result.status != "completed":
        raise RuntimeError(f"the run ended as {result.status}")
    with RunReader.open() as reader:
        of_rounds = [reader.metrics(result.run, number) for number in range(1, study.rounds + 1)]
    found = {
        "losses": [fmean(row.value for row in rows if (row.arm, row.metric) == ("fit", "loss")) for rows in of_rounds],
        "arrays": {name: array.ravel().tolist() for name, array in checkpoint.final(result.run).arrays.items()},
    }
    part = out.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(out)


if __name__ == "__main__":
    main(sys.argv[1:])
