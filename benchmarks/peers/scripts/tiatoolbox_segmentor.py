"""TIAToolbox: `SemanticSegmentor` over a whole slide into Zarr, then its labels as a tiled TIFF.

Its own defaults but these: everything is looked at (`auto_get_mask=False`, as every tool here does), patches of 512
with the overlap that MONAI documents, batches of 4, no loader processes of their own (its default).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import network
import numpy as np
import tifffile
import torch
import zarr
from tiatoolbox.models.engine.io_config import IOSegmentorConfig
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.models.models_abc import ModelABC

PATCH, STRIDE, BATCH = 512, 384, 4
BASELINE = {"units": "baseline", "resolution": 1.0}


class Tissue(ModelABC):
    """The network as TIAToolbox wants it."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        self.network, mean, std = network.load(bundle)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean) / self.std)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """`(n, y, x, channel)` to probabilities `(n, y, x, class)`."""
        with torch.inference_mode():
            scores = model(batch_data.to(device).permute(0, 3, 1, 2).float())
            return scores.softmax(1).permute(0, 2, 3, 1).cpu().numpy()

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        return image.argmax(-1)


def main() -> None:
    image, bundle, _, mask = map(Path, sys.argv[1:5])
    folder = mask.with_suffix(".tiatoolbox")
    shutil.rmtree(folder, ignore_errors=True)
    engine = SemanticSegmentor(model=Tissue(bundle), batch_size=BATCH, num_workers=0, verbose=False)
    shape = {
        "patch_input_shape": (PATCH, PATCH),
        "patch_output_shape": (PATCH, PATCH),
        "stride_shape": (STRIDE, STRIDE),
    }
    config = IOSegmentorConfig(
        input_resolutions=[BASELINE], output_resolutions=[BASELINE], save_resolution=BASELINE, **shape
    )
    found = engine.run(
        [image],
        patch_mode=False,
        ioconfig=config,
        save_dir=folder,
        output_type="zarr",
        auto_get_mask=False,
        device="cuda" if torch.cuda.is_available() else "cpu",
        overwrite=True,
    )
    where = next(iter(found.values())) if isinstance(found, dict) else found
    store = zarr.open(str(where), mode="r")
    labels = np.asarray(store["predictions"] if isinstance(store, zarr.Group) else store)
    tifffile.imwrite(mask, labels.astype(np.uint8), tile=(512, 512), compression="deflate")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
