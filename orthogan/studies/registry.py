"""The studies by name; a study of the user's own is named as ``module:STUDY``."""

from __future__ import annotations

import difflib
import importlib

from orthogan.errors import UserError
from orthogan.studies.study import Study

# name -> module with a STUDY; a new study is one file and one line here
STUDIES = {
    "srn-gan": "orthogan.studies.srn_gan",
    "srn-generalisation": "orthogan.studies.srn_generalisation",
    "covariance": "orthogan.studies.covariance",
    "opt": "orthogan.studies.opt",
    "kernel-orthogonality": "orthogan.studies.kernel_orthogonality",
    "latent": "orthogan.studies.latent",
}


def find(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: there is none, or what ``module:NAME`` names is no study.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
    elif name in STUDIES:
        module, attribute = STUDIES[name], "STUDY"
    else:
        near = difflib.get_close_matches(name, STUDIES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(STUDIES)}, or name your own as module:STUDY"
        raise UserError(f"study {name!r}: there is none of that name; {hint}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"study {name!r}: {error}; it must be importable from where you start orthogan") from error
    if not isinstance(found, Study):
        raise UserError(f"study {name!r}: is a {type(found).__name__}, not an orthogan.studies.Study")
    return found


def listing() -> str:
    """For the user: each study with its title and its size at each scale."""
    lines = []
    for name in STUDIES:
        study = find(name)
        lines.append(f"{name}: {study.title}")
        for scale_name, scale in study.scales.items():
            runs = len(study.methods) * len(scale.settings)
            where = f" x {len(scale.settings)} settings" if len(scale.settings) > 1 else ""
            lines.append(
                f"  {scale_name:<6} {len(study.methods)} methods{where} x {scale.seeds} seeds = {runs * scale.seeds} "
                f"runs. {scale.note}".rstrip()
            )
    return "\n".join(lines)
