"""geo-inference (NRCan): `GeoInference` over a file, with its own patch of 1024 and its overlap of a half.

Its network is TorchScript that normalises and ends in softmax. One Dask thread fewer than cores is its default; two
cores would leave one, so it is told the cores.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch
from geo_inference.geo_inference import GeoInference


def main() -> None:
    image, _, script, mask = map(Path, sys.argv[1:5])
    folder = mask.with_suffix(".geo")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    job = GeoInference(model=str(script), work_dir=str(folder), num_classes=3, device=device)
    name = job(
        inference_input=str(image),
        bands_requested=["1", "2", "3"],
        patch_size=1024,
        workers=len(os.sched_getaffinity(0)),
    )
    found = next(folder.glob("*_mask_*.tif"), None) or folder / str(name)
    found.replace(mask)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
