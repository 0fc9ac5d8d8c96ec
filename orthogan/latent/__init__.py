"""Latent space: directions, traversals and samples, and pictures of them."""

from orthogan.drawing.grid import class_layout, image_grid, save_png
from orthogan.latent.clip import load_clip
from orthogan.latent.directions import Directions, random_control
from orthogan.latent.discovery.native import latent_axes, native_directions
from orthogan.latent.discovery.sefa import first_layer_directions
from orthogan.latent.factors import FactorReader, describe_factors, measure_effects
from orthogan.latent.labels import Labels
from orthogan.latent.latents import Latents
from orthogan.latent.render import render
from orthogan.latent.traverse import ContactSheet, Traversal, contact_sheet, traverse
from orthogan.models.generate import in_space, list_spaces, model_hash, truncate
from orthogan.models.samples import (
    Samples,
    choose_classes,
    parse_classes,
    parse_layers,
    parse_seeds,
    sample_images,
    save_samples,
)

__all__ = [
    "ContactSheet",
    "Directions",
    "FactorReader",
    "Labels",
    "Latents",
    "Samples",
    "Traversal",
    "choose_classes",
    "class_layout",
    "contact_sheet",
    "describe_factors",
    "first_layer_directions",
    "image_grid",
    "in_space",
    "latent_axes",
    "list_spaces",
    "load_clip",
    "measure_effects",
    "model_hash",
    "native_directions",
    "parse_classes",
    "parse_layers",
    "parse_seeds",
    "random_control",
    "render",
    "sample_images",
    "save_png",
    "save_samples",
    "traverse",
    "truncate",
]
