"""The metrics by name, also by the names that other tools give them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from orthogan.errors import UserError

HABITS = {
    "fd": "fid",
    "frechet": "fid",
    "is": "isc",
    "inception_score": "isc",
    "kd": "kid",
    "pr": "prc",
    "precision": "prc",
    "recall": "prc",
    "acc": "accuracy",
}


def metric_names(given: Sequence[str], known: Sequence[str]) -> list[str]:
    """``given`` by their names in ``known``, each once: ``FID`` and ``fd`` are fid, ``precision`` is prc.

    Raises:
        UserError: no names, or unknown ones; says which known name is near.
    """
    if isinstance(given, str):
        given = given.split(",")
    found: dict[str, None] = {}
    for name in given:
        if not isinstance(name, str):
            raise UserError(f"metrics: {name!r} is no name; choose out of {', '.join(known)}")
        word = name.strip().lower().replace("-", "_")
        word = word if word in known else HABITS.get(word, word)
        if word not in known:
            variants = [each for each in known if word and each.startswith(word)]
            if len(variants) > 1:  # ppl has many definitions
                raise UserError(f"metrics: {name.strip()!r} may be one of {', '.join(variants)}; name it in full")
            near = difflib.get_close_matches(word, [*known, *HABITS], 1)
            meant = HABITS.get(near[0], near[0]) if near else ""
            hint = f"did you mean {meant}?" if meant in known else f"choose out of {', '.join(known)}"
            raise UserError(f"metrics: there is no {name.strip()!r}; {hint}")
        found[word] = None
    if not found:
        raise UserError(f"metrics: none given; choose out of {', '.join(known)}")
    return list(found)
