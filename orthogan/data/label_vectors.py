"""Labels that are vectors: several attributes per image, or numbers such as the pose of a camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orthogan.data.source import Annotation
from orthogan.errors import UserError

MOST_NUMBERS = 1024  # per vector
MOST_VECTORS = 65_536  # different ones: each network of a model stores all of them


def vector_annotation(values: np.ndarray, names: Sequence[str] = ()) -> Annotation:
    """Return the annotation of images whose labels are the vectors ``values`` (N, K), of any real type.

    Every different vector becomes a class. A class is named by its vector: the names of the attributes that an image
    has, joined by "+", if all values are 0 or 1 and the attributes have ``names``, else the numbers.

    Raises:
        UserError: another shape or type, NaN, more than 1,024 numbers per vector, or more than 65,536 different
            vectors. The message does not name a file.

    Example:
        >>> import numpy as np
        >>> from orthogan.data.label_vectors import vector_annotation
        >>> note = vector_annotation(np.array([[1, 1], [0, 1], [0, 0], [1, 1]]), ["hat", "beard"])
        >>> list(note.class_names), note.labels
        (['none', 'beard', 'hat+beard'], array([2, 1, 0, 2]))
    """
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise UserError(f"label vectors must be numbers of shape (N, K), not {values.dtype} {values.shape}")
    if not 1 <= values.shape[1] <= MOST_NUMBERS:
        raise UserError(f"label vectors have {values.shape[1]} numbers; 1 to {MOST_NUMBERS:,} are supported")
    if names and len(names) != values.shape[1]:
        raise UserError(f"label vectors have {values.shape[1]} numbers, but there are {len(names)} names")
    with np.errstate(over="ignore"):
        values = np.asarray(values, np.float32) + np.float32(0)  # -0 becomes 0
    if not np.isfinite(values).all():
        raise UserError("label vectors contain NaN or infinite values")
    vectors, labels = np.unique(values, axis=0, return_inverse=True)
    if len(vectors) > MOST_VECTORS:
        raise UserError(
            f"there are {len(vectors):,} different label vectors, and at most {MOST_VECTORS:,} are supported; use "
            "fewer attributes, or round the numbers"
        )
    if len(vectors) < 2:
        return Annotation(why_unlabeled="all its label vectors are equal")
    return Annotation(
        labels.reshape(-1).astype(np.int64),
        [name_vector(row, names) for row in vectors],
        label_vectors=vectors,
        label_names=names,
    )


def name_vector(vector: np.ndarray, names: Sequence[str] = ()) -> str:
    """Return the name of the class that a vector (K,) stands for; see ``vector_annotation``."""
    if names and ((vector == 0) | (vector == 1)).all():
        return "+".join(name for name, value in zip(names, vector, strict=True) if value) or "none"
    return " ".join(f"{value:.6g}" for value in vector.tolist())
