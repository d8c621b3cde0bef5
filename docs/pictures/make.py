"""Make the pictures of the app that the README shows: `make pictures`, with Debian's chromium.

It runs the studies itself, in a store of its own; the files of heart-disease are downloaded, or taken
from the folder of data files that `FLFED_TEST_DATA` names.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHROMIUM = "/usr/bin/chromium"
HEIGHT = 900
STUDIES = (("breast-cancer-dp-3",), ("heart-disease", "--repeats", "10"))
"""The last one is the newest, which the pages open by themselves."""
PICTURES = {
    "overview": "overview",
    "sites": "sites?site=hungary",
    "rounds": "rounds",
    "curves": "curves",
    "data": "data",
    "privacy": "privacy?run={breast-cancer-dp-3}",
}
"""The name of each picture and the address it shows."""


def flfed(words: list[str], environment: dict[str, str]) -> None:
    """Run a command of flfed to its end."""
    subprocess.run([sys.executable, "-c", "from flfed.cli import main; main()", *words], env=environment, check=True)


@contextmanager
def served(environment: dict[str, str]) -> Iterator[str]:
    """Serve the app on a free port while the block runs, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["app", "--headless", "--port", str(port)]
    app = subprocess.Popen([sys.executable, "-c", "from flfed.cli import main; main()", *words], env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        app.terminate()
        app.wait(20)


def take(browser: Browser, address: str, file: Path) -> None:
    """Take one picture, once the page stands and its charts are drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": HEIGHT}, color_scheme="light")
    page.goto(address)
    page.locator("[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas").first.wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(2500)
    page.screenshot(path=file)
    page.close()
    print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Run the studies, open the app and take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"FLFED_HOME": folder, "FLFED_STORE": f"sqlite:///{folder}/runs.db"}
        data = os.environ.get("FLFED_TEST_DATA")
        flfed(["data", "get", "heart-disease", *(["--from", data] if data else [])], environment)
        for words in STUDIES:
            flfed(["study", "run", *words], environment)
        os.environ.update(environment)
        from flfed.records.reading import RunReader

        with RunReader.open() as reader:
            series = {run.study: run.series for run in reader.runs()}
        with served(environment) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for name, path in PICTURES.items():
                take(browser, f"{address}/{path.format(**series)}", HERE / f"{name}.png")
            browser.close()


if __name__ == "__main__":
    main()
