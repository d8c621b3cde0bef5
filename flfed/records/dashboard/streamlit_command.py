"""Streamlit's own command without tracebacks at Ctrl-C."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run `streamlit` with this process's arguments."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _run() -> NoReturn:
    import click
    from streamlit.web.cli import main as streamlit

    try:
        sys.exit(streamlit(prog_name="streamlit", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:  # Click's word for Ctrl-C
        raise KeyboardInterrupt from None


if __name__ == "__main__":
    main()
