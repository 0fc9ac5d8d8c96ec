"""Opening any model: a SUBJECT is found, verified and hashed once; its networks are built on first use.

model = open_model("runs/sngan")      # also a checkpoint, a .safetensors file, a shipped model or module:Class
model.config, model.class_names       # this reads only the header of the file
model.generator, model.discriminator
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orthogan.config.schema import Config
from orthogan.device import chosen_device
from orthogan.errors import UserError
from orthogan.io import checkpoint
from orthogan.io.read import printable, user_path
from orthogan.io.weights import read_metadata, read_tensors, read_weights
from orthogan.models.build import build_for_file
from orthogan.models.foreign.layout import ForeignFile, read_content, recognize, unknown
from orthogan.models.generate import keep_hash, model_hash
from orthogan.models.hub import AS_USUAL, Download, find_named
from orthogan.models.label_table import TABLE, LabelTable
from orthogan.models.modes import need_numbers
from orthogan.models.protocol import Generator, as_generator
from orthogan.models.saved import (
    CLASSIFIER,
    CLASSIFIER_FORMAT,
    DISCRIMINATOR,
    EMA,
    FORMAT,
    RAW,
    Saved,
    count,
    fill,
    form_of,
    read_header,
)
from orthogan.models.shipped import other_shipped, shipped_names
from orthogan.named_code import NeedsTrust, Trust, import_made
from orthogan.words import counted

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
ACCEPTED = "a run, a checkpoint, a .safetensors, .pth, .pt or .pkl file, or module:Class"
CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """The model that a SUBJECT names. Networks from files are in eval mode, and their parameters have no gradients.

    Args:
        name: for titles and messages: the path of the file, or ``module:attribute``.
        kind: kind of network; "code" is a network given by name, "tensors" are weights about which nothing is known.
        path: path of the file; None for code.
        from_folder: whether a run or checkpoint was named, which may have more than one network.

    Example:
        >>> from orthogan.models import open_model
        >>> opened = open_model("sprites-sngan")
        >>> opened.generator.resolution
        32
    """

    name: str
    kind: Literal["generator", "discriminator", "classifier", "tensors", "code"]
    path: Path | None = None
    from_folder: bool = False
    device: torch.device | str = "cpu"
    trust: Trust = False
    _header: Mapping[str, str] = field(default_factory=dict, repr=False)
    _verified: bool | None = field(default=None, repr=False)
    _code: nn.Module | None = field(default=None, repr=False)
    foreign: ForeignFile | None = field(default=None, repr=False)
    ema: bool = True

    @cached_property
    def about(self) -> Saved:
        """What the file says about itself: config, num_classes and further entries.

        Raises:
            UserError: there is no description, it is not valid, or it names code that needs consent.
        """
        if self.path is None:
            raise UserError(f"{self.name}: this is code, which has no config; name a run or a file that orthogan wrote")
        if self.foreign is not None:
            return self.foreign.about
        if self.kind == "tensors":
            raise self._no("generator")
        if self.kind == "discriminator":
            return _open_file(self.path.with_name(f"{RAW}.safetensors"), trust=self.trust).about
        return read_header(self.path, self._header, self.trust)

    @property
    def holds_both(self) -> bool:
        """Whether both networks of a GAN were named: by a folder, or by a foreign file that has both."""
        return (self.from_folder or self.foreign is not None) and self.has_discriminator

    @property
    def title(self) -> str:
        """The name, or the folder of a run or checkpoint if all its networks are meant, as by ``net``."""
        whole = self.from_folder and (self.kind == "classifier" or self.has_discriminator)
        return str(self.path.parent) if whole and self.name == str(self.path) and self.path else self.name

    @property
    def config(self) -> Config:
        """The config that the network was built from. Raises ``UserError`` as ``about``."""
        return self.about.config

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in label order; empty if there are no classes or their names are unknown."""
        if self._code is not None:
            return list(getattr(self._code, "class_names", []))
        return self.about.class_names

    @cached_property
    def generator(self) -> Generator:
        """The generator, from z and labels to images; see ``orthogan.Generator``.

        Raises:
            UserError: there is no generator, it is damaged, or the tensors do not fit the config.
        """
        self.need("generator")
        net = as_generator(self._code if self._code is not None else self._read("generator"))
        if self._code is None:
            net.class_names = self.class_names
            net.saved = self.about
        return keep_hash(net.to(self.device).eval())

    @cached_property
    def classifier(self) -> nn.Module:
        """The classifier: images (n, c, h, w) in [-1, 1] -> logits (n, classes). Errors as for ``generator``."""
        self.need("classifier")
        return (self._code if self._code is not None else self._read("classifier")).to(self.device).eval()

    @cached_property
    def discriminator(self) -> nn.Module:
        """The discriminator, from images (n, c, h, w) in [-1, 1] (and labels) to logits (n,).

        Its tensors are in a separate file beside that of the generator, which has the config.

        Raises:
            UserError: there is no discriminator, it is damaged, or its tensors do not fit the config.
        """
        if self.foreign is not None and self.foreign.model.discriminator is not None:
            return self._read("discriminator").to(self.device).eval()
        if self.path is None or (file := self._discriminator_file) is None:
            beside = "" if self.path is None else f" beside {self.path.name}"
            raise UserError(
                f"{printable(self.name)}: there is no {DISCRIMINATOR}.safetensors{beside}; choose a run of a GAN, or "
                "a checkpoint of it"
            )
        try:
            return self._read("discriminator", file).to(self.device).eval()
        except NeedsTrust:
            raise
        except UserError as error:
            raise UserError(
                f"{printable(file)}: does not fit the config in the generator's file: {error}; choose a checkpoint "
                "whose files belong together"
            ) from None

    @property
    def has_discriminator(self) -> bool:
        """Whether there is a file to read ``discriminator`` from."""
        if self.foreign is not None:
            return self.foreign.model.discriminator is not None
        return self._discriminator_file is not None

    @cached_property
    def hash(self) -> str:
        """``model_hash`` of the generator or classifier."""
        return model_hash(self.classifier if self.kind == "classifier" else self.generator)

    @cached_property
    def net(self) -> nn.Module:
        """All networks to look at: ``G`` and ``D`` of a GAN's run, else the one network; tensors as bare layers."""
        if self._code is not None:
            return self._code
        if self.kind == "generator" and self.holds_both:
            return nn.ModuleDict({"G": self.generator, "D": self.discriminator})
        if self.kind != "tensors":
            return getattr(self, self.kind)
        assert self.path is not None
        tensors = read_weights(self.path) if self.path.suffix in PICKLED else self._tensors(self.path)
        found = Tensors(tensors)
        if not found._modules:
            raise UserError(
                f"{printable(self.path)}: none of its {counted(len(tensors), 'tensor')} is a matrix or kernel; choose "
                "a weights file"
            )
        return found

    def need(self, kind: Literal["generator", "classifier"]) -> OpenedModel:
        """Return this model if it has such a network.

        Raises:
            UserError: it does not; the message names what it has instead.
        """
        if self.kind in (kind, "code"):
            return self
        raise self._no(kind)

    def _no(self, kind: str) -> UserError:
        if self.kind != "tensors":
            return UserError(f"{printable(self.name)}: contains a {self.kind}, but a {kind} is needed here")
        if self.path is not None and kind == "generator":
            return unknown(self.path, read_content(self.path))
        return UserError(
            f"{printable(self.name)}: does not contain an orthogan {kind} (format {form_of(self._header)!r}); "
            "files written by orthogan have their config in the metadata"
        )

    @property
    def _discriminator_file(self) -> Path | None:
        if self.path is None or self.kind not in ("generator", "discriminator"):
            return None
        file = self.path.with_name(f"{DISCRIMINATOR}.safetensors")
        return file if file.is_file() else None

    def _read(self, name: str, file: Path | None = None) -> nn.Module:
        """Read the network ``name`` from its file. Raises ``UserError`` naming the file."""
        file = file or self.path
        assert file is not None
        about = self.about
        part = None if self.foreign is None else self.foreign.part(name, ema=self.ema)
        tensors = self._tensors(file) if part is None else part.tensors
        try:
            labels = _label_table(tensors, about)
            net = build_for_file(
                about.config, name, num_classes=about.num_classes, numbers=count(tensors), labels=labels
            )
        except UserError as error:
            raise UserError(f"{printable(file)}: {error}") from error
        fill(net, tensors, file)
        return net.requires_grad_(False)

    def _tensors(self, file: Path) -> dict[str, Tensor]:
        """Read the tensors of a file and check its bytes once: by the checkpoint that it is in, else by its hash."""
        verified = _verify(file) if self._verified is None or file != self.path else self._verified
        return read_tensors(file, verified=verified, edited=self.trust is True)


