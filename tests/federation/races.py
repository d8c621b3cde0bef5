"""Two processes that reserve on one site's account at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

RACING = """
import sys
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.refusals import NotSpent
from flfed.rows.data.policy import Policy
from flfed.updates.accounting import Release
folder = SiteFolder("site-01")
spending = PrivacyAccount(ledger_of(folder), "small", Policy(epsilon={epsilon}), prepare=folder.make)
spending.spent()
print("ready", flush=True)
sys.stdin.readline()
done = 0
try:
    while True:
        spending.reserve({reserved})
        done += 1
except NotSpent:
    print(done)
"""


def race(reserved: str, epsilon: float, names: Sequence[str]) -> list[int]:
    """Return how often each process could reserve until the budget refused; `sys.argv[1]` is its name there."""
    code = RACING.format(reserved=reserved, epsilon=epsilon)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", code, name], **pipes) for name in names]
    assert [process.stdout.readline() for process in started if process.stdout] == ["ready\n"] * 2
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [int(process.communicate(timeout=120)[0]) for process in started]
