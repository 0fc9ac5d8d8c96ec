"""How well conditioned are the layers of a model from timm?

    python examples/spectrum_of_timm.py resnet18 --pretrained
    python examples/spectrum_of_timm.py mobilenetv3_small_100 --layers "conv,!first"

For every layer: singular values, stable rank, condition number, how far the rows are from orthogonal, and the norm of a
convolution as a map of images. Without --pretrained the weights are random, and nothing is downloaded.
"""

import argparse

import timm

from orthogan.evaluation.spectrum.layer_spectrum import log10_product_of_norms, spectrum, table

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("model", nargs="?", default="resnet18", help="a name that timm knows")
arguments.add_argument("--pretrained", action="store_true", help="download the trained weights")
arguments.add_argument("--layers", default="", help="which layers, as everywhere in orthogan (default: all)")
options = arguments.parse_args()

model = timm.create_model(options.model, pretrained=options.pretrained)
rows = spectrum(model, options.layers)
print(table(rows))

# A stable rank far below the smaller side means that a layer uses few of its directions.
print("\nlayers that use the smallest share of their directions:")
for row in sorted(rows, key=lambda row: row.stable_rank / len(row.singular_values))[:5]:
    most = len(row.singular_values)
    print(f"  {row.name}: stable rank {row.stable_rank:.1f} of {most} ({row.stable_rank / most:.0%})")

# In a plain chain of layers this bounds how much the output can change; with shortcuts it is only a rough guide.
print(f"\nlog10 of the product of operator norms: {log10_product_of_norms(rows)['operator']:.1f}")
