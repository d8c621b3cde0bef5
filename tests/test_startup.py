"""A short run starts quickly: what it imports, and what it leaves to those who need it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = {
    "alembic": "of Flower's own database", "altair": "only draws pages", "matplotlib": "of no command",
    "networkx": "of torch's compiler", "opacus": "of no run without it", "ray": "of engine ray",
    "scipy.stats": "half a second; scipy.special has what is needed",
    "sklearn": "half a second; a linear model tuned with others, or whole folds, need none of it",
    "streamlit": "only shows pages",
    "sympy": "of torch's compiler",
    "torch._dynamo": "a second: torch.optim.SGD and vmap load it",
    "torch._inductor": "of torch's compiler",
}  # fmt: skip
"""What a tiny run loads none of, and why."""
RUN = """
import json, sys, time
sys.argv = ["flfed", "study", "run", "preterm-birth", "--set", "rounds=1", "--set", "compare.site-model=same"]
from flfed.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def loaded(code: str, home: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "FLFED_HOME": str(home)}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.studies
def test_a_tiny_run_loads_nothing_that_only_other_commands_need(home: Path):
    found = loaded(RUN, home)
    assert (found["code"] or 0) == 0
    assert {"torch", "flwr", "pandas", "sqlalchemy"} <= set(found["modules"])
    assert {name: why for name, why in HEAVY.items() if name in found["modules"]} == {}
    assert len(found["modules"]) < 2700


def test_no_module_imports_scipy_stats():
    sources = {path: path.read_text(encoding="utf-8") for path in (Path(__file__).parents[1] / "flfed").rglob("*.py")}
    imports = [
        path.name for path, text in sources.items() if re.search(r"^\s*(?:from|import) scipy\.stats", text, re.M)
    ]
    assert len(sources) > 400 and imports == []


@pytest.mark.parametrize("code", [
    "from flfed.federation.engines.engine import list_sites; from flfed.federation.server.preflight import check",
    "import flfed.deployment.gate.gate",
])  # fmt: skip
def test_a_check_of_a_study_and_a_gate_that_waits_load_no_torch(code: str, home: Path):
    modules = loaded(f"import json, sys; {code}; print(json.dumps(sorted(sys.modules)))", home)
    assert "numpy" in modules and "torch" not in modules
