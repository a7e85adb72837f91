"""Events of a run, as values: written to `events.jsonl`, drawn by progress listeners, kept in the ledger.

Progress is events, not log lines. A worker measures itself and sends the figures back with its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

PARTS = ("predict", "wait", "read", "blend", "write")
"""Parts of the work on a tile, each with seconds of its own. `predict` and `wait` (the network had nothing to do) make
the tile's wall time; the other parts run at the same time, in threads of their own."""
BESIDE = PARTS[2:]


def account(seconds: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by part, in two groups: parts that make the tiles' wall time, and parts that ran at the same time.

    Without any of the first group, the second alone.
    """
    beside = {part: seconds[part] for part in BESIDE if part in seconds}
    own = {part: seconds[part] for part in (*PARTS, *seconds) if part in seconds and part not in beside}
    return (own, beside) if any(own.values()) else (beside, {})


@dataclass(frozen=True, slots=True)
class Event:
    """Anything that happens; `kind` names it in JSON."""

    kind: ClassVar[str] = "event"

    def to_json(self) -> dict[str, Any]:
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A run begins, or goes on after an earlier one."""

    kind: ClassVar[str] = "run_started"
    scenes: int
    """Scenes that the job names, as far as they were chosen."""
    finished: int = 0
    """Number of these scenes that an earlier run completed: nothing is done for them."""
    slots: int = 1
    """Tiles at the same time."""
    dashboard: str | None = None
    job: str = ""
    """Its name."""
    directory: str = ""
    """Path of the run directory."""
    classes: tuple[str, ...] = ()
    finished_pixels: int = 0
    """Pixels of the completed scenes together; 0 where nobody counted them."""


@dataclass(frozen=True, slots=True)
class ScenePlanned(Event):
    """Everything about a scene is decided; its tiles follow."""

    kind: ClassVar[str] = "scene_planned"
    scene: str
    tiles: int
    """Tiles left to do."""
    done: int
    """Tiles found done from an earlier run."""
    pixels: int
    """Core pixels of the tiles left to do."""
    regions: int = 0
    """Regions of the image that are copied to Zarr before."""
    shape: tuple[int, int] = (0, 0)
    """Height and width of the scene, in pixels."""
    core: tuple[int, int] = (0, 0)
    """Height and width of a core: a scene has `ceil(shape ÷ core)` rows and columns of tiles, named `r012-c034`."""
    work_factor: float = 0.0
    """Predicted pixels ÷ scene pixels."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegionStaged(Event):
    """One region of an image is copied to Zarr. This is the copy's ledger's record, `staged/done/<region>.json`."""

    kind: ClassVar[str] = "region_staged"
    scene: str
    region: str
    pixels: int
    seconds: float
    """Wall time of reading and writing it."""
    peak_mb: float = 0.0
    """Largest resident memory of the worker process so far, in MB."""
    worker: str = ""
    damaged: Sequence[Sequence[int]] = field(default_factory=list)
    """Windows `[y, x, height, width]` of the image that cannot be decoded."""
    coarser: Sequence[Sequence[int]] = field(default_factory=list)
    """Windows that cannot be decoded and whose pixels are taken from a coarser level."""
    damage: str | None = None
    """Why the first of these windows cannot be decoded."""


@dataclass(frozen=True, slots=True)
class RegionFailed(Event):
    """One region could not be copied: the tiles that need it will fail for the same reason. Tried again next time."""

    kind: ClassVar[str] = "region_failed"
    scene: str
    region: str
    pixels: int
    reason: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class TileDone(Event):
    """One core is stored. This is the ledger's record, `done/<tile>.json`."""

    kind: ClassVar[str] = "tile_done"
    scene: str
    tile: str
    pixels: int
    """Pixels of the core."""
    patches: int
    """Patches predicted."""
    skipped: int
    """Number of patches that were not predicted, because no pixel under them is valid and of interest."""
    counts: Mapping[str, int]
    """Pixels per label (as text), 255 included."""
    areas: Mapping[str, float]
    """Square metres per label, empty where the grid is not of the Earth."""
    damaged: Sequence[Sequence[int]] = field(default_factory=list)
    """Windows `[y, x, height, width]` of the image that cannot be decoded: pixels that depend on them are 254."""
    coarser: Sequence[Sequence[int]] = field(default_factory=list)
    """Windows that cannot be decoded and whose pixels are taken from a coarser level."""
    damage: str | None = None
    """Why the first of these windows cannot be decoded."""
    outside: int = 0
    """Pixels of the core outside the region of interest."""
    read: int = 0
    """Pixels of the image that were read."""
    batch: int = 0
    """Patches in the smallest batch, where the device had no memory for the planned one; else 0."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part, see `PARTS`."""
    peak_mb: float = 0.0
    """Largest resident memory of the worker process so far, in MB."""
    worker: str = ""
    """Its machine and process, as `node7:4711`."""
    started: float = 0.0
    """When the tile began, in seconds since 1970."""
    wall: float = 0.0
    """Seconds from then to its end."""
    attempts: int = 1
    """Number of attempts in this process, those that a passing trouble stopped included."""
    generation: int = 0
    """Number of the execution that did the tile, see `store.generations`; 0: unknown."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Sums of the stored shards, by plane (`mask`, `levels/0`, `scores/2`), row by row: `5120:0a1b2c3d absent`, the
    number of bytes and their CRC-32C. Empty in records of earlier versions."""


@dataclass(frozen=True, slots=True)
class TileFailed(Event):
    """One core could not be made: it holds 254. Kept as `failed/<tile>.json`; the next run tries it again."""

    kind: ClassVar[str] = "tile_failed"
    scene: str
    tile: str
    pixels: int
    reason: str
    worker: str = ""
    generation: int = 0
    """Number of the execution that tried the tile; 0: unknown."""
    network: bool = False
    """Whether the network failed, and not the reading or the writing."""


@dataclass(frozen=True, slots=True)
class SceneRefused(Event):
    """One scene cannot be segmented; the others go on."""

    kind: ClassVar[str] = "scene_refused"
    scene: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProductWritten(Event):
    """One product of one scene is complete."""

    kind: ClassVar[str] = "product_written"
    scene: str
    path: str
    seconds: float
    replaced: str = ""
    """End of a sentence on the file that was there before, as `in place of …`; empty where there was none."""


@dataclass(frozen=True, slots=True)
class SceneFinished(Event):
    """Nothing is left to do for a scene. Kept as `finished.json` in its folder."""

    kind: ClassVar[str] = "scene_finished"
    scene: str
    state: str
    """`complete`, `damaged`, `failed tiles`, or `failed products`."""
    products: Mapping[str, float] = field(default_factory=dict)
    """Paths that were written, and the seconds that each of them took."""
    problem: str | None = None
    """Why a product could not be written."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Ends of sentences on files that were there before, by the paths of products, see `ProductWritten`."""


@dataclass(frozen=True, slots=True)
class Note(Event):
    """A plain sentence for whoever watches: a warning, a choice made."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True, slots=True)
class TrainingStarted(Event):
    """A training begins, or goes on after an earlier execution."""

    kind: ClassVar[str] = "training_started"
    name: str
    """Name of the model."""
    steps: int
    """Number of all steps."""
    done: int
    """Number of steps that earlier executions did."""
    seconds: float = 0.0
    """Seconds that earlier executions took."""


@dataclass(frozen=True, slots=True)
class StepDone(Event):
    """One step of a training is done."""

    kind: ClassVar[str] = "step_done"
    step: int
    """Number of the step, from 1."""
    steps: int
    """Number of all steps, as known by now."""
    loss: float
    rate: float
    """Learning rate."""
    seconds: float
    """Seconds of all executions of the training so far."""


@dataclass(frozen=True, slots=True)
class ValidationDone(Event):
    """The scenes that validate have been segmented and compared with their labels."""

    kind: ClassVar[str] = "validation_done"
    step: int
    score: float
    """Mean Dice, pooled over the scenes."""
    patch_score: float
    """Mean Dice of the patches that the network learnt from since the last validation."""
    best: bool
    """Whether no earlier validation was as good."""
    seconds: float
    """Seconds of all executions of the training so far."""


@dataclass(frozen=True, slots=True)
class TrainingFinished(Event):
    """The bundle is written."""

    kind: ClassVar[str] = "training_finished"
    steps: int
    bundle: str
    """Folder of the bundle."""
    seconds: float


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """Nothing is left to do or to try."""

    kind: ClassVar[str] = "run_finished"
    done: int
    """Tiles."""
    failed: int
    """Tiles."""
    refused: int
    """Scenes."""
    seconds: float


Listener = Callable[[Event], None]
"""Whoever watches a run: called with every event."""


def tell(listeners: Iterable[Listener], event: Event) -> None:
    """Tell everybody who watches of an event."""
    for listener in listeners:
        listener(event)
