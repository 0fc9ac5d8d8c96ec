"""The contrastive regularizer of a run: its classifier of pairs, and the losses of both sides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from orthogan import weights
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.models.codes import codes_of
from orthogan.models.label_table import draw_classes
from orthogan.models.protocol import Generator
from orthogan.models.recognition import PairClassifier
from orthogan.rng import derive
from orthogan.training.gan.draws import Draws
from orthogan.training.optimizer_state import load_optimizer, optimizer_tensors
from orthogan.training.optimizers.adam import AdamConfig
from orthogan.training.task import Losses, Phase

NET = "CR"
Pairs = tuple[Tensor, Tensor, Tensor, Tensor | None]  # two latents, the shared codes, labels of both


class Contrast:
    """The classifier of pairs of ``generator``, with its schedule.

    Images of both latents of a pair are generated in one forward pass, in training mode.

    Args:
        generator: with codes.
    """

    def __init__(self, generator: Generator, config: Config, draws: Draws, device: torch.device) -> None:
        codes = codes_of(generator)
        assert codes is not None
        self.generator, self.codes, self.draws = generator, codes, draws
        self.config, self.section, self.device = config, config.loss.contrastive, device
        self.size = self.section.batch_size or config.training.batch_size
        self.net = self._make(0).to(device)
        chosen = config.optimizer.discriminator
        adam = chosen if isinstance(chosen, AdamConfig) else AdamConfig()
        self.optimizer = Adam(self.net.parameters(), lr=self.section.lr, betas=(adam.beta1, adam.beta2), eps=adam.eps)
        self.advance = weights.PowerIterationScheduler(self.net)

    def due(self, share: float) -> bool:
        """Whether it is applied at ``share`` of the run."""
        return share >= self.section.start

    def generator_loss(self, step: int, index: int, parts: int) -> Losses:
        """Compute the weighted loss of G on part ``index`` of ``parts`` of the pairs of ``step``."""
        first, second, shared, labels = self._pairs("G", step, index, parts)
        with weights.hold_power_iteration(self.net):
            loss, _ = self._score(*self._images(first, second, labels), shared)
        return self.section.weight * loss, {"G/contrastive": loss.detach()}

    def phase(self, step: int, parts: int) -> Phase:
        """Return the update of the classifier in ``step``, in ``parts`` parts."""
        self._start_anew(step)
        losses = (partial(self._own_loss, step, index, parts) for index in range(parts))
        return Phase(NET, NET, losses, parts, self.advance.hold)

    def files(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the tensors to store, by file stem."""
        return {
            "contrastive": self.net.state_dict(),
            "optimizer-contrastive": optimizer_tensors(self.net, self.optimizer),
        }

    def load(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of ``files``."""
        self.net.load_state_dict(files["contrastive"])
        load_optimizer(self.net, self.optimizer, files["optimizer-contrastive"])

    def _own_loss(self, step: int, index: int, parts: int) -> Losses:
        with torch.no_grad():
            first, second, shared, labels = self._pairs(NET, step, index, parts)
            with weights.hold_power_iteration(self.generator):
                images = self._images(first, second, labels)
        loss, accuracy = self._score(*images, shared)
        logs = {"CR/loss": loss.detach(), "CR/accuracy": accuracy}
        if self.section.gap:
            logs["CR/gap"] = loss.new_tensor(self.section.gap_at(step / self.config.training.steps))
        return loss, logs

    def _score(self, first: Tensor, second: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(first, second).float()
        return functional.cross_entropy(logits, shared), (logits.argmax(1) == shared).float().mean()

    def _images(self, first: Tensor, second: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        both = self.generator(torch.cat([first, second]), None if labels is None else torch.cat([labels, labels]))
        one, other = both.chunk(2)
        return one, other

    def _pairs(self, purpose: str, step: int, index: int, parts: int) -> Pairs:
        """Draw this process's pairs of part ``index``."""
        rng = self.draws.rng(f"contrastive {purpose}", step, index)
        n = self.size // (parts * self.draws.accelerator.num_processes)
        shared = torch.randint(self.codes.count, (n,), generator=rng, device=self.device)
        gap = self.section.gap_at(step / self.config.training.steps)
        first, second = self.codes.pairs(shared, gap, rng)
        labels = draw_classes(self.generator, n, rng=rng) if self.draws.classes else None
        return first, second, shared, labels

    def _start_anew(self, step: int) -> None:
        """Replace the weights and the state of the optimizer at each step of the gap, as the released code does."""
        steps = self.config.training.steps
        falls = self.section.falls(step / steps)
        if step and falls != self.section.falls((step - 1) / steps):
            self.net.load_state_dict(self._make(falls).state_dict())
            self.optimizer.state.clear()

    def _make(self, turn: int) -> nn.Module:
        data = self.config.data
        if not isinstance(data.resolution, int):
            raise UserError("data.resolution: the contrastive loss needs square images; set one number, such as 32")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.config.seed, "init", "contrastive", turn))
            return PairClassifier(
                resolution=data.resolution,
                image_channels=data.channels,
                channels=self.section.channels,
                codes=self.codes.count,
            )
