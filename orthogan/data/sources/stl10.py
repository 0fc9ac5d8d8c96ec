"""STL-10 (Coates, Ng & Lee 2011), downloaded by torchvision."""

from __future__ import annotations

from pathlib import Path

from orthogan.data.download import fetching
from orthogan.data.source import ArraySource, DataRequest
from orthogan.data.sources import DATA_SOURCES, DataSource

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


@DATA_SOURCES.register("stl10")
class STL10(DataSource):
    """RGB images of 96 x 96: train (5,000) and test (8,000) with 10 classes; unlabeled (100,000), train+unlabeled."""

    downloads = True
    splits = ("train", "test", "unlabeled", "train+unlabeled")
    unlabeled = ("unlabeled", "train+unlabeled")

    def open(self, data: DataRequest) -> ArraySource:
        """The images, in memory. Raises UserError that says which file to put where."""
        import torchvision.datasets.utils as downloads  # takes seconds to import
        from torchvision import datasets

        archive = Path(data.root) / datasets.STL10.filename
        advice = f"Put {datasets.STL10.filename} (2.6 GB) from {datasets.STL10.url} into {Path(data.root)}"
        with fetching("stl10", advice, Path(data.root)):
            # an archive that is already there only needs unpacking, no network
            here = downloads.check_integrity(str(archive), datasets.STL10.tgz_md5)
            found = datasets.STL10(data.root, split=data.split, download=data.download or here)
        labeled = data.split not in self.unlabeled
        return ArraySource(
            f"stl10-{data.split}",
            data.fit(found.data.transpose(0, 2, 3, 1), "stl10"),
            labels=found.labels if labeled else None,
            class_names=CLASSES if labeled else (),
            transform="lanczos",
        )
