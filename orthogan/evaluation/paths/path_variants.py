"""The path lengths that were published, each by its name: they differ in everything but the idea."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.evaluation.paths.interpolation import lerp, slerp_any, slerp_unit

SIDE = 256  # pixels; VGG16 was made for 224
Space = Literal["z", "w", "subspaces"]
Interpolation = Literal["lerp", "slerp_any", "slerp_unit"]
Sampling = Literal["end", "full"]
Resize = Literal["none", "shrink", "fit"]
INTERPOLATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "lerp": lerp,
    "slerp_any": slerp_any,
    "slerp_unit": slerp_unit,
}


@dataclass(frozen=True)
class Variant:
    """Between what latents the path goes, where on it a step is taken, and how its two images are looked at.

    ``space``: "z", "w" (of a generator that offers it), or "subspaces": EigenGAN's z_1 … z_k, each on an arc of its
    own between vectors of U[0, 1), with a noise of 0.7 N(0, I) that stays (the code of the NOG paper).
    ``sampling``: the step from t to t + eps begins at t = 0 ("end") or t ~ U[0, 1) ("full").
    ``crop``: to the face of FFHQ, rows 3/8 to 7/8 and columns 2/8 to 6/8.
    ``resize``: "shrink" averages blocks where the side is 512 pixels or more, so that 256 (or a little more) remain;
    "fit" also enlarges smaller images to 256, bilinearly as TensorFlow 1 did; "none" leaves the images.
    ``samples``: pairs in the publication.

    Raises ``UserError`` for a choice that does not exist, or combinations that mean nothing.
    """

    space: Space = "z"
    interpolation: Interpolation = "slerp_any"
    sampling: Sampling = "full"
    crop: bool = False
    resize: Resize = "none"
    eps: float = 1e-4
    samples: int = 50_000

    def __post_init__(self) -> None:
        for name, kinds in (
            ("space", Space),
            ("interpolation", Interpolation),
            ("sampling", Sampling),
            ("resize", Resize),
        ):
            if getattr(self, name) not in get_args(kinds):
                raise UserError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(get_args(kinds))}")
        needed = {"w": "lerp", "subspaces": "slerp_unit"}.get(self.space, self.interpolation)
        if self.interpolation != needed:
            raise UserError(f"interpolation={self.interpolation!r}: in the space {self.space!r} it is {needed!r}")
        if not self.eps > 0 or self.samples < 2:
            raise UserError(f"eps={self.eps}, samples={self.samples}: a positive step and at least 2 pairs")

    @property
    def described(self) -> str:
        """``z,slerp_any,full``: every choice that moves the number."""
        parts = [self.space, self.interpolation, self.sampling]
        parts += ["crop"] if self.crop else []
        parts += [self.resize] if self.resize != "none" else []
        parts += [f"eps={self.eps:g}"] if self.eps != Variant.eps else []
        return ",".join(parts)

    @property
    def published(self) -> str | None:
        """The name it is known by, if any; the number of samples makes no other variant."""
        mine = _choices(self)
        return next((name for name, other in PRESETS.items() if _choices(other) == mine), None)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """The point at ``t`` (n, 1) of the path from ``a`` to ``b`` (n, ..., d); float64 inside, the dtype of a."""
        at = t.double().reshape(len(t), *[1] * (a.ndim - 1))
        return INTERPOLATIONS[self.interpolation](a.double(), b.double(), at).to(a.dtype)

    def look(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) as the distance is to see them."""
        if self.crop:
            eighth = images.shape[2] // 8
            images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
        if self.resize == "fit" and images.shape[2] < SIDE:
            from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

            return interpolate_bilinear_2d_like_tensorflow1x(images, size=(SIDE, SIDE), align_corners=False)
        factor = images.shape[2] // SIDE
        if self.resize != "none" and factor > 1:
            images = functional.avg_pool2d(images, factor)
        return images


PRESETS: dict[str, Variant] = {
    # Karras et al. 2019, section 4.1 and code
    "ppl_zfull": Variant("z", "slerp_unit", "full", crop=True, resize="shrink", samples=100_000),
    "ppl_wfull": Variant("w", "lerp", "full", crop=True, resize="shrink", samples=100_000),
    "ppl_zend": Variant("z", "slerp_unit", "end", crop=True, resize="shrink", samples=100_000),
    "ppl_wend": Variant("w", "lerp", "end", crop=True, resize="shrink", samples=100_000),
    # StyleGAN2-ADA and StyleGAN3
    "ppl2_wend": Variant("w", "lerp", "end", resize="shrink", samples=50_000),
    # the code of the Hessian penalty, and of OroJaR
    "ppl_zend_v2": Variant("z", "slerp_unit", "end", resize="fit", samples=100_000),
    # ours, for generators that take a Gaussian latent as it is
    "ppl_zfull_any": Variant("z", "slerp_any", "full", resize="shrink", samples=50_000),
    "ppl_zend_any": Variant("z", "slerp_any", "end", resize="shrink", samples=50_000),
    # Song, Sebe & Wang, EigenGAN part of their code
    "ppl_nog": Variant("subspaces", "slerp_unit", "full", samples=10_000),
}
PLAIN = Variant()
# What ``evaluate`` knows by name -> the variant and the distance.
PATH_METRICS: dict[str, tuple[Variant, str]] = {
    **{name: (variant, "lpips-vgg16") for name, variant in PRESETS.items()},
    "pixel_path_length": (PLAIN, "pixel"),
    "feature_path_length": (PLAIN, "efficientnet-lite0"),
}


def resolve_variant(variant: str | Variant) -> Variant:
    """The variant of that name. Raises ``UserError`` for an unknown one."""
    if isinstance(variant, Variant):
        return variant
    if variant not in PRESETS:
        raise UserError(f"path length {variant!r}: choose one of {', '.join(PRESETS)}, or a Variant of your own")
    return PRESETS[variant]


def _choices(variant: Variant) -> list[object]:
    return [getattr(variant, field.name) for field in fields(variant) if field.name != "samples"]
