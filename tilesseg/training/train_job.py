"""The public verb: a training spec carried out, from its images to its bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tilesseg.events import Listener, Note, tell
from tilesseg.training.distributed import is_first_process
from tilesseg.training.model_card import ScenePart
from tilesseg.training.networks import build_network
from tilesseg.training.patch_loader import PatchLoader
from tilesseg.training.scene_validation import PartOfScene
from tilesseg.training.split import Part
from tilesseg.training.train_network import Materials, TrainingResult, finished_training, train_network
from tilesseg.training.train_spec import TrainSpec, read_train_spec
from tilesseg.training.training_data import TrainingData, gather


def train(spec: TrainSpec | str | Path, *, listeners: Sequence[Listener] = ()) -> TrainingResult:
    """Train a network, or go on with it where it stopped. A training that is finished only says so.

    Args:
        spec: training spec, or the path of its file.
        listeners: called with each event, as progress in the terminal.

    Raises:
        KeyboardInterrupt: the training was asked to stop; the same call goes on.
        TilessegError: the spec does not fit the data, or the training cannot go on.
    """
    spec = spec if isinstance(spec, TrainSpec) else read_train_spec(Path(spec))
    finished = finished_training(spec)
    if finished is not None:
        return finished
    data = gather(spec)
    for note in notes_of(data) if is_first_process() else ():
        tell(listeners, Note(note))
    return train_network(spec, materials_of(spec, data), listeners=listeners)


def materials_of(spec: TrainSpec, data: TrainingData) -> Materials:
    """Materials of a training: its network, its loader, and the parts that are scored."""
    return Materials(
        spec=data.spec,
        network=build_network(data.spec, spec.network, spec.seed),
        loader=PatchLoader(data.scenes, data.sampler(spec), white=data.spec.input_range[1]),
        validation=scored_parts(data, "validate"),
        test=scored_parts(data, "test"),
        identities={scene.name: scene.identity() for scene in data.scenes},
        counts=data.pixels("train").tolist(),
        split=data.parts,
        scenes=tuple(ScenePart(each.name, each.source.grid.shape, parts_of(data, each.name)) for each in data.scenes),
    )


def parts_of(data: TrainingData, name: str) -> tuple[Part, ...]:
    """Parts of which a scene has labelled pixels."""
    return tuple(part for part, cells in data.cells[name].items() if cells.pixels.any())


def scored_parts(data: TrainingData, part: Part) -> list[PartOfScene]:
    """Scenes with a labelled pixel in a part, and where in them the part lies."""
    found = []
    for scene in data.scenes:
        cells = data.cells[scene.name].get(part)
        if cells is not None and cells.pixels.any():
            found.append(PartOfScene(scene, tuple(data.parts[scene.name].windows(part))))
    return found


def notes_of(data: TrainingData) -> list[str]:
    """Notes about the scenes, each once, with the number of scenes that it holds for."""
    scenes = dict[str, list[str]]()
    for scene in data.scenes:
        for note in scene.notes:
            scenes.setdefault(note, []).append(scene.name)
    return [f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {note}" for note, names in scenes.items()]