def _label_table(tensors: Mapping[str, Tensor], about: Saved) -> LabelTable | None:
    """Return a table for the label vectors of a file; None if it has none. Raises UserError for other shapes."""
    vectors, counts = (tensors.get(f"{TABLE}.{name}") for name in ("vectors", "counts"))
    if vectors is None:
        return None
    names = about.label_names
    if (
        vectors.dim() != 2
        or counts is None
        or counts.shape != vectors.shape[:1]
        or len(vectors) != about.num_classes
        or len(names) not in (0, vectors.shape[1])
    ):
        raise UserError(f"its label vectors {tuple(vectors.shape)} do not fit its {about.num_classes} classes")
    return LabelTable(torch.zeros_like(vectors), torch.ones_like(counts), names)


def open_model(
    subject: str | Path,
    *,
    device: torch.device | str = "cpu",
    ema: bool = True,
    trust: Trust = False,
    download: Download = AS_USUAL,
) -> OpenedModel:
    """Open what ``subject`` names. Only ``user/model`` is downloaded, and no foreign code runs without consent.

    Args:
        subject: a run folder (its newest complete checkpoint), a checkpoint folder, the folder of a model, a
            ``.safetensors`` or ``.pth`` file, the name of a shipped model, ``user/model`` or
            ``user/model@revision`` on the Hugging Face Hub, or ``module:net``; ``module:Class`` and
            ``module:function`` are called without arguments, under a fixed seed.
        device: device of the networks.
        ema: use the averaged weights of a generator if there are any.
        trust: by default a file may only name orthogan's own classes. True lets it name any ``module:Class``, which is
            then imported and run; a list of names allows only these.
        download: how a model on the Hub is downloaded.

    Raises:
        UserError: there is no such model, it is damaged, or it names other code.

    Example:
        >>> from orthogan.models import open_model
        >>> opened = open_model("sprites-sngan")
        >>> type(opened.generator).__name__
        'SNGANGenerator'
    """
    if not isinstance(subject, str | os.PathLike) or not str(subject).strip():
        said = "an empty text" if isinstance(subject, str) else type(subject).__name__
        raise TypeError(f"expected the path or the name of a model, not {said}; shipped: {', '.join(shipped_names())}")
    device = chosen_device("cpu" if device is None else device, "device")
    text, path = str(subject), user_path(subject)
    if not os.path.exists(path):
        module, _, attribute = text.partition(":")
        if module and attribute and path.suffix not in (".safetensors", *PICKLED):
            return OpenedModel(text, "code", device=device, trust=trust, _code=_instantiate(text))
        path, downloaded = find_named(text, ACCEPTED, download=download)
        if downloaded:
            file, _ = _find_in(path, ema)
            return _open_file(file, name=text, from_folder=True, device=device, trust=trust, ema=ema)
        hidden = ""
    elif hidden := other_shipped(text):
        told = f"opening {printable(text)} in the current folder; for the shipped model give {hidden}"
        print(f"orthogan: {told}", file=sys.stderr)
    if os.path.isfile(path):
        return _open_file(path, device=device, trust=trust, ema=ema)
    try:
        file, verified = _find_in(path, ema)
    except UserError as error:
        raise UserError(f"{error}; for the shipped model give {hidden}") if hidden else error from None
    return _open_file(file, verified=verified, from_folder=True, device=device, trust=trust, ema=ema)


