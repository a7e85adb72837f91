"""`segment_tile`: the function that every worker runs, whatever runs the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import OutOfDeviceMemory
from tilesseg.events import TileDone
from tilesseg.inference.class_counts import Census
from tilesseg.inference.patch_reader import Batch, Reader
from tilesseg.inference.pipeline_threads import abreast, ahead, behind
from tilesseg.inference.tile_writer import Joiner, Predicted, mark_outside
from tilesseg.inference.worker_phases import Stopwatch, enter
from tilesseg.planning.memory import BEHIND
from tilesseg.planning.recipe import Recipe
from tilesseg.process import peak_mb, this_process
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.models.network import Network
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.grid import Grid
    from tilesseg.raster.region_of_interest import RoiCells
    from tilesseg.raster.tiling import Tile
    from tilesseg.store.scene_store import Store


def segment_tile(
    tile: Tile,
    *,
    source: Source,
    network: Network,
    spec: ModelSpec,
    store: Store,
    recipe: Recipe,
    attempt: int = 1,
    parallel_batches: int = 1,
    beside: bool = True,
) -> TileDone:
    """Segment one tile and store its core. Depends on its arguments alone, and is safe to run twice.

    The mask is the same whatever the tiles as long as all batches have the planned shape: where the device has no
    memory for one, smaller ones are taken for the rest of the tile, and its record says so.

    Args:
        tile: the tile.
        source: the scene's image, the model's bands selected.
        network: the model's, with the ends that `call_of` names.
        spec: the model's contract.
        store: the scene's.
        recipe: the scene's.
        attempt: how often it is tried in this process, for the record.
        parallel_batches: batches that are given to the network at the same time, so that the engine stays
            busy while a tile reads, and at its end.
        beside: read before, and blend and write behind the network in threads of their own; else all in turn.

    Raises:
        SourceError: the tile's pixels cannot be read.
        ValueError: the network gave scores that are not finite.
        ModelError: scores are to be stored and are not between 0 and 1.
        OutOfDeviceMemory: the device has no memory for a single patch.
    """
    clock, core = Stopwatch(), tile.core
    reader = Reader(tile, source, spec, recipe, clock)
    joiner = Joiner(tile, spec=spec, recipe=recipe, grid=source.grid, store=store, clock=clock)
    device = _Device(network, recipe.batch_size)

    def predict(batch: Batch) -> Predicted:
        if batch.values is None:
            return Predicted(batch.steps, None)
        outputs = device.predict(batch.values)
        reader.give_back(batch)
        return Predicted(batch.steps, outputs)

    parallel_batches, depths = (
        (parallel_batches, (max(1, reader.depth + 1 - parallel_batches), BEHIND)) if beside else (1, (0, 0))
    )
    with (
        ahead(reader.batches(), depths[0]) as batches,
        abreast(predict, batches, parallel_batches) as under_way,
        behind(joiner.take, depths[1]) as join,
    ):
        enter("read")
        for result in under_way:
            with clock("predict"):
                predicted = result()
            enter("write")
            join(predicted)
            del result, predicted  # before the next one is waited for
            enter("read")
        enter("write")
    wall = clock.wall
    return store.mark_done(
        TileDone(
            scene=store.scene,
            tile=tile.name,
            pixels=core.area,
            patches=reader.predicted,
            skipped=reader.skipped,
            counts=joiner.census.counts,
            areas=joiner.census.areas,
            outside=joiner.outside,
            read=reader.pixels,
            batch=device.reduced,
            seconds={**clock.seconds, "wait": round(wall - clock.seconds.get("predict", 0.0), 4)},
            peak_mb=peak_mb(),
            worker=this_process(),
            started=clock.started,
            wall=wall,
            attempts=attempt,
        )
    )


def skip_tile(tile: Tile, cells: RoiCells, *, grid: Grid, store: Store, scores: int = 0) -> TileDone:
    """Store the core of a tile of which no cell is looked at, without its source and without a model.

    Args:
        tile: the tile.
        cells: where to look.
        grid: the scene's.
        store: the scene's.
        scores: how many classes' scores are stored.
    """
    clock, census, core = Stopwatch(), Census(grid.pixel_areas), tile.core
    shard_rows = store.core_rows(core, scores=scores)
    census.add_uniform(cells.label, core)
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
            counts=census.counts,
            areas=census.areas,
            outside=core.area,
            seconds=clock.seconds,
            peak_mb=peak_mb(),
            worker=this_process(),
            started=clock.started,
            wall=clock.wall,
        )
    )


class _Device:
    """A network that is given smaller batches once its device has no memory for the planned ones."""

    def __init__(self, network: Network, batch_size: int) -> None:
        self._network, self._planned, self._size = network, batch_size, batch_size

    @property
    def reduced(self) -> int:
        """Patches in the smallest batch that was taken; 0 where none was smaller than planned."""
        return self._size if self._size < self._planned else 0

    def predict(self, patches: NDArray[Any]) -> NDArray[Any]:
        """As the network; raises OutOfDeviceMemory where it has no memory for a single patch."""
        parts: list[NDArray[Any]] = []
        start, stop = 0, len(patches)
        while start < stop:
            size = self._size
            begin = min(start, stop - size)  # the last batch too has the full shape
            try:
                found = self._network(patches[begin : begin + size])
            except OutOfDeviceMemory:
                if size == 1:
                    raise
                self._size = min(self._size, -(-size // 2))
                continue
            parts.append(found[start - begin :])
            start = begin + size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
