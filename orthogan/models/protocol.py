"""The interfaces of generators and discriminators, and adapters for other networks."""

from __future__ import annotations

import inspect
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from orthogan.arguments import integer
from orthogan.errors import UserError
from orthogan.layers.householder_projector import HouseholderProjector
from orthogan.models.label_table import check_classes
from orthogan.named_code import describe
from orthogan.registry import Registry
from orthogan.rng import generator as seeded

if TYPE_CHECKING:
    from orthogan.config.schema import Config
    from orthogan.models.samples import Samples
    from orthogan.models.saved import Saved
    from orthogan.named_code import Trust


def module_class(found: Any) -> type[nn.Module]:
    """Return ``found`` if it is a class of networks. Raises TypeError."""
    if inspect.isclass(found) and issubclass(found, nn.Module):
        return found
    raise TypeError(f"{describe(found)}; name a class of your own that is a torch.nn.Module")


class Generator(nn.Module):
    """Base class of generators: z (n, latent_dim) and labels (n,), if any -> images (n, c, h, w) in [-1, 1].

    Labels are needed if ``num_classes`` > 0. A generator with further latent spaces, such as the W of a style-based
    one, lists their names in ``spaces`` (first "z", its input) and returns each by ``latent_space``. Both are optional,
    also in a wrapper. ``axis``: the letter of its coordinates, as in "w3", if it is itself such a space.

    Example:
        >>> import torch
        >>> from orthogan.models import Generator
        >>> class Tiny(Generator):
        ...     latent_dim = 4
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.linear = torch.nn.Linear(4, 3 * 8 * 8)
        ...     def forward(self, z, y=None):
        ...         return self.linear(z).tanh().view(-1, 3, 8, 8)
        ...
        >>> generator = Tiny()
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 8, 8])
    """

    latent_dim: int
    num_classes: int = 0
    class_names: Sequence[str] = ()
    image_channels: int
    resolution: Any  # int, or (height, width)
    rectangles: bool = False  # whether it can be built for images that are not square
    spaces: tuple[str, ...] = ("z",)
    axis: str = "z"
    rows: int = 1
    saved: Saved | None = None  # what the file says that it was loaded from

    def check(self, z: Tensor, y: Tensor | None) -> None:
        """Check the arguments of ``forward``.

        Raises:
            ValueError: another latent width, labels without classes, classes without labels, or a class that does not
                exist.
            TypeError: not tensors, or latents that are not of floating point.
        """
        for what, given, kinds in (("latents", z, (Tensor,)), ("labels", y, (Tensor, type(None)))):
            if not isinstance(given, kinds):  # a tuple: torch 2.9 cannot compile a union
                raise TypeError(f"{what}: expected a torch.Tensor, not {type(given).__name__}; torch.tensor makes one")
        mine = next((p.dtype for p in self.parameters() if p.is_floating_point()), z.dtype)
        if not z.is_floating_point() or (z.dtype == torch.float64 != mine):
            raise TypeError(f"latents are {z.dtype}, but this generator computes in {mine}; use z.to({mine})")
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"latents have shape {tuple(z.shape)}, but this generator needs (n, {self.latent_dim})")
        if y is not None and not self.num_classes:
            raise ValueError("this generator is unconditional: it takes no labels")
        if y is None and self.num_classes:
            raise ValueError(f"this generator is conditional: it needs labels (n,) from 0 to {self.num_classes - 1}")
        if y is not None:
            check_classes(y, self.num_classes)

    def sample_latent(self, n: int, *, seed: int = 0) -> Tensor:
        """Draw ``n`` latents from the prior N(0, I): (n, latent_dim) float32 on the CPU, determined by n and seed."""
        return standard_normal(n, self.latent_dim, seed=seed)

    def sample(self, n: int = 16, **options: Any) -> Samples:
        """Generate images of the seeds 0 to n - 1; arguments and errors are those of ``orthogan.sample``.

        Example:
            >>> import orthogan
            >>> orthogan.load("sprites-sngan").sample(4, seed=8, truncation=0.7)
            <4 samples, 32x32 px, gray, seeds 8-11>
        """
        from orthogan.models.samples import sample  # it uses generators

        return sample(self, n, **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: torch.device | str = "cpu",
        ema: bool = True,
        trust: Trust = False,
    ) -> Self:
        """Load a generator from the Hugging Face Hub, or from anything else that ``orthogan.load`` opens.

        Args:
            pretrained_model_name_or_path: ``user/model``, or a folder that ``save_pretrained`` wrote.
            revision: branch, tag or commit of a model on the Hub.
            token: by default ``HF_TOKEN``, or the one that ``hf auth login`` stored; False sends none.
            cache_dir: where downloaded models are kept; by default the cache of huggingface_hub.
            local_files_only: use only what was downloaded before.
            force_download: download again.
            device, ema, trust: as for ``orthogan.load``.

        Raises:
            UserError: there is no such model, it cannot be downloaded, or it is not a generator of this class.

        Example:
            >>> import orthogan
            >>> orthogan.Generator.from_pretrained("sprites-sngan").resolution
            32
        """
        from orthogan.models.hub import Download
        from orthogan.models.open import open_model  # it uses generators

        name = str(pretrained_model_name_or_path)
        name = name if revision is None else f"{name}@{revision}"
        download = Download(token, cache_dir, local_files_only, force_download)
        net = open_model(name, device=device, ema=ema, trust=trust, download=download).generator
        if cls is not Generator and not isinstance(net, cls):
            raise UserError(f"{name}: contains a {type(net).__name__}, not a {cls.__name__}")
        return net  # pyright: ignore[reportReturnType]

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Config | None = None,
        license: str = "",
        name: str = "",
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> Path:
        """Write ``generator.safetensors`` and a short card, unless there is a ``README.md``, and return the folder.

        ``from_pretrained``, ``orthogan.load`` and every command open the folder.

        Args:
            config: the config that the generator was built from; a generator that was loaded from a file knows it.
            license: license of the weights on the card, such as ``mit``.
            name: name on the card; by default ``repo_id``, or the last part of ``save_directory``.
            repo_id: ``user/model`` to upload to, with ``push_to_hub``.
            push_to_hub: also upload the two files.
            push_to_hub_kwargs: ``commit_message``, ``private``, ``token``, ``branch`` and ``create_pr``, as for
                ``push_to_hub``.

        Raises:
            UserError: the config is not known, the folder cannot be written, or the upload fails.

        Example:
            >>> import orthogan
            >>> folder = orthogan.load("sprites-sngan").save_pretrained("my-sprites")
            >>> sorted(file.name for file in folder.iterdir())
            ['README.md', 'generator.safetensors']
            >>> orthogan.Generator.from_pretrained(folder).resolution
            32
        """
        from orthogan.models.pretrained import save_and_push, save_pretrained  # they use generators

        if push_to_hub:
            options = {"config": config, "license": license, "name": name}
            return save_and_push(self, save_directory, repo_id, **options, **push_to_hub_kwargs)[0]
        for key in (*push_to_hub_kwargs, *([] if repo_id is None else ["repo_id"])):
            raise UserError(f"save_pretrained: {key} needs push_to_hub=True")
        return save_pretrained(self, save_directory, config=config, license=license, name=name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: Config | None = None,
        license: str = "",
        commit_message: str = "Upload an orthogan model",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the generator to the Hugging Face Hub, and return the address of the commit.

        The files are those of ``save_pretrained``. A card that the repository has stays as it is. To upload a run with
        scores, samples and both networks use ``orthogan push``.

        Args:
            repo_id: ``user/model``; created if it does not exist.
            config, license: as for ``save_pretrained``.
            commit_message: message of the commit.
            private: for a new repository; by default, what the account's or organization's settings say.
            token: by default ``HF_TOKEN``, or the one that ``hf auth login`` stored.
            branch: an existing branch; the main branch by default.
            create_pr: open a pull request instead of a commit on the branch.

        Raises:
            UserError: the config is not known, offline, no permission, or huggingface_hub is missing.
        """
        from orthogan.models.pretrained import save_and_push  # it uses generators

        with tempfile.TemporaryDirectory() as made:
            _, address = save_and_push(
                self,
                made,
                repo_id,
                config=config,
                license=license,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
            )
        return address

    def first_layer(self) -> nn.Module:
        """Return the layer whose weight maps the latent to the first features."""
        raise AttributeError(f"{type(self).__name__} names no first layer")

    def native_directions(self) -> Tensor | None:
        """Return the directions that the network declares, unit rows (k, latent_dim); None if there are none.

        By default: if the first layer is a Householder projector that takes the whole latent, the directions along
        which it changes its output at all.
        """
        try:
            first = self.first_layer()
        except AttributeError:
            return None
        if not isinstance(first, HouseholderProjector) or first.in_features != self.latent_dim:
            return None
        return first.directions().detach()

    def latent_space(
        self, name: str, *, y: int | None = None, layers: Sequence[int] = (), base: Tensor | None = None
    ) -> Generator:
        """Return this generator seen from the space ``name``: its latent is a point there, and the mean is at zero.

        The view has no classes, shares the weights and adds nothing to the state dict.

        Args:
            y: the class whose latents it draws, for a conditional generator.
            layers: numbers of the layers that take the latent, if a space enters layer by layer; empty for all.
            base: (its latent_dim,), the latent that the other layers keep; zero, the mean, by default.

        Raises:
            UserError: there is no such space, class or layer.
        """
        raise UserError(f"{type(self).__name__} has no latent space '{name}'; available: {', '.join(self.spaces)}")


class Discriminator(nn.Module):
    """Base class of discriminators: images (n, c, h, w) in [-1, 1] and labels (n,), if any -> logits (n,).

    Labels are needed if ``num_classes`` > 0.

    Example:
        >>> import torch
        >>> from orthogan.models import Discriminator
        >>> class Tiny(Discriminator):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.linear = torch.nn.Linear(3 * 8 * 8, 1)
        ...     def forward(self, x, y=None):
        ...         return self.linear(x.flatten(1)).squeeze(1)
        ...
        >>> Tiny()(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2])
    """

    num_classes: int = 0
    rectangles: bool = False  # whether it can be built for images that are not square

    def image_blocks(self) -> list[tuple[str, list[nn.Module]]]:
        """Return the parts of the network by name, starting at the image; ``training.freeze_d`` counts them."""
        return list_blocks(self)


def list_blocks(net: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """Return the parts of ``net`` that have parameters, by name, in the order in which they were created.

    Lists and sequences of modules are split into their items.
    """
    found: list[tuple[str, list[nn.Module]]] = []
    for name, child in net.named_children():
        inside = child.named_children() if isinstance(child, nn.ModuleList | nn.Sequential) else [("", child)]
        for key, part in inside:
            if any(True for _ in part.parameters()):
                found.append((f"{name}.{key}" if key else name, [part]))
    return found


WRAPPER = """\
import torch

