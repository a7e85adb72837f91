"""Law 11: peak memory does not grow with the image, in any process; and the plan says what it will be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.parts import memory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.large,
    pytest.mark.cluster,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc"),
]

SMALL, LARGE = 16384, 32768


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A quarter of a thousand million pixels of two bands, and a thousand million: some 160 MB of disk."""
    folder = tmp_path_factory.mktemp("scenes")
    return {size: memory.write_scene(folder / f"scene{size}.tif", (size, size), bands=2) for size in (SMALL, LARGE)}


@pytest.mark.parametrize(("blend", "workers"), [("crop", 1), ("gaussian", 2)])
def test_peak_memory_of_each_process_does_not_grow_with_the_image(
    tmp_path: Path, scenes: dict[int, Path], blend: str, workers: int
) -> None:
    model = memory.write_model(tmp_path / "model", bands=2, margin=96 if blend == "crop" else None)
    found: dict[int, memory.Measured] = {}

    def measure(size: int, attempt: int = 1) -> memory.Measured:
        folder = tmp_path / f"{size}-{attempt}"
        folder.mkdir()
        tiling = {**memory.TILINGS[blend], "core": 8192}  # of the same size in both
        return memory.measure(folder, scenes[size], model, tiling=tiling, workers=workers, threads=2)

    for size in scenes:
        found[size] = measure(size)
    small, large = found[SMALL], found[LARGE]
    if large.worker > 1.1 * small.worker or large.client > 1.1 * small.client:
        large = found[LARGE] = measure(LARGE, attempt=2)  # a peak is now and then higher by chance, growth is always
    said = f"{small}\n{large}"
    assert large.worker <= 1.1 * small.worker, said
    assert large.client <= 1.1 * small.client, said
    for one in found.values():
        assert one.planned == pytest.approx(one.worker, rel=0.3), said
    assert large.recompute_factor <= {"crop": 1.0, "gaussian": 1.1}[blend], said
