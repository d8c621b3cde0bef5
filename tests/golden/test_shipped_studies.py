"""The arrays of every shipped study, one repeat of each, are to the last bit as they were.

They hang on the processor and its libraries: the file keeps them by what torch computes with (`arrays`), made with
one thread (the Makefile's OMP_NUM_THREADS=1) and OpenBLAS of the wheels of NumPy and SciPy. On another processor there
is nothing to compare with. `python -m tests.golden.test_shipped_studies` writes the file anew.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from flfed import Study, run
from flfed.rows.data import datasets
from flfed.study.study import names
from tests.golden.golden_files import HERE, another_home, maker

FILE = HERE / "studies.json"
DATA = Path(os.environ.get("FLFED_TEST_DATA", HERE.parents[2] / "shared" / "data"))
PROCESSOR = f"{torch.backends.cpu.get_cpu_capability()}/{maker()}"
LEFT_OUT = {
    "breast-cancer-survival": "a statistic, whose table is brought by pip: there are no arrays",
    "loan-table": "an analysis, whose noise is the operating system's: there are no arrays",
    "portfolio": "a statistic, too",
    "stroke-aspirin": "a statistic, too",
    "stroke-logistic": "a statistic, too",
    "taiwan-credit-parties": "its arrays stay at the parties, and the noise of an encryption may round one anew",
}
"""Studies that are not here, and why."""


def ended(name: str) -> str:
    """Run one repeat of a study and return the SHA-256 of its arrays; what is compared afterwards changes none."""
    study = Study.load(name)
    # Seeded noise follows from the whole text.
    if study.privacy.name == "none":
        study = study.replace({"resamples": 200})
    dataset = datasets.load(study.dataset.name)
    if dataset.absent():
        datasets.get(dataset, from_folder=DATA, progress=lambda line: None)
    result = run(study)
    if result.status != "completed":
        raise RuntimeError(f"{name}: {result.status}")
    found: str = result.report["arrays-sha256"]
    return found


@pytest.mark.proof
@pytest.mark.usefixtures("test_data")
@pytest.mark.parametrize("name", [name for name in names() if name not in LEFT_OUT])
def test_a_shipped_study_ends_with_the_arrays_that_it_ended_with(name: str):
    kept = json.loads(FILE.read_text(encoding="utf-8")).get(PROCESSOR, {})
    if name not in kept:
        pytest.skip(f"no arrays of {name} are kept of a processor {PROCESSOR}")
    assert ended(name) == kept[name]


def test_every_shipped_study_is_kept_or_left_out_for_a_reason():
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    # Not every processor was there when a study's noise was drawn anew.
    assert {name for of in kept.values() for name in of} | set(LEFT_OUT) == set(names())
    for of in kept.values():
        assert len(set(of.values())) == len(of) and {len(sha) for sha in of.values()} == {64}


if __name__ == "__main__":
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    with another_home():
        kept[PROCESSOR] = {name: ended(name) for name in names() if name not in LEFT_OUT}
    FILE.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
