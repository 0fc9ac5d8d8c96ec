"""Alpha is no color: changes of color leave it as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from orthogan.data.augment import Augmentation
from orthogan.data.augment.ada import COLOUR, AdaptiveAugment
from orthogan.data.augment.diffaugment import DiffAugment


@pytest.mark.parametrize("make", [lambda: DiffAugment("color"), lambda: AdaptiveAugment(ops=COLOUR)])
@pytest.mark.parametrize("channels", [2, 4])
def test_color_changes_leave_alpha_as_it_is(make: Callable[[], Augmentation], channels: int) -> None:
    augment = make()
    if isinstance(augment, AdaptiveAugment):
        augment.p = torch.ones(())
    images = torch.rand(5, channels, 6, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    drawn = augment.draw(5, images.shape[1:], torch.Generator().manual_seed(1))
    found = augment.apply(images, drawn)
    assert torch.equal(found[:, -1], images[:, -1])
    torch.testing.assert_close(found[:, :-1], augment.apply(images[:, :-1], drawn))
    assert not torch.equal(found[:, :-1], images[:, :-1])
