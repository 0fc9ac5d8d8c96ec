"""The selection of layers by type, shape, position and name, used by every config key named ``layers``.

``*`` in a pattern matches any text, including dots.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.arguments import checked
from orthogan.arguments import words as listed
from orthogan.registry import did_you_mean
from orthogan.weights.constraint import Constraint, check_module
from orthogan.weights.effective import effective_weight
from orthogan.weights.matrix import Layer, MatrixView, Transposed

TYPES: dict[str, tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "transposed": Transposed,
    "linear": (nn.Linear,),
    "embedding": (nn.Embedding,),
}
SHAPES: dict[str, Callable[[MatrixView], bool]] = {
    "tall": lambda view: view.rows > view.groups * view.columns,  # over-determined: more filters than dimensions
    "wide": lambda view: view.rows <= view.groups * view.columns,
    "matrix": lambda view: min(view.rows // view.groups, view.columns) > 1,
}
PLACES = ("first", "last")
Item = TypeVar("Item")
SUBSPACE = "subspace"  # type word of modules that define ``matrix_name`` but no ``matrix_type``


@dataclass(frozen=True)
class Selected:
    """A selected layer: its name, the name of its weight, and that weight as a matrix with one row per output.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import select
        >>> chosen = select(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), "last")[0]
        >>> chosen.name, chosen.weight, type(chosen.layer).__name__
        ('2', 'weight', 'Conv2d')
    """

    name: str
    layer: nn.Module
    weight: str
    view: MatrixView
    aliases: tuple[str, ...] = ()  # other names of the same layer, if it is registered in several places

    @property
    def value(self) -> Tensor:
        """Return the effective weight as the layer applies it, including constraints and hooks.

        See ``effective_weight``.
        """
        return effective_weight(self.layer, self.weight)

    @property
    def matrix(self) -> Tensor:
        """Return the effective weight (rows, columns), or the block-diagonal (rows, groups * columns) with groups."""
        return self.view.block_diagonal(self.value)


@checked
def select(module: nn.Module, layers: str | Sequence[str] = (), *, weight: str = "weight") -> list[Selected]:
    """Return the layers below ``module`` (or ``module`` itself) that match ``layers``, in order.

    Args:
        layers: words, as a list or one comma-separated string. Types: conv, transposed, linear, embedding, subspace
            (the basis of a latent subspace, which only this word or its name selects). A skew orthogonal convolution
            counts as conv, with its filter. Shapes of the (out, in*kh*kw) matrix, of one group if there are several:
            tall, wide, matrix (neither one row nor one column). Positions: first, last (of the layers that the other
            words select). Any other word is a pattern for the dotted name, such as ``blocks.*.conv1``. A layer with
            several names is selected once, by any of them. A word after ``!`` excludes. Without words, every layer
            whose weight is not empty is selected. Words of the same kind are alternatives; words of different kinds
            must all match.
        weight: name of the parameter.

    Raises:
        ValueError: a word matches no layer, the words together match no layer (the message lists the available ones),
            or the first or last layer is a Householder projector, whose singular values cannot be changed.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import select
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 1))
        >>> [chosen.name for chosen in select(net, "conv,!first")]
        ['1']
    """
    check_module(module, "a network")
    if lazy := next((name for name, p in module.named_parameters() if nn.parameter.is_lazy(p)), ""):
        raise ValueError(f"{lazy} has no shape yet: run the network once on a batch first")
    words = listed("layers", layers)
    everything = [
        Selected(names[0], layer, own, view, tuple(names[1:]))
        for layer, names in list_names(module).items()
        if (own := weight if isinstance(layer, Layer) else getattr(layer, "matrix_name", None))
        and (view := _view(layer, own)) is not None
    ]
    candidates = [c for c in everything if not _fixed(c)]
    if not candidates:
        raise ValueError(f"{type(module).__name__} has no linear, embedding or convolution layer to choose from")
    for word in words:
        bare = word.removeprefix("!")
        if bare not in PLACES and not any(_fits(c, bare) for c in candidates):
            advice = "; the layer of this name has no numbers" if _empty(module, bare) else _advice(bare, candidates)
            raise ValueError(f"layers: {word!r} matches nothing in {type(module).__name__}{advice}")
    wanted = [w for w in words if w[0] != "!"]
    named = any(_sort(w) == "name" for w in wanted) or SUBSPACE in wanted
    places = any(w.removeprefix("!") in PLACES for w in words)  # a projector counts for positions but is not selected
    kept = [c for c in (everything if places else candidates) if named or _type(c) != SUBSPACE]
    kept = _keep(kept, words, _fits)
    if fixed := [c.name for c in kept if _fixed(c) and set(wanted) & set(PLACES)]:
        raise ValueError(
            f"layers: {', '.join(words)!r} means {fixed[0]}, a Householder projector, whose singular values are fixed; "
            "name the layers that you mean"
        )
    kept = [c for c in kept if not _fixed(c)]
    if not kept:
        names = ", ".join(c.name or "(itself)" for c in candidates)
        raise ValueError(f"layers: {', '.join(words)!r} together leave no layer of {type(module).__name__}: {names}")
    return kept


def choose(
    named: Mapping[str, nn.Module], layers: str | Sequence[str], *, what: str, outermost: bool = False
) -> list[str]:
    """Return the names of the modules that match ``layers``, in order.

    Type words, first, last, patterns for the dotted name and ``!`` mean the same as in ``select``, except that a word
    that is the exact name of a module selects only that module. There are no shape words.

    Args:
        named: the modules to choose from, by dotted name.
        what: a description of these modules for messages, such as "the batch norms of SNGANGenerator".
        outermost: of the modules that a pattern matches, select only those with the fewest dots in their names:
            ``blocks.*`` selects the blocks without the layers inside them.

    Raises:
        ValueError: a word matches nothing, or the words together match nothing (the message lists the available names).
    """
    there = f"there are {', '.join(named)}" if named else "there is none"

    def matches(name: str, word: str) -> bool:
        if word not in named and word in TYPES:
            return isinstance(named[name], TYPES[word])
        return fnmatchcase(name, word)

    words = listed("layers", layers)
    depths: dict[str, int] = {}
    for word in words or [""]:
        bare = word.removeprefix("!")
        found = [name.count(".") for name in named if matches(name, bare)]
        if not found and (bare not in PLACES or not named):
            raise ValueError(f"layers: {word!r} matches nothing in {what}{did_you_mean(bare, named)}; {there}")
        if outermost and word == bare and found and bare not in TYPES:
            depths[word] = min(found)
    kept = _keep(
        list(named),
        words,
        lambda name, word: matches(name, word) and depths.get(word, name.count(".")) == name.count("."),
        exact=named,
    )
    if not kept:
        raise ValueError(f"layers: {', '.join(words)!r} together leave nothing in {what}; {there}")
    return kept


def _keep(
    items: list[Item], words: list[str], fits: Callable[[Item, str], bool], *, exact: Collection[str] = ()
) -> list[Item]:
    """Return the ``items`` that match the words; a word in ``exact`` is an exact name."""

    def sort(word: str) -> str:
        return "name" if word in exact else _sort(word)

    wanted, unwanted = [w for w in words if w[0] != "!"], [w[1:] for w in words if w[0] == "!"]
    for kind in ("type", "shape", "name"):
        some = [w for w in wanted if sort(w) == kind]
        items = [i for i in items if not some or any(fits(i, w) for w in some)]
    items = [i for i in items if not any(fits(i, w) for w in unwanted if sort(w) != "place")]
    for chosen, inside in ((wanted, True), (unwanted, False)):
        places = {w for w in chosen if sort(w) == "place"}
        if places and items:
            items = [i for at, i in enumerate(items) if bool(_place(at, len(items)) & places) == inside]
    return items


def _view(layer: nn.Module, weight: str) -> MatrixView | None:
    """Return the matrix view of the weight without evaluating our own constraints, which could advance them."""
    if parametrize.is_parametrized(layer, weight):
        for constraint in layer.parametrizations[weight]:  # pyright: ignore
            if isinstance(constraint, Constraint):
                return constraint.view
    try:
        with torch.no_grad():
            value = effective_weight(layer, weight)
    except AttributeError:
        return None
    return MatrixView(layer, value) if isinstance(value, Tensor) and value.dim() > 1 and value.numel() else None


def list_names(module: nn.Module) -> dict[nn.Module, list[str]]:
    """Return every module below ``module`` (and itself, ""), in order, with all its dotted names."""
    names: dict[nn.Module, list[str]] = {}

    def visit(part: nn.Module, name: str, above: tuple[nn.Module, ...]) -> None:
        names.setdefault(part, []).append(name)
        for own, child in part._modules.items():
            if child is not None and child not in (*above, part):
                visit(child, f"{name}.{own}" if name else own, (*above, part))

    visit(module, "", ())
    return names


def refuse_tied(module: nn.Module, chosen: Sequence[Selected]) -> None:
    """Refuse to constrain or replace a weight that is also the parameter of another layer below ``module``.

    Raises:
        ValueError: there is such a weight; the message names both layers.
    """
    places: dict[int, list[str]] = {}
    for part, names in list_names(module).items():
        for own, parameter in part._parameters.items():
            if parameter is not None and parameter.numel():
                places.setdefault(parameter.data_ptr() or id(parameter), []).append(f"{names[0]}.{own}".lstrip("."))
    for found in chosen:
        parameter = found.layer._parameters.get(found.weight)
        if parameter is None:
            continue
        shared = places[parameter.data_ptr() or id(parameter)]
        if len(shared) > 1:
            raise ValueError(
                f"{' and '.join(shared)} are the same parameter (tied weights), which a constraint on one layer would "
                f"untie; choose layers without {found.name or 'it'}, or untie the weights first"
            )


def _empty(module: nn.Module, name: str) -> bool:
    return any(
        name in names and isinstance(layer, Layer) and not layer.weight.numel()
        for layer, names in list_names(module).items()
    )


def _sort(word: str) -> str:
    if word in TYPES or word == SUBSPACE:
        return "type"
    if word in SHAPES:
        return "shape"
    return "place" if word in PLACES else "name"


def _type(candidate: Selected) -> str:
    """Return the type word that selects a layer."""
    known = [word for word, kinds in TYPES.items() if isinstance(candidate.layer, kinds)]
    return known[0] if known else getattr(candidate.layer, "matrix_type", SUBSPACE)


def _fixed(candidate: Selected) -> bool:
    """Return whether the layer declares that its weight cannot be changed, such as a Householder projector."""
    return getattr(candidate.layer, "matrix_fixed", False)


def _fits(candidate: Selected, word: str) -> bool:
    if word in TYPES or word == SUBSPACE:
        return _type(candidate) == word
    if word in SHAPES:
        return SHAPES[word](candidate.view)
    return any(fnmatchcase(name, word) for name in (candidate.name, *candidate.aliases))


def _place(index: int, count: int) -> set[str]:
    return {place for place, at in (("first", 0), ("last", count - 1)) if index == at}


def _advice(word: str, candidates: list[Selected]) -> str:
    names = [c.name for c in candidates]
    words = [*TYPES, SUBSPACE, *SHAPES, *PLACES, *names]
    return did_you_mean(word, words) or f"; its layers are {', '.join(names)}"
