"""Measures of disentanglement: of codes against known factors, of codes alone, and of a generator's latent.

Each is a pure function; the name of its result says which variant of the metric it is.
"""

from orthogan.disentanglement.activeness import activeness
from orthogan.disentanglement.beta_vae import beta_vae
from orthogan.disentanglement.dci import completeness, dci, disentanglement
from orthogan.disentanglement.explicitness import explicitness
from orthogan.disentanglement.factor_vae import factor_vae
from orthogan.disentanglement.intervals import Interval, interval
from orthogan.disentanglement.irs import irs
from orthogan.disentanglement.mig import mig
from orthogan.disentanglement.modularity import modularity, modularity_per_code
from orthogan.disentanglement.mutual_information import discretise, entropies, mutual_information_matrix
from orthogan.disentanglement.sap import sap, sap_correlation
from orthogan.disentanglement.score import Score
from orthogan.disentanglement.source import GridSource, LabelledSource, SpriteSource
from orthogan.disentanglement.total_correlation import (
    gaussian_total_correlation,
    gaussian_wasserstein_correlation,
    mean_pairwise_mutual_information,
)

__all__ = [
    "GridSource",
    "Interval",
    "LabelledSource",
    "Score",
    "SpriteSource",
    "activeness",
    "beta_vae",
    "completeness",
    "dci",
    "discretise",
    "disentanglement",
    "entropies",
    "explicitness",
    "factor_vae",
    "gaussian_total_correlation",
    "gaussian_wasserstein_correlation",
    "interval",
    "irs",
    "mean_pairwise_mutual_information",
    "mig",
    "modularity",
    "modularity_per_code",
    "mutual_information_matrix",
    "sap",
    "sap_correlation",
]
