"""Laws of the loop: interrupted anywhere and gone on with, it is the uninterrupted training, bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_fakes import Crash, FakeBatch, FakeLoader, patches, tiny_loop, tiny_spec, tiny_trainee

from tilesseg.errors import JobError
from tilesseg.events import Event, StepDone, ValidationDone
from tilesseg.training.checkpoint import read_checkpoint
from tilesseg.training.losses import loss_function
from tilesseg.training.optimiser import set_rate
from tilesseg.training.stop_request import StopRequest, stop_on_signals
from tilesseg.training.training_loop import Manner, TrainingLoop, train_step


def tensors_of(loop: TrainingLoop) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loop.trainee.tensors().items()}


def rows(path: Path) -> list[str]:
    """Rows of a log without the seconds, its last column."""
    return [line.rpartition(",")[0] for line in path.read_text().splitlines()]


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def raised_at(number: int, what: Callable[[], None]) -> Callable[[Event], None]:
    """Listener that acts on the event of a number, from 1."""
    seen = iter(range(1, 10_000))

    def listen(_: Event) -> None:
        if next(seen) == number:
            what()

    return listen


def crash() -> None:
    raise Crash("power cut")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> TrainingLoop:
    loop = tiny_loop(tiny_spec(tmp_path_factory.mktemp("whole")))
    loop.carry_out()
    return loop


def test_it_learns_and_keeps_the_best(uninterrupted: TrainingLoop) -> None:
    progress = uninterrupted.trainee.progress
    assert (progress.step, progress.validated) == (14, 14)
    log = [line.split(",") for line in rows(uninterrupted.directory.path / "log.csv")]
    assert [row[0] for row in log] == ["step", *map(str, range(1, 15))]
    assert float(log[-1][1]) < float(log[1][1])
    validations = rows(uninterrupted.directory.path / "validation.csv")
    assert [row.split(",")[0] for row in validations] == ["step", "4", "8", "12", "14"]
    assert progress.best_step in (4, 8, 12, 14)


@pytest.mark.parametrize("chance", range(20))
def test_interrupted_anywhere_and_gone_on_with_it_is_the_uninterrupted_training(
    tmp_path: Path, uninterrupted: TrainingLoop, chance: int
) -> None:
    rng = np.random.default_rng(chance)
    spec = tiny_spec(tmp_path)
    for _ in range(int(rng.integers(1, 4))):
        orderly, number = bool(rng.integers(2)), int(rng.integers(1, 18))
        stop = StopRequest()

        def ask(stop: StopRequest = stop) -> None:
            stop.requested = True

        listener = raised_at(number, ask if orderly else crash)
        try:
            tiny_loop(spec, tell=listener, stop=stop).carry_out()
        except (KeyboardInterrupt, Crash):
            continue
    torch.manual_seed(chance)  # whoever used torch's random numbers meanwhile
    again = tiny_loop(spec)
    again.carry_out()
    assert_equal(tensors_of(again), tensors_of(uninterrupted))
    facts = again.trainee.facts()
    assert {**facts, "seconds": 0} == {**uninterrupted.trainee.facts(), "seconds": 0}
    for name in ("log.csv", "validation.csv"):
        assert rows(tmp_path / name) == rows(uninterrupted.directory.path / name)


def test_asked_to_stop_it_writes_its_state_at_this_step(tmp_path: Path) -> None:
    stop, steps = StopRequest(), []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event.step)
            stop.requested = event.step == 9

    with pytest.raises(KeyboardInterrupt):
        tiny_loop(tiny_spec(tmp_path), tell=listen, stop=stop).carry_out()
    stored, _ = read_checkpoint(tmp_path / "state")
    assert stored is not None
    assert (stored.step, steps[-1]) == (10, 10)  # the step that had begun is finished


def test_asked_to_stop_in_a_validation_it_validates_again(tmp_path: Path, uninterrupted: TrainingLoop) -> None:
    stop = StopRequest()
    loop = tiny_loop(tiny_spec(tmp_path), stop=stop)
    inner = loop.validate
    assert inner is not None

    def validate(after_tile: Callable[[], None]) -> object:
        stop.requested = loop.trainee.progress.step == 8
        return inner(after_tile)

    loop.validate = validate  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        loop.carry_out()
    stored, _ = read_checkpoint(tmp_path / "state")
    assert stored is not None
    assert (stored.step, stored.facts["validated"]) == (8, 4)
    again = tiny_loop(tiny_spec(tmp_path))
    again.carry_out()
    assert_equal(tensors_of(again), tensors_of(uninterrupted))
    assert rows(tmp_path / "validation.csv") == rows(uninterrupted.directory.path / "validation.csv")


def test_a_signal_is_a_request_and_a_second_one_ends_at_once() -> None:
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_patience_over_the_decay_begins_and_then_the_end(tmp_path: Path) -> None:
    events: list[Event] = []
    spec = tiny_spec(tmp_path, stop={"every": 2, "patience": 2}, optimise={"steps": 100, "warmup": 0, "rate": 0.01})
    falling = {2: 0.5, 4: 0.9}
    loop = tiny_loop(spec, tell=events.append, scores=lambda step: falling.get(step, 0.9))  # ties keep the earlier
    loop.carry_out()
    progress = loop.trainee.progress
    assert (progress.best_step, progress.fall, progress.step) == (4, 8, 10)
    rates = [event.rate for event in events if isinstance(event, StepDone)]
    assert rates == pytest.approx([0.01] * 8 + [0.01 * 2 / 3, 0.01 / 3])
    assert [event.best for event in events if isinstance(event, ValidationDone)] == [True, True, False, False, False]


def test_an_early_decay_is_repeated_when_the_training_goes_on(tmp_path: Path) -> None:
    def spec(name: str) -> object:
        return tiny_spec(tmp_path / name, stop={"every": 2, "patience": 1}, optimise={"steps": 60, "decay": 0.5})

    whole = tiny_loop(spec("whole"), scores=lambda step: -step)  # type: ignore[arg-type]
    whole.carry_out()
    assert (whole.trainee.progress.fall, whole.trainee.progress.step) == (4, 8)
    with pytest.raises(Crash):
        tiny_loop(spec("cut"), scores=lambda step: -step, tell=raised_at(9, crash)).carry_out()  # type: ignore[arg-type]
    again = tiny_loop(spec("cut"), scores=lambda step: -step)  # type: ignore[arg-type]
    again.carry_out()
    assert_equal(tensors_of(again), tensors_of(whole))


def test_minutes_over_but_for_the_decay_the_decay_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 100_000))
    monkeypatch.setattr("tilesseg.training.training_loop.time.monotonic", lambda: 0.04 * next(now))
    spec = tiny_spec(tmp_path, optimise={"steps": 10_000, "minutes": 1 / 60, "decay": 0.5}, stop={"every": 10_000})
    loop = tiny_loop(spec)
    loop.validate = None
    loop.carry_out()
    progress = loop.trainee.progress
    assert progress.fall is not None
    assert progress.step == 2 * progress.fall
    assert progress.seconds == pytest.approx(1, abs=0.2)


def test_minutes_count_earlier_executions(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, optimise={"steps": 50, "minutes": 5, "decay": 0.5}, stop={"every": 100})
    loop = tiny_loop(spec)
    loop.trainee.progress.step, loop.trainee.progress.seconds = 4, 299.0
    loop.carry_out()
    assert (loop.trainee.progress.fall, loop.trainee.progress.step) == (5, 10)


def test_without_a_part_that_validates_the_last_checkpoint_is_the_end(tmp_path: Path) -> None:
    loop = tiny_loop(tiny_spec(tmp_path))
    loop.validate = None
    loop.carry_out()
    assert not (tmp_path / "validation.csv").exists()
    stored, _ = read_checkpoint(tmp_path / "state")
    assert stored is not None
    assert (stored.step, loop.trainee.best) == (14, {})


def test_a_loss_that_is_no_number_is_refused(tmp_path: Path) -> None:
    class Broken(FakeLoader):
        def batches(self, first: int, last: int, **kwargs: int) -> object:  # type: ignore[override]
            for batch in super().batches(first, last, **kwargs):
                yield replace(batch, values=batch.values * (float("inf") if batch.step == 6 else 1))

    loop = tiny_loop(tiny_spec(tmp_path))
    loop.loader = Broken()  # type: ignore[assignment]
    with pytest.raises(JobError, match="the loss of step 6 is nan, no finite number; reduce"):
        loop.carry_out()
    stored, _ = read_checkpoint(tmp_path / "state")
    assert stored is not None
    assert stored.step == 4


# ------------------------------------------------------------------ a step


def norm_of_step(tmp_path: Path, clip: float | None, batch: FakeBatch, scale: float = 1.0) -> float:
    spec = tiny_spec(tmp_path, optimise={"kind": "sgd", "weight_decay": 0})
    trainee = tiny_trainee(spec, dropout=0)
    loss = loss_function(spec.loss)
    manner = Manner(lambda scores, labels: scale * loss(scores, labels), torch.device("cpu"), clip)
    before = [value.detach().clone() for value in trainee.network.parameters()]
    set_rate(trainee.optimiser, 1.0)
    train_step(trainee.network, batch, trainee.optimiser, manner=manner)
    after = trainee.network.parameters()
    moved = torch.cat([(new.detach() - old).flatten() for new, old in zip(after, before, strict=True)])
    return float(moved.norm()) / (1 + 0.99)  # of Nesterov's first step


def test_a_gradient_is_scaled_down_to_the_largest_norm(tmp_path: Path) -> None:
    batch = patches(1, range(4))
    free = norm_of_step(tmp_path, None, batch)
    assert norm_of_step(tmp_path, 2 * free, batch) == pytest.approx(free, rel=1e-4)
    assert norm_of_step(tmp_path, free / 4, batch) == pytest.approx(free / 4, rel=1e-3)


def test_the_weights_of_convolutions_decay_and_nothing_else(tmp_path: Path) -> None:
    trainee = tiny_trainee(tiny_spec(tmp_path, optimise={"weight_decay": 0.5}))
    decayed = {id(p): group["weight_decay"] for group in trainee.optimiser.param_groups for p in group["params"]}
    found = {name: decayed[id(value)] for name, value in trainee.network.named_parameters()}
    convolutions = {
        f"{name}.weight"
        for name, layer in trainee.network.named_modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    }
    assert found == {name: 0.5 if name in convolutions else 0.0 for name in found}
    assert 0.0 in found.values()


def test_in_bfloat16_parameters_stay_float32(tmp_path: Path) -> None:
    trainee = tiny_trainee(tiny_spec(tmp_path))
    set_rate(trainee.optimiser, 1e-2)
    manner = Manner(loss_function(tiny_spec(tmp_path).loss), torch.device("cpu"), bf16=True)
    loss, scores = train_step(trainee.network, patches(1, range(4)), trainee.optimiser, manner=manner)
    assert scores.dtype == torch.bfloat16
    assert np.isfinite(float(loss))
    assert {value.dtype for value in trainee.network.parameters()} == {torch.float32}