class Wrapped(torch.nn.Module):
    latent_dim = 128  # length of z
    num_classes = 0  # more if forward needs classes y (n,)

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z, y=None):  # z (n, latent_dim) -> images (n, channels, height, width), floats in [-1, 1]
        return self.net(z)

generator = Wrapped(net)
"""


FAMILIES = ("orthogan.models.families", "orthogan.models.families.official")
GENERATORS: Registry[Callable[..., nn.Module]] = Registry("generator", *FAMILIES, adopt=module_class)
DISCRIMINATORS: Registry[Callable[..., nn.Module]] = Registry("discriminator", *FAMILIES, adopt=module_class)


def standard_normal(n: int, dim: int, *, seed: int) -> Tensor:
    """Return (n, dim) float32 standard normal numbers on the CPU, determined by the arguments alone."""
    if (n := integer("n", n)) < 0:
        raise ValueError(f"n is {n}: the number of latents must be 0 or more")
    return torch.randn(n, dim, generator=seeded("cpu", seed, "latent"))


def as_generator(module: nn.Module) -> Generator:
    """Return ``module`` as a Generator: the same object, with the prior and ``sample`` added if they are missing.

    Raises:
        UserError: it is not a module, or has no integer ``latent_dim``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.models import as_generator
        >>> net = nn.Sequential(nn.Linear(4, 3 * 8 * 8), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)))
        >>> net.latent_dim = 4  # all that it needs
        >>> generator = as_generator(net)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 8, 8])
    """
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        raise UserError(f"{name}: a generator is an nn.Module; {_wrap()}")
    if isinstance(module, Generator):
        return module
    dim = _integer(module, "latent_dim", None)
    if dim is None or dim < 1:
        raise UserError(
            f"{name}: a generator needs an integer attribute latent_dim, not {getattr(module, 'latent_dim', None)!r}; "
            f"add it, or {_wrap()}"
        )
    if (classes := _integer(module, "num_classes", 0)) is None or classes < 0:
        raise UserError(f"{name}: num_classes is {module.num_classes!r}; it must be an integer, 0 without classes")
    if not hasattr(module, "sample_latent"):
        module.sample_latent = partial(standard_normal, dim=dim, seed=0)  # pyright: ignore - no lambda: it is pickled
    if not hasattr(module, "sample"):
        module.sample = partial(Generator.sample, module)  # pyright: ignore
    return module  # pyright: ignore[reportReturnType]


def _wrap() -> str:
    return f"wrap the net like this (more in docs/guides/any-generator.md):\n\n{textwrap.indent(WRAPPER, '    ')}"


def _integer(module: nn.Module, name: str, default: int | None) -> int | None:
    """Return an attribute as int, also for a NumPy integer or (with a ``default``) None; None if not an integer."""
    value = getattr(module, name, None)
    try:
        number = default if value is None else integer(name, value)
    except TypeError:
        return None
    if type(value) is not int and number is not None:
        with suppress(AttributeError):  # a property
            setattr(module, name, number)
    return number
