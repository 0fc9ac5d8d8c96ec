"""Peers that train by their own recipe, on small stand-ins for their packages that these tests write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.gate import Finished
from benchmarks.peers import PEERS, lightweight_gan, mimicry
from benchmarks.scoring import Wrapped
from benchmarks.setting import Setting, source_of
from benchmarks.time_to_peer import RECIPES
from tests.fixtures.gates import Talk

SETTING = Setting(channels=4, generator_channels=6, batch=2, generator_batch=4, n_dis=2, latent_dim=3, images=16)

LIGHTWEIGHT = {
    "lightweight_gan/__init__.py": "",
    "lightweight_gan/lightweight_gan.py": """
import torch
from kornia.filters import filter2d
from torch import nn
from torch.utils.data import DataLoader
assert torch.cuda.is_available(), "CUDA"

class ImageDataset:
    def __init__(self, folder, image_size):
        raise AssertionError("it reads a folder")

class Nets(nn.Module):
    def __init__(self):
        super().__init__()
        self.G, self.D, self.GE = (nn.Linear(*size) for size in ((5, 3072), (2, 1), (5, 3072)))
        self.cuda(0)

class Trainer:
    made = []

    def __init__(self, folder, image_size, batch_size, gradient_accumulate_every):
        self.image_size = image_size
        self.batch_size, self.gradient_accumulate_every = batch_size, gradient_accumulate_every
        self.latent_dim, self.steps, self.GAN, self.seen = 5, 0, None, []
        Trainer.made.append(self)

    def set_data_src(self, folder):
        self.loader = DataLoader(ImageDataset(folder, self.image_size), batch_size=self.batch_size)

    def init_GAN(self):
        self.GAN = Nets()

    def train(self):
        self.seen.append(next(iter(self.loader)).cuda(0) + torch.zeros([], device=torch.device("cuda:0")))
        self.steps += 1
        self.save(self.steps)
        self.evaluate(self.steps, num_image_tiles=8)

    def save(self, num):
        raise AssertionError("it saves")

    def evaluate(self, num, num_image_tiles):
        raise AssertionError("it draws")
""",
    "lightweight_gan/cli.py": """
import fire
from retry.api import retry_call
from lightweight_gan.lightweight_gan import Trainer

def train_from_folder(data, results_dir, models_dir, new, image_size, num_train_steps, batch_size=2):
    model = Trainer(results_dir, image_size, batch_size, gradient_accumulate_every=3)
    model.set_data_src(data)
    while model.steps < num_train_steps:
        retry_call(model.train, tries=3)
""",
}

MIMICRY = {
    "torch_mimicry/__init__.py": "import tensorflow",
    "torch_mimicry/nets/__init__.py": "",
    "torch_mimicry/nets/sngan.py": """
from torch import nn

class SNGANGenerator32(nn.Linear):
    def __init__(self, nz, ngf):
        super().__init__(nz, ngf)

    def train_step(self, real_batch):
        fakes.append(len(real_batch[0]))

class SNGANDiscriminator32(nn.Linear):
    def __init__(self, ndf):
        super().__init__(ndf, 1)

fakes = []
""",
    "torch_mimicry/training/__init__.py": "",
    "torch_mimicry/training/trainer.py": """
class Trainer:
    def __init__(self, netG, dataloader, num_steps, n_dis, **options):
        self.netG, self.dataloader, self.num_steps, self.n_dis = netG, dataloader, num_steps, n_dis

    def _fetch_data(self, iter_dataloader):
        return iter_dataloader, next(iter_dataloader)

    def train(self):
        reals = iter(self.dataloader)
        for step in range(self.num_steps):
            for i in range(self.n_dis):
                reals, batch = self._fetch_data(iter_dataloader=reals)
            self.netG.train_step(real_batch=batch)
""",
}


def _write(files: Mapping[str, str], folder: Path) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for a stand-in, whose modules are gone afterwards."""
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lightweight_gan", "torch_mimicry")]:
        del sys.modules[name]


def test_lightweight_gan_trains_by_its_own_command_on_images_in_memory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, images = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), []

    def scorer(shown: Callable[[], Wrapped], *_: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda _: images.append(shown()(z)) or {"fd": shown().latent_dim}

    monkeypatch.setattr(lightweight_gan, "scorer", scorer)
    monkeypatch.setattr(lightweight_gan, "AVERAGED_FROM", 2)
    before = torch.cuda.is_available, torch.Tensor.cuda, nn.Module.cuda
    talk = Talk({"score": {}}, {"steps": 3}, {"score": {}})
    with pytest.raises(Finished):
        PEERS["lightweight-gan"](SETTING, talk.gate, path=_write(LIGHTWEIGHT, home))
    assert (torch.cuda.is_available, torch.Tensor.cuda, nn.Module.cuda) == before
    ready, first, timed, second = talk.said
    assert ready["ready"] | {"G parameters": 6 * 3072, "D parameters": 3, "reals per step": 6} == ready["ready"]
    assert (first["fd"], second["fd"]) == (5, 5)
    assert timed["seconds"] > 0
    (trainer,) = sys.modules["lightweight_gan.lightweight_gan"].Trainer.made
    assert (trainer.image_size, trainer.steps) == (32, 3)
    reals = torch.as_tensor(source_of(SETTING).images[:2]) / 255
    for batch in trainer.seen:
        torch.testing.assert_close(batch, reals)
    for image, net in zip(images, (trainer.GAN.G, trainer.GAN.GE), strict=True):  # before and after its average begins
        torch.testing.assert_close(image, net(z).clamp(0, 1) * 2 - 1)


@pytest.mark.parametrize(("recipe", "fakes"), [("", 4), (RECIPES["mimicry"], 2)])
def test_an_update_of_g_has_twice_the_fakes_but_in_the_recipe_of_mimicry(
    recipe: str, fakes: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mimicry, "WORKERS", 0)
    talk = Talk({"steps": 1}, {"steps": 2})
    with pytest.raises(Finished):
        PEERS["mimicry"](SETTING, talk.gate, path=_write(MIMICRY, home), recipe=recipe)
    assert talk.said[0]["ready"]["reals per step"] == 4
    assert len(talk.said) == 3
    assert sys.modules["torch_mimicry.nets.sngan"].fakes == [fakes] * 3
