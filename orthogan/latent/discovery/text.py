"""Directions from descriptions in words, by a model of texts and images such as CLIP."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from orthogan.errors import UserError
from orthogan.latent.clip import NEUTRAL, TextModel, TextReader
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.boundary import boundaries
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.oracle import read_samples


@DIRECTION_METHODS.register("text")
def text(
    generator: nn.Module,
    *,
    prompts: Sequence[str] = (),
    model: TextModel | None = None,
    neutral: str = NEUTRAL,
    conditional: bool = False,
    samples: int = 2000,
    y: int | None = None,
    seed: int = 0,
) -> Directions:
    """Find one direction per text of ``prompts``, along which pictures become more similar to it than to ``neutral``.

    As in the global directions of StyleCLIP, a text is the difference of two embeddings: of the prompt and of a neutral
    description. The similarity of each of ``samples`` generated pictures to it is regressed to the latent, which for
    Gaussian latents gives its mean gradient (Stein's lemma), so the generator may be any network.

    Args:
        prompts: such as "a face with glasses".
        model: embeds texts and images; ``orthogan.latent.load_clip`` reads CLIP from a folder.
        neutral: such as "a face".
        conditional: make each direction orthogonal to those of all other prompts.
        y: class of a conditional generator; None cycles through all classes.

    Raises:
        UserError: no model or prompts, or a prompt that equals the neutral text.

    Source: Radford et al. 2021, arXiv:2103.00020 (CLIP); Patashnik et al. 2021, arXiv:2103.17249 (StyleCLIP).

    Example:
        >>> import torch
        >>> import orthogan
        >>> from orthogan.latent.discovery import text
        >>> class Toy:  # bright pictures resemble the word "bright"
        ...     def embed_texts(self, texts):
        ...         return torch.tensor([[float("bright" in text), 1.0] for text in texts])
        ...     def embed_images(self, images):
        ...         return torch.stack([images.float().mean((1, 2, 3)) / 255, torch.ones(len(images))], 1)
        ...
        >>> found = text(orthogan.load("sprites-sngan"), prompts=["a bright picture"], model=Toy(), samples=100)
        >>> found.names
        ('a bright picture',)
    """
    if model is None or not prompts:
        raise UserError(
            "method text: needs texts and the weights of CLIP: orthogan discover --method text --text 'a face with "
            "glasses' --neutral 'a face' --clip FOLDER; other commands read the result with --directions"
        )
    reader = TextReader(model, prompts, neutral)
    latents, read = read_samples(generator, reader, samples, y=y, seed=seed)
    return boundaries(
        generator, latents, read, reader.names, reader.groups, method="text", conditional=conditional, seed=seed
    )