def as_loaded(generator: nn.Module | str | Path, **options: Any) -> Generator:
    """Return a net as a generator, or load what ``open_model`` accepts, with these options."""
    return load_generator(generator, **options) if isinstance(generator, str | Path) else as_generator(generator)


def load_generator(
    subject: str | Path, *, device: torch.device | str = "cpu", ema: bool = True, trust: Trust = False
) -> Generator:
    """Load a generator, ready to sample: in eval mode, on ``device``, its parameters without gradients.

    To train it further, call ``net.requires_grad_(True).train()``.

    Args:
        subject: a run folder, a checkpoint, the folder of a model, a ``.safetensors`` file, another project's
            checkpoint, the name of a shipped model, ``user/model`` on the Hugging Face Hub, or ``module:Class``.
        device: device of the generator.
        ema: use the moving average of the weights if there is one.
        trust: which ``module:Class`` the file may name: False for none but orthogan's own, True for any, or a list of
            names. Such code is imported and run.

    Returns:
        A generator: z (n, latent_dim), and labels (n,) if it has classes -> images (n, c, h, w) in [-1, 1].

    Raises:
        UserError: there is no such model, it is damaged, it is not a generator, or it names other code.

    Example:
        >>> import orthogan
        >>> generator = orthogan.load("sprites-sngan")  # or a run, a checkpoint, a .safetensors file, module:Class
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 1, 32, 32])
    """
    return open_model(subject, device=device, ema=ema, trust=trust).generator


