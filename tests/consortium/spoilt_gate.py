"""A gate whose installed client app was changed: its updates have one array too many. `spoilt_gate.py SITE`."""

from __future__ import annotations

import sys
from typing import Any

from flfed.deployment.processes.executor import gate_of, work
from flfed.paths import SiteFolder


def make(folder: SiteFolder) -> Any:
    """Change the client app, then make the gate of the site as it is."""
    # Only here: torch, which comes with it, starts threads, and the process must have left the network before.
    import numpy as np
    from flwr.app import Array

    from flfed.federation.client.client import SiteClient

    app = SiteClient.app

    def changed(self: SiteClient) -> Any:
        def answer(message: Any, context: Any) -> Any:
            reply = app(self)(message, context)
            if reply.has_content() and "arrays" in reply.content:
                reply.content["arrays"]["rows"] = Array(np.arange(9.0))
            return reply

        return answer

    SiteClient.app = changed  # type: ignore[method-assign]  # - what is shown is that the gate does not trust it
    return gate_of(folder)


if __name__ == "__main__":
    work(SiteFolder(sys.argv[1]), make)
