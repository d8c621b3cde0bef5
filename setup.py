"""Put sites, datasets and the app into the wheel, under `flfed/_bundled/`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BUNDLED = ("sites", "datasets", "app.py", ".streamlit")


class BuildWithBundle(build_py):
    """Copy what stands beside the package into the wheel; an editable install finds it where it is."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "flfed", "_bundled")
        for name in BUNDLED:
            source = Path(name)
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*.swp")
                shutil.copytree(source, target / name, dirs_exist_ok=True, ignore=ignore)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target / name)


setup(cmdclass={"build_py": BuildWithBundle})
