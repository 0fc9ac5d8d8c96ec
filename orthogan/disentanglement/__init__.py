"""Measures of disentanglement: of codes against known factors, of codes alone, and of a generator's latent.

Each is a pure function; the name of its result includes the variant of the metric. A generator has codes, the
coordinates of its latent, but no factors: a factor classifier predicts them from its images, or an encoder computes
codes of real images. ``disentangle`` does all this for several metrics at once.
"""

from orthogan.disentanglement.centrality import Centrality, model_centrality
from orthogan.disentanglement.codes.coordinates import Coordinates, get_coordinates
from orthogan.disentanglement.codes.encoder import PostHocEncoder, train_encoder
from orthogan.disentanglement.codes.merging import Merging, get_merging
from orthogan.disentanglement.codes.oracle import (
    FactorClassifier,
    TrainingRecipe,
    load_oracle,
    oracle_for,
    save_oracle,
    train_oracle,
)
from orthogan.disentanglement.codes.predicted import Predicted, predicted_factors
from orthogan.disentanglement.codes.reader import OracleReader, factor_reader
from orthogan.disentanglement.codes.recognizer import Recognizer, recognizer
from orthogan.disentanglement.codes.source import GridSource, LabelledSource, SpriteSource
from orthogan.disentanglement.disentangle import disentangle
from orthogan.disentanglement.metrics.activity import activity
from orthogan.disentanglement.metrics.beta_vae import beta_vae
from orthogan.disentanglement.metrics.code_vote import code_vote
from orthogan.disentanglement.metrics.dci import completeness, dci, disentanglement
from orthogan.disentanglement.metrics.dci_mig import dci_mig
from orthogan.disentanglement.metrics.explicitness import explicitness
from orthogan.disentanglement.metrics.factor_vae import factor_vae
from orthogan.disentanglement.metrics.infomec import infoc, infoe, infom
from orthogan.disentanglement.metrics.irs import irs
from orthogan.disentanglement.metrics.jemmig import jemmig
from orthogan.disentanglement.metrics.mig import mig
from orthogan.disentanglement.metrics.modularity import modularity, modularity_per_code
from orthogan.disentanglement.metrics.sap import sap, sap_correlation
from orthogan.disentanglement.metrics.total_correlation import (
    gaussian_total_correlation,
    gaussian_wasserstein_correlation,
    mean_pairwise_mutual_information,
)
from orthogan.disentanglement.metrics.vp import vp
from orthogan.disentanglement.metrics.z_min import z_min
from orthogan.disentanglement.mutual_information import discretise, entropies, mutual_information_matrix
from orthogan.disentanglement.registry import METRICS, metric_names, read_options, register_metric
from orthogan.disentanglement.result import Across, GeneratorScore, Interval, Summary, across, interval, table
from orthogan.disentanglement.score import Score
from orthogan.latent.activeness import activeness

__all__ = [
    "METRICS",
    "Across",
    "Centrality",
    "Coordinates",
    "FactorClassifier",
    "GeneratorScore",
    "GridSource",
    "Interval",
    "LabelledSource",
    "Merging",
    "OracleReader",
    "PostHocEncoder",
    "Predicted",
    "Recognizer",
    "Score",
    "SpriteSource",
    "Summary",
    "TrainingRecipe",
    "across",
    "activeness",
    "activity",
    "beta_vae",
    "code_vote",
    "completeness",
    "dci",
    "dci_mig",
    "discretise",
    "disentangle",
    "disentanglement",
    "entropies",
    "explicitness",
    "factor_reader",
    "factor_vae",
    "gaussian_total_correlation",
    "gaussian_wasserstein_correlation",
    "get_coordinates",
    "get_merging",
    "infoc",
    "infoe",
    "infom",
    "interval",
    "irs",
    "jemmig",
    "load_oracle",
    "mean_pairwise_mutual_information",
    "metric_names",
    "mig",
    "model_centrality",
    "modularity",
    "modularity_per_code",
    "mutual_information_matrix",
    "oracle_for",
    "predicted_factors",
    "read_options",
    "recognizer",
    "register_metric",
    "sap",
    "sap_correlation",
    "save_oracle",
    "table",
    "train_encoder",
    "train_oracle",
    "vp",
    "z_min",
]
