"""Finding directions in a generator's latent space, one method a file; each returns ``Directions``.

Which suits which net: ``sefa`` (closed form, any first linear layer), ``pca`` (a layer behind it), ``jacobian`` (any
net, the latent up to some hundreds), ``hessian`` and ``orojar`` (where those tie), ``learned`` (minutes to hours).
"""

from orthogan.latent.discovery.discover import METHODS, Discovery, discover
from orthogan.latent.discovery.hessian import hessian, hessian_penalty
from orthogan.latent.discovery.jacobian import jacobian
from orthogan.latent.discovery.learned import learned
from orthogan.latent.discovery.merge import merge
from orthogan.latent.discovery.orojar import orojar, orojar_penalty
from orthogan.latent.discovery.pca import pca
from orthogan.latent.discovery.random_basis import identity_basis, random_basis
from orthogan.latent.discovery.scores import rca, score
from orthogan.latent.discovery.sefa import sefa

__all__ = [
    "METHODS",
    "Discovery",
    "discover",
    "hessian",
    "hessian_penalty",
    "identity_basis",
    "jacobian",
    "learned",
    "merge",
    "orojar",
    "orojar_penalty",
    "pca",
    "random_basis",
    "rca",
    "score",
    "sefa",
]