def load_classifier(subject: str | Path, *, device: torch.device | str = "cpu", trust: Trust = False) -> nn.Module:
    """Load a classifier in eval mode, its parameters without gradients.

    Args:
        subject: a run of a classifier, a checkpoint, a ``.safetensors`` file, or ``module:Class``.
        device: device of the classifier.
        trust: as in ``load_generator``.

    Returns:
        A network: images (n, c, h, w) in [-1, 1] -> logits (n, classes).

    Raises:
        UserError: there is no such model, it is damaged, it is not a classifier, or it names other code.

    Example:
        >>> from orthogan.models import load_classifier
        >>> net = load_classifier("torchvision.models:squeezenet1_1")  # also a run with task: classifier
        >>> net.training
        False
    """
    return open_model(subject, device=device, trust=trust).classifier


def load_discriminator(subject: str | Path, *, device: torch.device | str = "cpu", trust: Trust = False) -> nn.Module:
    """Load a discriminator in eval mode, its parameters without gradients.

    Args:
        subject: a run of a GAN, a checkpoint, the folder of a model, or a ``discriminator.safetensors`` with its
            ``generator.safetensors`` in the same folder.
        device: device of the discriminator.
        trust: as in ``load_generator``.

    Returns:
        A network: images (n, c, h, w) in [-1, 1], and labels (n,) if it has classes -> logits (n,).

    Raises:
        UserError: there is no such model, it is damaged, it has no discriminator, or it names other code.

    Example:
        >>> import orthogan
        >>> from orthogan.models import load_discriminator
        >>> tiny = ["data.source=sprites", "data.channels=1", "data.count=16", "model.generator.channels=4"]
        >>> tiny += ["model.discriminator.channels=4", "training.batch_size=4", "training.steps=1"]
        >>> config = orthogan.load_config(None, [*tiny, "evaluation.every=0", "logging.tensorboard=false", "out=run"])
        >>> run = orthogan.train(config)  # doctest: +ELLIPSIS
        data: sprites-16, 16 images of 32 px; ...
        >>> load_discriminator(run).num_classes
        0
    """
    return open_model(subject, device=device, ema=False, trust=trust).discriminator


def holds_images(subject: str | Path) -> bool:
    """Return whether ``subject`` is a folder or zip that contains nothing trained by orthogan."""
    path = Path(subject)
    if path.suffix.lower() == ".zip":
        return True
    ours = checkpoint.is_checkpoint(path) or (path / checkpoint.FOLDER).exists() or (path / "config.yaml").exists()
    return path.is_dir() and not ours and not list(path.glob("*.safetensors"))


class Tensors(nn.Module):
    """The matrices and kernels of a state dict as bare layers under their own names; it has no forward.

    Tensors of two dimensions become ``nn.Linear``, of three to five a convolution of stride 1 with one group (a state
    dict does not record these), of six or more a flattened ``nn.Linear``. Vectors and integer tensors are skipped. A
    tensor behind a parametrization is used as it is stored.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for key, tensor in tensors.items():
            if tensor.dim() < 2 or not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
                continue
            name = key.removesuffix(".weight")
            layers[key if name in layers else name] = _layer(tensor.detach())
        self._modules.update(layers)  # add_module would refuse the dots

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep the flag ``training`` apart from a layer of that name."""
        if name == "training":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def _layer(tensor: Tensor) -> nn.Module:
    kind = CONVOLUTIONS.get(tensor.dim())
    if kind is None:
        tensor = tensor.flatten(1)
        layer = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False, device="meta")
    else:
        layer = kind(tensor.shape[1], tensor.shape[0], tuple(tensor.shape[2:]), bias=False, device="meta")
    layer.weight = nn.Parameter(tensor, requires_grad=False)
    return layer


