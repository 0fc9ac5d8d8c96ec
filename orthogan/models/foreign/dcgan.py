"""DCGANs as the PyTorch tutorial writes them: state dicts of transposed convolutions, alone or in a dictionary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from orthogan.arguments import is_whole_number
from orthogan.models.foreign.layout import Foreign, Part, layout, state_dict

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@layout(
    "dcgan-tutorial",
    about="the DCGAN of the PyTorch tutorial",
    source="https://github.com/pytorch/examples/tree/main/dcgan",
    general=True,
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize a generator, alone or in a dictionary, and a discriminator beside it."""
    words = ("ema", "avg", "average")
    averaged: list[dict[str, Tensor]] = []
    others: list[dict[str, Tensor]] = []
    for key, state in states_in(content):
        (averaged if any(word in key.lower() for word in words) else others).append(state)
    best, raw = (
        next((found for state in states if (found := read_generator(state)) is not None), None)
        for states in (averaged, others)
    )
    if (generator := best or raw) is None:
        return None
    part, latent_dim, resolution, image_channels = generator
    critics = (read_discriminator(state, resolution, image_channels) for state in (*averaged, *others))
    return Foreign(
        part,
        resolution,
        image_channels,
        latent_dim,
        raw=raw[0] if best and raw and raw[1:] == best[1:] else None,
        discriminator=next((one for one in critics if one), None),
    )


def states_in(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (key, state dict): the content itself under the key "", and the state dicts that it holds by key."""
    if state := state_dict(content):
        yield "", state
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str) and (state := state_dict(value)):
                yield key, state


def read_generator(state: Mapping[str, Tensor], *, tanh: bool = True) -> tuple[Part, int, int, int] | None:
    """Return the generator, latent_dim, resolution and image channels; None if this is not such a generator."""
    layers = layers_of(state)
    if layers is None:
        return None
    convs, norms = layers
    widths = [conv["weight"].shape[1] for conv in convs]
    first, *others = (tuple(conv["weight"].shape) for conv in convs)
    chained = all(a[1] == b[0] for a, b in zip([first, *others], others, strict=False))
    sizes = first[2] == first[3] and all(shape[2:] == (4, 4) for shape in others)
    biased = {"bias" in conv for conv in convs}
    if not (others and chained and sizes and len(biased) == 1 and set(norms) == set(range(len(others)))):
        return None
    if widths[-1] not in (1, 3) or any(norms[i]["weight"].numel() != widths[i] for i in norms):
        return None
    sizes = _sizes(widths[-2::-1], first[2], reverse=True)
    options = {
        **sizes.pop("options"),
        **({"bias": True} if biased == {True} else {}),
        **({} if tanh else {"tanh": False}),
    }
    part = Part("dcgan-tutorial", named(convs, norms), **sizes, options=options)
    return part, first[0], first[2] << len(others), widths[-1]


def read_discriminator(state: Mapping[str, Tensor], resolution: int, image_channels: int) -> Part | None:
    """Return the discriminator; None if this is not one for these images."""
    layers = layers_of(state)
    if layers is None:
        return None
    convs, norms = layers
    shapes = [tuple(conv["weight"].shape) for conv in convs]
    biased = {"bias" in conv for conv in convs}
    last = shapes[-1]
    widths = [shape[0] for shape in shapes[:-1]]
    chained = [shape[1] for shape in shapes] == [image_channels, *widths]
    sizes = last[0] == 1 and last[2] == last[3] == resolution >> len(widths)
    if not (chained and sizes and all(shape[2:] == (4, 4) for shape in shapes[:-1]) and len(biased) == 1):
        return None
    if set(norms) != set(range(1, len(widths))):
        return None
    tensors = named(convs[:-1], {i - 1: norm for i, norm in norms.items()})
    tensors |= {f"last.{name}": value for name, value in convs[-1].items()}
    sizes = _sizes(widths, last[2])
    options = {**sizes.pop("options"), **({"bias": True} if biased == {True} else {})}
    return Part("dcgan-tutorial", tensors, **sizes, options=options)


def _sizes(widths: list[int], smallest: int, *, reverse: bool = False) -> dict[str, Any]:
    """Return channels if each width is twice the one before and the smallest map is 4x4, else all widths."""
    if smallest == 4 and widths == [widths[0] << i for i in range(len(widths))]:
        return {"channels": widths[0], "options": {}}
    return {"options": {"widths": widths[::-1] if reverse else widths}}


def named(convs: list[dict[str, Tensor]], norms: dict[int, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors under the names of ``convs`` and ``norms`` of our networks."""
    found = {f"convs.{i}.{name}": value for i, conv in enumerate(convs) for name, value in conv.items()}
    return found | {f"norms.{i}.{name}": value for i, norm in norms.items() for name, value in norm.items()}


def layers_of(state: Mapping[str, Tensor]) -> tuple[list[dict[str, Tensor]], dict[int, dict[str, Tensor]]] | None:
    """Return the convolutions in order, and the batch norm that follows each; None if there is anything else."""
    layers: dict[str, dict[str, Tensor]] = {}
    keys = list(state)
    if keys == sorted(keys):  # as .safetensors files are: main.10 before main.2
        keys.sort(key=lambda key: [(int(part) if is_whole_number(part) else -1, part) for part in key.split(".")])
    for key in keys:
        value = state[key]
        place, _, name = key.rpartition(".")
        layers.setdefault(place, {})[name] = value
    convs: list[dict[str, Tensor]] = []
    norms: dict[int, dict[str, Tensor]] = {}
    for layer in layers.values():
        weight = layer.get("weight")
        if weight is not None and weight.dim() == 4 and set(layer) <= {"weight", "bias"}:
            convs.append(layer)
        elif convs and set(layer) | {"num_batches_tracked"} == set(NORM) and len(convs) - 1 not in norms:
            norms[len(convs) - 1] = layer
        else:
            return None
    return (convs, norms) if convs else None
