"""Statistics over sites from their released aggregates: intervals, tests and verdicts."""

from typing import Any

Report = dict[str, Any]
"""A run's report, or an object in it, as `flfed run show --json` has it."""
