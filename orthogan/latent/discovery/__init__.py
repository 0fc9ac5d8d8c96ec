"""Methods that find directions in the latent space of a generator, one per file; each returns ``Directions``.

When to use which: ``sefa`` (closed form, any first linear layer), ``pca`` (a later layer), ``jacobian`` (any network
with a latent of up to some hundred dimensions), ``hessian`` and ``orojar`` (if the others have ties), ``learned``
(takes minutes to hours). With names: ``labels`` (of pictures, by seed), ``marked`` (two groups of pictures),
``oracle`` (a classifier of known factors), ``text`` (with CLIP).
"""

from orthogan.latent.discovery.discover import Discovery, discover
from orthogan.latent.discovery.hessian import hessian
from orthogan.latent.discovery.jacobian import jacobian
from orthogan.latent.discovery.labels import labels
from orthogan.latent.discovery.learned import learned
from orthogan.latent.discovery.marked import marked
from orthogan.latent.discovery.merge import merge
from orthogan.latent.discovery.methods import DIRECTION_METHODS, find_directions, options_of
from orthogan.latent.discovery.native import latent_axes, native_directions
from orthogan.latent.discovery.oracle import oracle
from orthogan.latent.discovery.orojar import orojar
from orthogan.latent.discovery.pca import pca
from orthogan.latent.discovery.random_basis import random_basis
from orthogan.latent.discovery.scores import rca, score
from orthogan.latent.discovery.sefa import first_layer_directions, sefa
from orthogan.latent.discovery.text import text

__all__ = [
    "DIRECTION_METHODS",
    "Discovery",
    "discover",
    "find_directions",
    "first_layer_directions",
    "hessian",
    "jacobian",
    "labels",
    "latent_axes",
    "learned",
    "marked",
    "merge",
    "native_directions",
    "options_of",
    "oracle",
    "orojar",
    "pca",
    "random_basis",
    "rca",
    "score",
    "sefa",
    "text",
]
