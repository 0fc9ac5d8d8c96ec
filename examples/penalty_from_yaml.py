"""A penalty of your own, named in a YAML file.

    cd examples
    orthogan train penalty_from_yaml.yaml
    python penalty_from_yaml.py

A penalty is a function of a weight matrix (outputs, inputs). Its keyword arguments are its options, which stand beside
`kind: penalty_from_yaml:spread_rows` in the YAML file and are checked by their type hints.
"""

import argparse

from torch import Tensor


def spread_rows(weight: Tensor, *, margin: float = 0.2) -> Tensor:
    """How far the cosine between two rows of the layer exceeds ``margin``: filters that look alike are pushed apart."""
    rows = weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosines = (rows @ rows.T).fill_diagonal_(0.0)
    return (cosines.abs() - margin).clamp_min(0.0).square().sum() / len(rows)


def main() -> None:
    """Train without and with the penalty, and compare how alike the filters of the discriminator are."""
    import orthogan
    from orthogan.evaluation.spectrum.layer_spectrum import spectrum
    from orthogan.models.open import open_model

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more keys of the config")
    options = arguments.parse_args()
    for name, keys in (("without", ["model.discriminator.penalties=[]"]), ("with", [])):
        run = orthogan.train("penalty_from_yaml.yaml", [f"out=runs/penalty-{name}", *keys, *options.set])
        discriminator = open_model(run, trust=True).discriminator  # the run names code of yours: hence the consent
        rows = spectrum(discriminator, "conv")
        mean = sum(row.coherence for row in rows) / len(rows)
        print(f"{name} the penalty: largest cosine between two filters, mean over the convolutions: {mean:.2f}")


if __name__ == "__main__":
    main()
