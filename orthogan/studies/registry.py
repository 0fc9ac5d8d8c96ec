"""The studies by name; a study of the user's own is named as ``module:STUDY``."""

from __future__ import annotations

import difflib

from orthogan.errors import UserError
from orthogan.named_code import import_named
from orthogan.studies.study import Study

# name -> module with a STUDY; a new study is one file and one line here
STUDIES = {
    "srn-gan": "orthogan.studies.papers.srn_gan",
    "srn-generalisation": "orthogan.studies.papers.srn_generalisation",
    "covariance": "orthogan.studies.papers.covariance",
    "opt": "orthogan.studies.papers.opt",
    "kernel-orthogonality": "orthogan.studies.papers.kernel_orthogonality",
    "latent": "orthogan.studies.papers.latent",
}


def get_study(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: there is none, or what ``module:NAME`` names is no study.
    """
    if name not in STUDIES and ":" not in name:
        near = difflib.get_close_matches(name, STUDIES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(STUDIES)}, or name your own as module:STUDY"
        raise UserError(f"study {name!r}: there is none of that name; {hint}")
    found = import_named(f"{STUDIES[name]}:STUDY" if name in STUDIES else name, "study")
    if not isinstance(found, Study):
        raise UserError(f"study {name!r}: is a {type(found).__name__}, not an orthogan.studies.Study")
    return found


def listing() -> str:
    """For the user: each study with its title and its size at each scale."""
    lines = []
    for name in STUDIES:
        study = get_study(name)
        lines.append(f"{name}: {study.title}")
        for scale_name, scale in study.scales.items():
            runs = len(study.methods) * len(scale.settings)
            where = f" x {len(scale.settings)} settings" if len(scale.settings) > 1 else ""
            lines.append(
                f"  {scale_name:<6} {len(study.methods)} methods{where} x {scale.seeds} seeds = {runs * scale.seeds} "
                f"runs. {scale.note}".rstrip()
            )
    return "\n".join(lines)
