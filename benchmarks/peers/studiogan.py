"""POSTECH-CVLab/PyTorch-StudioGAN as a contender: updates of D and of G by its own WORKER, its ResNets for 32 px.

The config is its ``CIFAR10/SNGAN.yaml`` without classes and with Adam's betas of the paper. An update of G would have
as many fakes as one of D; here it is told of twice as many, as the others have. Its loop around the updates fetches
nothing but every 100 steps, so it is not missed here. Stand-ins take the place of what only its metrics, pictures,
logs and augmentations use, where that is not installed: wandb, seaborn, matplotlib, kornia, timm, requests, sklearn,
pkg_resources. Its own command line needs CUDA; the parts that are used here run without.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import packaging.version
import torch
from torch.utils.data import DataLoader

from benchmarks.gate import Gate
from benchmarks.peers.imports import Nothing, beside, check
from benchmarks.pictures import Pictures, normalising
from benchmarks.setting import Setting, source_of

NEVER = 10**9
STAND_INS = (
    *("wandb", "seaborn", "matplotlib", "matplotlib.pyplot", "kornia", "kornia.filters", "timm", "timm.models"),
    *("timm.models.layers", "requests", "sklearn", "sklearn.manifold", "sklearn.metrics", "pkg_resources"),
)
WORKERS = 8  # its default
RUN = {  # the switches of its command line that an update asks for
    "mixed_precision": False,
    "distributed_data_parallel": False,
    "synchronized_bn": False,
    "batch_statistics": False,
    "empty_cache": False,
    "langevin_sampling": False,
    "train": True,
    "freezeD": -1,
    "project": None,
    "entity": None,
    "save_dir": ".",
}


def run(setting: Setting, gate: Gate, path: str) -> None:
    """Train until the gate has had enough.

    Raises:
        UserError: ``path`` holds something else.
        ImportError: it needs a package that is not installed.
    """
    check(path, "src/worker.py", "studiogan")
    torch.manual_seed(setting.seed)
    device: Any = 0 if setting.device == "cuda" else "cpu"
    with beside(str(Path(path, "src")), STAND_INS) as made_up:
        if "pkg_resources" in made_up:  # of it one function is needed
            vars(sys.modules["pkg_resources"])["parse_version"] = packaging.version.parse
        config = _config(setting, path)
        model: Any = importlib.import_module("models.model")
        nets = model.load_generator_discriminator(
            config.DATA,
            config.OPTIMIZATION,
            config.MODEL,
            config.STYLEGAN,
            config.MODULES,
            config.RUN,
            device,
            Nothing(),
        )
        config.define_optimizer(nets[0], nets[3])
        loader = DataLoader(
            Pictures(source_of(setting).images, normalising(setting.image_channels)),
            batch_size=setting.reals,
            shuffle=True,
            num_workers=WORKERS,
            drop_last=True,
            pin_memory=setting.device == "cuda",
            persistent_workers=True,
        )
        worker = _worker(config, nets, loader, device)
    sizes = {"G": nets[0], "D": nets[3]}
    gate.facts = {f"{name} parameters": sum(p.numel() for p in net.parameters()) for name, net in sizes.items()}
    gate.facts["stand-ins"] = made_up
    worker.prepare_train_iter(0)
    for step in range(NEVER):
        gate()
        worker.train_discriminator(current_step=step)
        gate.part("D")
        config.OPTIMIZATION.batch_size = setting.generator_batch
        worker.train_generator(current_step=step)
        config.OPTIMIZATION.batch_size = setting.batch
        gate.part("G")


def _config(setting: Setting, path: str) -> Any:
    theirs: Any = importlib.import_module("config")
    found = theirs.Configurations(str(Path(path, "src/configs/CIFAR10/SNGAN.yaml")))
    for name, value in RUN.items():
        setattr(found.RUN, name, value)
    found.MODEL.g_cond_mtd = found.MODEL.d_cond_mtd = "W/O"
    found.MODEL.z_dim = setting.latent_dim
    found.MODEL.g_conv_dim, found.MODEL.d_conv_dim = setting.generator_channels // 4, setting.channels // 2
    found.OPTIMIZATION.batch_size, found.OPTIMIZATION.d_updates_per_step = setting.batch, setting.n_dis
    found.OPTIMIZATION.g_lr, found.OPTIMIZATION.d_lr = setting.generator_lr, setting.lr
    found.OPTIMIZATION.beta1, found.OPTIMIZATION.beta2 = 0.0, 0.9
    found.define_modules()
    return found


def _worker(config: Any, nets: Any, loader: Any, device: Any) -> Any:
    """Its WORKER; what it keeps for scores, logs and checkpoints is empty."""
    generator, mapping, synthesis, discriminator, average, *rest = nets
    return importlib.import_module("worker").WORKER(  # pyright: ignore[reportAttributeAccessIssue]
        cfgs=config,
        run_name="race",
        Gen=generator,
        Gen_mapping=mapping,
        Gen_synthesis=synthesis,
        Dis=discriminator,
        Gen_ema=average,
        Gen_ema_mapping=rest[0],
        Gen_ema_synthesis=rest[1],
        ema=rest[2],
        eval_model=None,
        train_dataloader=loader,
        eval_dataloader=None,
        global_rank=1,  # not the one that reports
        local_rank=device,
        mu=None,
        sigma=None,
        real_feats=None,
        logger=Nothing(),
        aa_p=None,
        best_step=0,
        best_fid=None,
        best_ckpt_path=None,
        lecam_emas=None,
        num_eval=None,
        loss_list_dict=None,
        metric_dict_during_train=None,
    )
