"""Measure what `tiling.turns` gains and costs: Dice of nuclei in the fluorescence images of BBBC038, 1, 4 and 8 turns.

    python -m benchmarks.parts.turns IMAGES MODEL [MODEL …]

IMAGES is a folder of `ID.png` and `ID_mask.tif`; several models are averaged. See docs/how-to/better-masks.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory
from workflows.nuclei.evaluate import EMBRYOS, FLUORESCENCE, dice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of ID.png and ID_mask.tif")
    parser.add_argument("models", nargs="+", help="models whose scores are averaged")
    arguments = parser.parse_args()
    print("| turns | mean Dice | mean Dice of the embryos | CPU s |\n| --- | --- | --- | --- |")
    for turns in (1, 4, 8):
        before = time.process_time()
        found = segment(arguments.images, arguments.models, turns)
        seconds = time.process_time() - before
        figures = {name: dice(mask, truth_of(arguments.images, name)) for name, mask in found.items()}
        embryos = np.mean([figures[name] for name in EMBRYOS])
        print(f"| {turns} | {np.mean(list(figures.values())):.4f} | {embryos:.4f} | {seconds:.0f} |", flush=True)


def segment(images: Path, models: list[str], turns: int) -> dict[str, NDArray[np.bool_]]:
    """Nuclei that a job finds, by image."""
    with TemporaryDirectory() as folder:
        data = {
            "scenes": [str(images / f"{name}.png") for name in FLUORESCENCE],
            "model": models,
            "input": {"bands": [1]},
            "tiling": {"turns": turns},
            "output": {"dir": folder, "products": [], "preview": False},
            "cluster": {"kind": "serial", "engine_threads": 1, "device": "cpu"},
        }
        run_job(parse_job(data, where="turns.py"))
        run = RunDirectory(Path(folder))
        shapes = {name: truth_of(images, name).shape for name in FLUORESCENCE}
        return {name: mask_of(run, name, shape) for name, shape in shapes.items()}


def mask_of(run: RunDirectory, name: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    from tilesseg.raster.window import Window

    return run.scene(name).read(Window(0, 0, *shape)) == 1


def truth_of(images: Path, name: str) -> NDArray[np.bool_]:
    return np.asarray(tifffile.imread(images / f"{name}_mask.tif") > 0)


if __name__ == "__main__":
    main()