def _open_file(file: Path, *, name: str = "", verified: bool | None = None, **how: Any) -> OpenedModel:
    """Open the model in one file; ``verified``: whether its bytes were checked already."""
    make = partial(OpenedModel, name or str(file), path=file, **how)
    if file.suffix in PICKLED:
        return _open_foreign(file, make)
    if file.stem == DISCRIMINATOR and file.with_name(f"{RAW}.safetensors").is_file():
        return make("discriminator")
    verified = _verify(file) if verified is None else verified
    try:
        header = read_metadata(file)
    except UserError:
        if file.suffix == ".safetensors":
            raise
        raise UserError(
            f"{printable(file)}: files of this kind do not contain readable weights; choose {ACCEPTED}"
        ) from None
    kind = {FORMAT: "generator", CLASSIFIER_FORMAT: "classifier"}.get(form_of(header), "tensors")
    if kind == "tensors":
        return _open_foreign(file, partial(make, _header=header, _verified=verified))
    model = make(kind, _header=header, _verified=verified)
    model.about  # noqa: B018 - refuse code that needs consent before anything is read from it
    return model


def _open_foreign(file: Path, make: Callable[..., OpenedModel]) -> OpenedModel:
    """Open a file that orthogan did not write: the model that a layout finds in it, else its tensors."""
    try:
        content = read_content(file)
    except UserError:  # said again, with more, by what needs the content
        return make("tensors")
    found = recognize(file, content)
    return make("tensors") if found is None else make("generator", foreign=found)


def _verify(file: Path) -> bool:
    """Return whether a checkpoint vouches for the file. Raises ``UserError`` if the file differs from its record."""
    try:
        return checkpoint.verify_file(file)
    except checkpoint.Damaged as damage:
        raise UserError(f"{damage}; choose another checkpoint of the run") from None


def _find_in(folder: Path, ema: bool) -> tuple[Path, bool]:
    """Find the file of the generator or classifier in a run or checkpoint folder, and whether its bytes were checked.

    Raises:
        UserError: there is no such file, or the checkpoint is damaged.
    """
    chosen = [RAW]

    def main(names: Collection[str]) -> list[str]:
        stems = (CLASSIFIER, EMA) if ema else (CLASSIFIER,)
        chosen[0] = next((name for stem in stems if (name := f"{stem}.safetensors") in names), f"{RAW}.safetensors")
        return chosen

    if checkpoint.is_checkpoint(folder):
        try:
            checkpoint.verify(folder, needed=main)
        except checkpoint.Damaged as damage:
            raise UserError(f"{damage}; choose another checkpoint of the run") from None
    else:
        found = checkpoint.newest(folder, needed=main)
        if found is None and (stored := checkpoint.steps(folder)):
            raise UserError(f"{printable(folder)}: all checkpoints of this run are damaged ({len(stored)})")
        if found is None and folder.parent.name == checkpoint.FOLDER:
            raise UserError(
                f"{printable(folder / checkpoint.STATE)}: missing, so this checkpoint is damaged; choose another"
            )
        if found is None:
            singles = sorted(folder.glob("*.safetensors"))
            whole = folder / main([file.name for file in singles])[0]
            if whole in singles:  # the folder of a model, as `orthogan package` writes it
                return whole, False
            if len(singles) == 1:
                return singles[0], False
            if (folder / "config.yaml").is_file():
                raise UserError(f"{printable(folder)}: this run has no checkpoint yet; resume its training")
            raise UserError(
                f"{printable(folder)}: neither a run with checkpoints, nor a checkpoint, nor a .safetensors file"
            )
        folder = found[0]
    return folder / chosen[0], True


def _instantiate(name: str) -> nn.Module:
    """Return the network ``module:net``, or call ``module:Class`` or ``module:function`` without arguments.

    The call runs under a fixed seed. Raises ``UserError`` if there is no network.
    """
    made = import_made(name, "SUBJECT", nn.Module)
    if not isinstance(made, nn.Module):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                made = made()
            except Exception as error:  # the user's own code
                raise UserError(
                    f"{name}: cannot be called without arguments: {type(error).__name__}: {error}; "
                    "name a function that builds the network and loads its weights"
                ) from error
    if not isinstance(made, nn.Module):
        raise UserError(
            f"{name}: returns a {type(made).__name__}, not an nn.Module; name a class or a function that returns one"
        )
    need_numbers(made)
    return made
