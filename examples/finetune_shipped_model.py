"""Fine-tune a shipped model on other images: here portraits in sunglasses and hats, with few images and few steps.

    python examples/finetune_shipped_model.py
    python examples/finetune_shipped_model.py --set data.source=folder data.path=my-photos

Training starts from the weights of the shipped model instead of random ones. The config is the one that the model was
trained with, so that the nets have the same shape; what follows changes the data, the length and the learning rates.
"""

import argparse

import orthogan
from orthogan.latent import image_grid

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--model", default="faces-srngan", help="a name that `orthogan models` lists, or a run")
arguments.add_argument("--config", default="faces/srngan", help="the config that it was trained with")
arguments.add_argument("--steps", type=int, default=300)
arguments.add_argument("--out", default="runs/finetuned")
other = ["data.count=2000", "data.options.fixed={glasses: dark01, hat: variant03}"]
arguments.add_argument("--set", nargs="*", default=other, metavar="KEY=VALUE", help="what the data is, and other keys")
options = arguments.parse_args()

config = orthogan.load_config(
    options.config,
    [
        f"model.init={options.model}",  # the generator, and the discriminator if it ships
        f"training.steps={options.steps}",
        "training.schedule={kind: linear, start: 0.5, warmup: 0.1}",  # careful at first, then down to 0
        "training.ema.half_life=2000",
        "optimizer.generator.lr=2e-4",
        "optimizer.discriminator.lr=2e-4",
        "logging={every: 50, samples_every: 100}",
        "checkpoint.every=100",
        "evaluation={every: 100, at_start: true, samples: 1000, reference_samples: 2000}",  # a small set: score often
        f"out={options.out}",
        *options.set,
    ],
)
run = orthogan.train(config)

# The same latents before and after: what the model knew, and what it has learned.
for name, model in (("before", options.model), ("after", run)):
    generator = orthogan.load(model)
    images = generator(generator.sample_latent(16, seed=0)).detach()
    image_grid(images).save(run / f"{name}.png")
    print(f"{name}: {run / name}.png")
