"""Segmentation of a tile: the function that every worker runs, on any cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import NetworkFailed, OutOfDeviceMemory, TilessegError, reason_of
from tilesseg.events import TileDone
from tilesseg.formats.damage import DamageRecord
from tilesseg.inference.class_counts import ClassCounts, areas_on_ground
from tilesseg.inference.patch_reader import Batch, PatchReader
from tilesseg.inference.pipeline_threads import abreast, ahead, behind
from tilesseg.inference.tile_writer import Predicted, TileWriter, mark_outside
from tilesseg.inference.worker_phases import Stopwatch, enter
from tilesseg.planning.memory import BEHIND
from tilesseg.planning.recipe import Recipe
from tilesseg.process import peak_mb, this_process
from tilesseg.raster.labels import FAILED
from tilesseg.raster.window import Window
from tilesseg.store.shard_writer import stored_sums

if TYPE_CHECKING:
    from tilesseg.formats.damage import Damage
    from tilesseg.formats.source import Source
    from tilesseg.models.network import Network
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.grid import Grid
    from tilesseg.raster.region_of_interest import RoiCells
    from tilesseg.raster.tiling import Tile
    from tilesseg.store.scene_store import Store


@dataclass(frozen=True, slots=True)
class SceneWork:
    """Everything that the tiles of a scene share in a worker process."""

    source: Source
    """The scene's image, with the model's bands selected."""
    network: Network
    """Compiled network with pre- and post-processing, see `planning.recipe.call_of`."""
    spec: ModelSpec
    """Contract of the model."""
    store: Store
    """Place of the scene's mask and ledger."""
    recipe: Recipe
    """Choices that the plan made for the scene."""
    parallel_batches: int = 1
    """Number of batches submitted to the network at the same time, so that the engine stays busy while a tile reads."""


def segment_tile(tile: Tile, work: SceneWork, *, attempt: int = 1, threads: bool = True) -> TileDone:
    """Segment one tile and store its core. The result depends on the arguments alone; a second call does no harm.

    The mask is the same whatever the tiles as long as all batches have the planned shape: where the device has no
    memory for one, smaller batches are taken for the rest of the tile, and its record says so.

    Args:
        tile: the tile.
        work: everything that the tiles of a scene share.
        attempt: number of this attempt in this process, for the record.
        threads: whether reading, and blending and writing, run in background threads; False runs everything in the
            calling thread.

    Raises:
        SourceError: the tile's pixels cannot be read.
        ModelError: scores are to be stored and are not between 0 and 1.
        OutOfDeviceMemory: the device has no memory for a single patch.
        NetworkFailed: the network raised anything else, or gave scores that are not finite.
    """
    clock, core = Stopwatch(), tile.core
    recipe, store = work.recipe, work.store
    reader = PatchReader(tile, work.source, work.spec, recipe, clock)
    writer = TileWriter(tile, spec=work.spec, recipe=recipe, grid=work.source.grid, store=store, clock=clock)
    device = _Device(work.network, recipe.batch_size)
    width = work.parallel_batches if threads else 1
    depths = (max(1, reader.depth + 1 - width), BEHIND) if threads else (0, 0)

    def predict(batch: Batch) -> Predicted:
        if batch.values is None:
            return Predicted(batch.steps, None)
        outputs = device.predict(batch.values)
        reader.give_back(batch)
        return Predicted(batch.steps, outputs)

    with (
        ahead(reader.batches(), depths[0]) as batches,
        abreast(predict, batches, width) as under_way,
        behind(writer.take, depths[1]) as write,
    ):
        enter("read")
        for result in under_way:
            with clock("predict"):
                predicted = result()
            enter("write")
            write(predicted)
            del result, predicted  # before the next one is waited for
            enter("read")
        enter("write")
    wall, counts = clock.wall, writer.class_counts.counts
    damage = _damage_record(reader.damage, counts)
    return store.mark_done(
        TileDone(
            scene=store.scene,
            tile=tile.name,
            pixels=core.area,
            patches=reader.predicted,
            skipped=reader.skipped,
            counts=counts,
            areas=writer.class_counts.areas,
            **damage._asdict(),
            outside=writer.outside,
            read=reader.pixels,
            batch=device.reduced,
            seconds={**clock.seconds, "wait": round(wall - clock.seconds.get("predict", 0.0), 4)},
            peak_mb=peak_mb(),
            worker=this_process(),
            started=clock.started,
            wall=wall,
            attempts=attempt,
            stored=writer.stored(),
        )
    )


def _damage_record(damage: Iterable[Damage], counts: Mapping[str, int]) -> DamageRecord:
    """Damage for a tile's record; windows that cost no pixel, because all around is nodata, are left out."""
    return DamageRecord.of(one for one in damage if one.coarser or counts.get(str(FAILED)))


def skip_tile(tile: Tile, cells: RoiCells, *, grid: Grid, store: Store, scores: int = 0) -> TileDone:
    """Store the core of a tile outside the region of interest, without its source and without a model.

    Args:
        tile: the tile.
        cells: the region of interest.
        grid: grid of the scene.
        store: place of the scene's mask and ledger.
        scores: number of classes whose scores are stored.
    """
    clock, core = Stopwatch(), tile.core
    class_counts = ClassCounts(areas_on_ground(grid), core.x)
    shard_rows = store.core_rows(core, scores=scores)
    class_counts.add_uniform(cells.label, core)
    with clock("write"):
        for y in range(core.y, core.y_stop, store.shard):
            part = Window.from_bounds(y, core.x, min(y + store.shard, core.y_stop), core.x_stop)
            planes = np.empty((1 + scores, *part.shape), np.uint8)
            mark_outside(planes, part, cells)
            for rows, plane in zip(shard_rows, planes, strict=True):
                rows.write(plane)
    return store.mark_done(
        TileDone(
            scene=store.scene,
            tile=tile.name,
            pixels=core.area,
            patches=0,
            skipped=sum(len(row.patches) for row in tile.patch_rows),
            counts=class_counts.counts,
            areas=class_counts.areas,
            outside=core.area,
            seconds=clock.seconds,
            peak_mb=peak_mb(),
            worker=this_process(),
            started=clock.started,
            wall=clock.wall,
            stored=stored_sums(shard_rows),
        )
    )


class _Device:
    """A network with smaller batches once its device has no memory for the planned ones."""

    def __init__(self, network: Network, batch_size: int) -> None:
        self._network, self._planned, self._size = network, batch_size, batch_size

    @property
    def reduced(self) -> int:
        """Number of patches in the smallest batch; 0 where no batch was smaller than planned."""
        return self._size if self._size < self._planned else 0

    def predict(self, patches: NDArray[Any]) -> NDArray[Any]:
        """Outputs of the network.

        Raises:
            OutOfDeviceMemory: the device has no memory for a single patch.
            NetworkFailed: the network raised anything else.
        """
        parts: list[NDArray[Any]] = []
        start, stop = 0, len(patches)
        while start < stop:
            size = self._size
            begin = min(start, stop - size)  # the last batch too has the full shape
            try:
                outputs = self._network(patches[begin : begin + size])
            except OutOfDeviceMemory:
                if size == 1:
                    raise
                self._size = min(self._size, -(-size // 2))
                continue
            except TilessegError:
                raise
            except Exception as error:
                # ^ of any kind: what a network raises is its own affair
                raise NetworkFailed(reason_of(error)) from error
            parts.append(outputs[start - begin :])
            start = begin + size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
