"""Run pip with a short line for each package, and a sign of life every few seconds: `make demo`, `make env`.

It runs before anything is installed, with Python alone.
"""

import subprocess
import sys
import threading
import time

EVERY = 4.0
"""Most seconds without a line."""
SHOWN = ("Collecting ", "Building ", "Installing ", "Successfully ", "ERROR", "  error")
WIDTH = 100


def run(command: list[str], every: float = EVERY) -> int:
    """Run a command, print its lines that begin with a word of `SHOWN`, and return its exit status.

    Parameters
    ----------
    command : list of str
    every : float
        Seconds of silence after which a line says how long the command has run.
    """
    began = time.monotonic()
    over = threading.Event()
    heard = threading.Event()

    def report_life() -> None:
        while not over.wait(every):
            if not heard.is_set():
                print(f"… {time.monotonic() - began:.0f} s", flush=True)
            heard.clear()

    watch = threading.Thread(target=report_life, daemon=True)
    watch.start()
    last: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            last = [*last[-20:], line]
            if line.startswith(SHOWN):
                heard.set()
                print(line.rstrip()[:WIDTH], flush=True)
    over.set()
    watch.join()
    # What went wrong may stand in lines that were not shown.
    if process.returncode:
        print("".join(last), file=sys.stderr)
    return process.returncode


if __name__ == "__main__":
    sys.exit(run([sys.executable, "-m", "pip", *sys.argv[1:]]))
