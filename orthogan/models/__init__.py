"""Generators and discriminators, one family per file, and how they are built, saved and loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orthogan.lazy import lazy_names

if TYPE_CHECKING:
    from orthogan.models.codes import Codes, add_codes
    from orthogan.models.families.dcgan import DCGANDiscriminator, DCGANGenerator
    from orthogan.models.families.dcgan_tutorial import DCGANTutorialDiscriminator, DCGANTutorialGenerator
    from orthogan.models.families.eigengan import EigenGANDiscriminator, EigenGANGenerator
    from orthogan.models.families.infogan import InfoGANDiscriminator, InfoGANGenerator
    from orthogan.models.families.official.biggan import BigGANDeepGenerator, BigGANDiscriminator, BigGANGenerator
    from orthogan.models.families.official.lucidrains import LucidrainsStyleGAN2Generator
    from orthogan.models.families.official.r3gan import OfficialR3GANDiscriminator, OfficialR3GANGenerator
    from orthogan.models.families.official.stylegan2 import (
        OfficialStyleGAN2Discriminator,
        OfficialStyleGAN2Generator,
    )
    from orthogan.models.families.official.stylegan3 import StyleGAN3Generator
    from orthogan.models.families.pgan import PGANDiscriminator, PGANGenerator
    from orthogan.models.families.r3gan import R3GANDiscriminator, R3GANGenerator
    from orthogan.models.families.simple_gan import SimpleGANDiscriminator, SimpleGANGenerator
    from orthogan.models.families.sngan import SNGANDiscriminator, SNGANGenerator
    from orthogan.models.families.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
    from orthogan.models.families.wgan_gp import WGANGPDiscriminator, WGANGPGenerator
    from orthogan.models.label_table import ClassEmbedding, LabelTable, add_label_table
    from orthogan.models.open import OpenedModel, load_classifier, load_discriminator, load_generator, open_model
    from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator, as_generator
    from orthogan.models.saved import save_generator
    from orthogan.models.shipped import shipped_names

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "BigGANDeepGenerator",
    "BigGANDiscriminator",
    "BigGANGenerator",
    "ClassEmbedding",
    "Codes",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DCGANTutorialDiscriminator",
    "DCGANTutorialGenerator",
    "Discriminator",
    "EigenGANDiscriminator",
    "EigenGANGenerator",
    "Generator",
    "InfoGANDiscriminator",
    "InfoGANGenerator",
    "LabelTable",
    "LucidrainsStyleGAN2Generator",
    "OfficialR3GANDiscriminator",
    "OfficialR3GANGenerator",
    "OfficialStyleGAN2Discriminator",
    "OfficialStyleGAN2Generator",
    "OpenedModel",
    "PGANDiscriminator",
    "PGANGenerator",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "SNGANDiscriminator",
    "SNGANGenerator",
    "SimpleGANDiscriminator",
    "SimpleGANGenerator",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "StyleGAN3Generator",
    "WGANGPDiscriminator",
    "WGANGPGenerator",
    "add_codes",
    "add_label_table",
    "as_generator",
    "load_classifier",
    "load_discriminator",
    "load_generator",
    "open_model",
    "save_generator",
    "shipped_names",
]

# imported on first use: reading a config only needs the names
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "codes": ("Codes", "add_codes"),
        "families.dcgan": ("DCGANDiscriminator", "DCGANGenerator"),
        "families.dcgan_tutorial": ("DCGANTutorialDiscriminator", "DCGANTutorialGenerator"),
        "families.eigengan": ("EigenGANDiscriminator", "EigenGANGenerator"),
        "families.infogan": ("InfoGANDiscriminator", "InfoGANGenerator"),
        "families.official.biggan": ("BigGANDeepGenerator", "BigGANDiscriminator", "BigGANGenerator"),
        "families.official.lucidrains": ("LucidrainsStyleGAN2Generator",),
        "families.official.r3gan": ("OfficialR3GANDiscriminator", "OfficialR3GANGenerator"),
        "families.official.stylegan2": ("OfficialStyleGAN2Discriminator", "OfficialStyleGAN2Generator"),
        "families.official.stylegan3": ("StyleGAN3Generator",),
        "families.pgan": ("PGANDiscriminator", "PGANGenerator"),
        "families.r3gan": ("R3GANDiscriminator", "R3GANGenerator"),
        "families.simple_gan": ("SimpleGANDiscriminator", "SimpleGANGenerator"),
        "families.sngan": ("SNGANDiscriminator", "SNGANGenerator"),
        "families.stylegan2": ("StyleGAN2Discriminator", "StyleGAN2Generator"),
        "families.wgan_gp": ("WGANGPDiscriminator", "WGANGPGenerator"),
        "label_table": ("ClassEmbedding", "LabelTable", "add_label_table"),
        "open": ("OpenedModel", "load_classifier", "load_discriminator", "load_generator", "open_model"),
        "protocol": ("DISCRIMINATORS", "GENERATORS", "Discriminator", "Generator", "as_generator"),
        "saved": ("save_generator",),
        "shipped": ("shipped_names",),
    },
)
