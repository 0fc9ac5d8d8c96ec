"""Finding directions in a generator's latent space, one method a file; each returns ``Directions``.

Which suits which net: ``sefa`` (closed form, any first linear layer), ``pca`` (a layer behind it), ``jacobian`` (any
net, the latent up to some hundreds), ``hessian`` and ``orojar`` (where those tie), ``learned`` (minutes to hours).
"""

from orthogan.latent.discovery.discover import Discovery, discover
from orthogan.latent.discovery.hessian import hessian
from orthogan.latent.discovery.jacobian import jacobian
from orthogan.latent.discovery.learned import learned
from orthogan.latent.discovery.merge import merge
from orthogan.latent.discovery.methods import DIRECTION_METHODS, find_directions, options_of
from orthogan.latent.discovery.native import latent_axes, native_directions
from orthogan.latent.discovery.orojar import orojar
from orthogan.latent.discovery.pca import pca
from orthogan.latent.discovery.random_basis import random_basis
from orthogan.latent.discovery.scores import rca, score
from orthogan.latent.discovery.sefa import first_layer_directions, sefa

__all__ = [
    "DIRECTION_METHODS",
    "Discovery",
    "discover",
    "find_directions",
    "first_layer_directions",
    "hessian",
    "jacobian",
    "latent_axes",
    "learned",
    "merge",
    "native_directions",
    "options_of",
    "orojar",
    "pca",
    "random_basis",
    "rca",
    "score",
    "sefa",
]
