"""A generator as the folder of a model, with a short card, on the disk or on the Hugging Face Hub.

``PyTorchModelHubMixin`` of huggingface_hub is not a base class. It writes other files (model.safetensors, config.json),
takes the class from the caller, not from the config in the file, reads pickles where there is nothing else, and needs
the package to define a class. The methods and their arguments have the same names. The patterns and the
``model_card_kwargs`` of the mixin are missing, because there are two files and the config describes the card.
"""

from __future__ import annotations

from pathlib import Path

import torch

from orthogan.arguments import some_path
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.io.weights import write_sealed
from orthogan.io.write import disk_errors, write_text
from orthogan.models.card import Card, usage
from orthogan.models.generate import image_size
from orthogan.models.hub import check_repo, upload
from orthogan.models.protocol import Generator
from orthogan.models.saved import check_partner, metadata
from orthogan.models.shipped import CARD, GENERATOR, find_shipped
from orthogan.size import color_in_words, size_in_words


def save_pretrained(
    net: Generator, folder: str | Path, *, config: Config | None = None, license: str = "", name: str = ""
) -> Path:
    """Write the folder of a generator; see ``Generator.save_pretrained``."""
    config = config or (net.saved.config if net.saved is not None else None)
    if config is None:
        raise UserError(
            f"{type(net).__name__}: this generator was not loaded from a file, so its config is not known; give "
            "config=, the config that it was built from"
        )
    folder = some_path("folder", folder)
    config = shared_config(config)
    name = name or folder.resolve().name
    tensors = {key: value for key, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    extra = dict(net.saved.extra) if net.saved is not None else {}
    check_partner(folder, extra)
    write_sealed(folder / GENERATOR, tensors, metadata(config, net.num_classes, {**extra, "name": name}))
    with disk_errors(folder):
        described = (folder / CARD).exists()
    if not described:
        write_text(folder / CARD, _card(net, config, name, license).markdown())
    return folder


def save_and_push(
    net: Generator,
    folder: str | Path,
    repo: str | None,
    *,
    config: Config | None = None,
    license: str = "",
    name: str = "",
    commit_message: str = "Upload an orthogan model",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> tuple[Path, str]:
    """Write the folder of a generator, upload it, and return it and the address; see ``Generator.push_to_hub``."""
    check_repo(repo or "")
    assert repo is not None
    folder = save_pretrained(net, folder, config=config, license=license, name=name or repo)
    address = upload(
        repo,
        {part: folder / part for part in (GENERATOR, CARD)},
        revision=branch,
        private=private,
        message=commit_message,
        token=token,
        create_pr=create_pr,
        keep=(CARD,),
    )
    return folder, address


def shared_config(config: Config) -> Config:
    """Return ``config`` without paths of this machine."""
    init = config.model.init
    known = init is None or find_shipped(init) is not None
    model = config.model if known else config.model.model_copy(update={"init": None})
    path = config.data.path
    data = config.data.model_copy(update={"path": path and Path(path).name, "root": "data"})
    return config.model_copy(update={"out": None, "model": model, "data": data})


def _card(net: Generator, config: Config, name: str, license: str) -> Card:
    kind = config.model.generator.kind
    channels, side = image_size(net)
    block = {
        **({"license": license} if license else {}),
        "library_name": "orthogan",
        "pipeline_tag": "unconditional-image-generation",
        "tags": list(dict.fromkeys(["gan", "image-generation", "orthogan", *([kind] if ":" not in kind else [])])),
    }
    about = f"A {kind} generator of images of {size_in_words(side)}, {color_in_words(channels)}"
    classes = f" It has {net.num_classes} classes." if net.num_classes else ""
    numbers = sum(parameter.numel() for parameter in net.parameters())
    text = f"{about}, from latents of {net.latent_dim} numbers, with {numbers:,} parameters.{classes}"
    return Card(f"# {name}\n\n{text}\n\n## Use\n\n{usage(name, conditional=bool(net.num_classes))}\n", block)
