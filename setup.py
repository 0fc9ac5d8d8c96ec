"""What pyproject.toml cannot say: the wheel has ``pretrained/`` and ``configs/``, and absolute links in its README."""

import re
import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
PICTURES = (".gif", ".jpg", ".png", ".svg", ".webp")
LINK = re.compile(r"""(\]\(|\b(?:href|src)=")(?![a-z]+:|[#/])([^)\s"#]+)""")


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


def readme() -> str:
    """README.md as a package index shows it, which has neither our files nor our pictures."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def absolute(match: re.Match[str]) -> str:
        kind = "raw" if match[2].endswith(PICTURES) else "blob"
        return f"{match[1]}{project['urls']['Repository']}/{kind}/main/{match[2]}"

    return LINK.sub(absolute, (HERE / "README.md").read_text(encoding="utf-8"))


setup(cmdclass={"build_py": BuildPy}, long_description=readme(), long_description_content_type="text/markdown")
