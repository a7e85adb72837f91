"""`tilesseg stage`: copy of an image in Zarr, for images that are read more than once.

The copy lies in a hidden folder beside the target until it is complete; run again, it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg.cluster import connect as cluster
from tilesseg.doubts import doubt
from tilesseg.errors import FormatError, SourceError, StoreError, cannot, reason_of
from tilesseg.events import Listener, RegionFailed, RegionStaged, RunStarted, ScenePlanned, tell
from tilesseg.formats.damage import NO_DAMAGE, DamageRecord
from tilesseg.formats.geozarr.staged_source import note_damage
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.writing.publish import check_target
from tilesseg.monitoring.humanize import counted
from tilesseg.paths import without_secrets
from tilesseg.planning.alpha_choice import resolve_alpha
from tilesseg.planning.band_choice import choose_bands
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.plan import anywhere
from tilesseg.planning.staging import copy_layout
from tilesseg.process import available_cores, this_process
from tilesseg.raster.window import Window
from tilesseg.store.staged_copy import CopyLayout, CopyRegion, StagedCopy, copy_region

if TYPE_CHECKING:
    from tilesseg.cluster.executors import Executor
    from tilesseg.formats.source import Source


@dataclass(frozen=True, slots=True)
class Staged:
    """Outcome of copying."""

    path: Path
    pixels: int
    regions: int
    seconds: float
    failed: dict[str, str]
    """Reason by region that could not be copied. With any of them there is no `path` yet."""
    damage: DamageRecord = NO_DAMAGE
    """Damage of the image: its windows are damaged in the copy too."""

    @property
    def exit_code(self) -> int:
        return 3 if self.failed or self.damage.damage else 0

    @property
    def text(self) -> str:
        """Outcome as text for people."""
        if self.failed:
            missing = f"{len(self.failed)} of {self.regions} regions could not be copied"
            return f"{missing}, so {self.path} is not made yet; the same command tries them again"
        wrote = f"wrote {self.path}: {self.pixels / 1e6:.1f} Mpx in {self.seconds:.1f} s"
        if not self.damage.damage:
            return wrote
        windows = [Window(*window) for window in (*self.damage.damaged, *self.damage.coarser)]
        pixels = sum(window.area for window in windows)
        damage = f"{pixels:,} px in {counted(len(windows), 'window')} of the image cannot be decoded"
        return doubt("damaged-pixels", f"{wrote}; {damage}, and are damaged in the copy too ({self.damage.damage})")


@dataclass(frozen=True, slots=True)
class CopyTask:
    """Function that executors map over names of regions."""

    paths: tuple[str, ...]
    bands: tuple[int, ...]
    folder: str
    layout: CopyLayout
    opening: Opening

    def __call__(self, name: str) -> RegionStaged | RegionFailed:
        """Copy one region; a failure costs this region alone."""
        try:
            source, copy = _open(self.paths, self.bands, self.opening), StagedCopy(Path(self.folder))
            region = self.layout.named(source.grid.shape, name)
            return copy_region(
                region, source=source, copy=copy, layout=self.layout, scene=without_secrets(self.paths[0])
            )
        except Exception as error:
            # ^ of any kind: the reason goes into the record, and the other regions go on
            return self.lost(name, reason_of(error))

    def lost(self, name: str, reason: str) -> RegionFailed:
        """Record of a region that could not be copied, or whose worker process died."""
        record = RegionFailed(without_secrets(self.paths[0]), name, 0, reason, this_process())
        StagedCopy(Path(self.folder)).ledger.mark_failed(name, record)
        return record


def stage_image(
    image: str | Sequence[str],
    out: Path,
    *,
    bands: Sequence[str | int] | None = None,
    workers: Cluster | None = None,
    executor: Executor | None = None,
    listeners: Sequence[Listener] = (),
) -> Staged:
    """Copy an image to a sharded Zarr with its grid, band names, scales, masks and placement, or go on with the copy.

    The copy is a source like the image, with the same pixels, and follows the GeoZarr conventions `spatial:` and
    `proj:`, so that other software can place it.

    Args:
        image: path or paths, see `open_source`.
        out: Zarr to make; must end with `.zarr` and must not exist.
        bands: names, or numbers from 1; None copies all.
        workers: section `cluster`; None means worker processes on this machine.
        executor: executor to use in place of `workers`.
        listeners: called with every event, in this thread.

    Raises:
        SourceError: the image cannot be opened, or has no such band.
        FormatError: `out` cannot be written.
    """
    begun = time.monotonic()
    _check(out)
    try:
        paths = tuple(map(anywhere, [image] if isinstance(image, str) else image))
    except ValueError as error:
        raise SourceError(str(error)) from None
    opening = Opening()
    source = open_source(paths, opening)
    source.refuse_damaged()
    if bands is not None:
        names = [str(band) for band in bands]
        source, opening, selected = resolve_alpha(source, opening, paths=paths, wanted=names, selected=bands)
        chosen, _ = choose_bands(source, names, selected, image=paths[0])
        source = source.select(chosen)
    layout, copy = copy_layout(source), StagedCopy(out.with_name(f".{out.name}.stage"))
    copy.create(source=source, layout=layout)
    missing = copy.missing(layout, source.grid.shape)
    failed = _copy(
        CopyTask(paths, source.selected, str(copy.folder.absolute()), layout, opening),
        missing,
        workers,
        executor,
        listeners,
    )
    damage = copy.damage() if not failed else []
    if not failed:
        if damage:
            note_damage(copy.image, damage)
        _publish(copy, out)
    seconds = round(time.monotonic() - begun, 3)
    return Staged(out, source.grid.window.area, len(missing), seconds, failed, DamageRecord.of(damage))


def _copy(
    task: CopyTask,
    regions: Sequence[CopyRegion],
    workers: Cluster | None,
    executor: Executor | None,
    listeners: Sequence[Listener],
) -> dict[str, str]:
    """Copy the regions, and return the reason by region that could not be copied."""
    failed = {}
    with ExitStack() as stack:
        executor = executor or stack.enter_context(cluster.connect(_copy_workers(workers or Cluster()), "cpu"))
        tell(listeners, RunStarted(scenes=1, slots=executor.slots))
        tell(listeners, ScenePlanned(without_secrets(task.paths[0]), tiles=0, done=0, pixels=0, regions=len(regions)))
        for event in executor.map(task, [region.name for region in regions], lost=task.lost):
            tell(listeners, event)
            if isinstance(event, RegionFailed):
                failed[event.region] = event.reason
    return failed


def _copy_workers(section: Cluster) -> Cluster:
    """Workers that copy: `auto` on this machine is one process for each core, four at most."""
    if section.kind != "local" or section.workers != "auto" or section.adaptive:
        return section
    return section.model_copy(update={"workers": min(4, available_cores())})


def _check(out: Path) -> None:
    """Refuse a target that cannot be made, before anything is read.

    Raises:
        FormatError: its suffix is not `.zarr`, it exists, or its folder is missing or cannot be written.
    """
    if out.suffix != ".zarr":
        raise FormatError(f"cannot write {out}: its suffix is {out.suffix or 'none'}; give it the suffix .zarr")
    if out.exists():
        raise FormatError(f"cannot write {out}: it exists; remove it, or choose another name")
    check_target(out, folder=True)
    if not out.absolute().parent.is_dir():
        cause = f"{out.absolute().parent} does not exist"
        raise FormatError(cannot(f"write {out}", cause, "make that folder first"))


def _publish(copy: StagedCopy, out: Path) -> None:
    """Give the complete copy its name."""
    try:
        copy.image.rename(out)
    except OSError as error:
        raise StoreError(cannot(f"make {out}", error, f"rename the complete copy, {copy.image}")) from None
    copy.remove()


@lru_cache(maxsize=4)
def _open(paths: tuple[str, ...], bands: tuple[int, ...], opening: Opening) -> Source:
    """Image, opened once per process."""
    return open_source(paths, opening).select(bands)
