"""What pyproject.toml cannot say: a wheel carries ``pretrained/`` and ``configs/`` inside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Copies both folders; an editable install reads them where they are."""

    def run(self) -> None:
        """Build the package, then add the folders."""
        super().run()
        for name in () if self.editable_mode else ("pretrained", "configs"):
            target = Path(self.build_lib, "orthogan", name)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            # weights of feature extractors may lie in pretrained/ too: they have other licenses
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("*.pth", "*.pt", ".*"))


setup(cmdclass={"build_py": BuildPy})
