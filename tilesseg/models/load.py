"""Loading a model: from its bundle, on a device, by the runtime and precision that are chosen for it."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.bundle import Bundle, find_bundle, verify_weights
from tilesseg.models.engines.parallel_batches import BatchSlots
from tilesseg.models.hardware import able as ask_machine
from tilesseg.models.network import Call, Network, plain, refuse_other_shape
from tilesseg.models.runtime_choice import KINDS, NOT_INSTALLED, Able, Choice, Runtime, choose
from tilesseg.models.spec import ModelSpec
from tilesseg.process import available_cores


class Engine(Protocol):
    """A network in its runtime. Safe to call from several threads; it computes for some of them at a time."""

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda:0` and so on."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Model.predict`."""


@runtime_checkable
class Fused(Protocol):
    """An engine that puts the ends of a call into its network."""

    def network(self, call: Call) -> Network:
        """As `Model.network`."""


class OpenOwn(Protocol):
    """What `engine: package.module:Class` names."""

    def __call__(self, spec: ModelSpec, weights: Path | None, *, device: str, threads: int) -> Engine:
        """Load a network. `weights` is the verified file; `device` is `auto` or the runtime's own word.

        Raises:
            ModelError: the weights are not what the spec says, or the device is not there.
        """


class Model(Protocol):
    """A loaded network."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda:0` and so on."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Activated scores of a batch of normalised patches.

        Args:
            patches: `(n, channel, P, P)`, normalised by `spec.normalisation`.

        Returns:
            `(n, spec.score_channels, P − shrink, P − shrink)`, after `spec.activation`.

        Raises:
            ModelError: the network gives another shape than its spec promises.
        """

    @property
    def choice(self) -> Choice:
        """Runtime and precision, and why."""

    def network(self, call: Call) -> Network:
        """The network with the ends that a scene needs. Safe to call from several threads.

        May take seconds: an engine compiles here. Keep it; the same call gives the same network.
        """


ENGINES: Mapping[tuple[str, Runtime], str] = {
    ("unet", "torch"): "tilesseg.models.engines.torch_engine:open_unet",
    ("torchscript", "torch"): "tilesseg.models.engines.torch_engine:open_torchscript",
    ("exported", "torch"): "tilesseg.models.engines.exported_engine:open_exported",
    ("onnx", "onnxruntime"): "tilesseg.models.engines.onnx_engine:open_onnx",
    ("unet", "openvino"): "tilesseg.models.engines.openvino_engine:open_openvino",
    ("torchscript", "openvino"): "tilesseg.models.engines.openvino_engine:open_openvino",
    ("onnx", "openvino"): "tilesseg.models.engines.openvino_engine:open_openvino",
}
"""What opens each kind of file in each runtime. These take `BatchSlots` in place of the threads
that `OpenOwn` takes, and the precision; those of torch take whether to compile."""


def load_model(
    reference: str | Path | Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,
    engine: str = "auto",
    precision: str = "auto",
    compiled: bool = False,
    parallel_batches: int = 1,
) -> Model:
    """Find a model, check its weights file against the spec's sha256, and load it.

    Args:
        reference: MODEL as `find_bundle` takes it, or the bundle itself.
        device: `auto` (cuda where there is one, else cpu), `cpu`, `cuda`, `cuda:1` …
        threads: CPU threads of the engine; None takes every core this process may use.
        engine: `auto`, or the runtime: `torch`, `openvino`, `onnxruntime`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        compiled: whether PyTorch compiles the network at its first batch (`torch.compile`).
        parallel_batches: number of batches that a processor computes at the same time, where several threads call; they
            share `threads`.

    Raises:
        ModelError: not found, damaged, not what its spec says, or the runtime or precision cannot be had.
    """
    bundle = reference if isinstance(reference, Bundle) else find_bundle(reference)
    spec = bundle.spec
    if bundle.weights_path is None and spec.engine in KINDS:
        raise ModelError(f"model {spec.name}: engine {spec.engine} needs the section `weights`; add it")
    verify_weights(bundle)
    choice = choose_for(bundle, ask_machine(device), engine, precision)
    if compiled and choice.runtime != "torch":
        raise ModelError(f"torch.compile is asked for, and {choice.runtime} computes; write engine: torch")
    options: dict[str, Any] = {"device": device}
    cores = threads or available_cores()
    if choice.runtime == "own":
        options["threads"] = cores
    else:
        options |= {"batch_slots": BatchSlots(cores, parallel_batches), "precision": choice.precision}
    if choice.runtime == "torch":
        options["compiled"] = compiled
    return _HeldToSpec(spec, _opener(spec, choice.runtime)(spec, bundle.weights_path, **options), choice)


def choose_for(bundle: Bundle, able: Able, engine: str = "auto", precision: str = "auto") -> Choice:
    """As `choose`, and where OpenVINO would be chosen for a foreign network, see whether it can convert it.

    Takes seconds where it converts. `plan` calls it once; workers load what it chose.

    Raises:
        ModelError: as `choose`, or OpenVINO is asked for and cannot convert the network.
    """
    choice = choose(bundle.spec, able, engine, precision)
    if choice.runtime != "openvino" or bundle.spec.engine == "unet" or find_spec("openvino") is None:
        return choice
    from tilesseg.models.engines.openvino_graphs import read_graphs

    assert bundle.weights_path is not None  # its spec has seen to it
    try:
        read_graphs(bundle.spec, bundle.weights_path)
    except ModelError as problem:
        if engine != "auto":
            raise
        others = tuple(name for name in able.runtimes if name != "openvino")
        native = choose(bundle.spec, replace(able, runtimes=others), engine, precision)
        reason = str(problem).removesuffix(f"; write engine: {native.runtime}")
        return replace(native, why=f"{native.why.replace(NOT_INSTALLED, '')}; {reason}")
    return choice


def _opener(spec: ModelSpec, runtime: Runtime) -> Any:
    dotted = ENGINES.get((spec.engine, runtime), spec.engine)
    try:
        return pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"model {spec.name} has engine {dotted}, which cannot be imported: {error}") from None


@dataclass(frozen=True, slots=True)
class _HeldToSpec:
    """Any engine, its shapes compared with its spec at every call: a wrong one would shift or mislabel the mask."""

    spec: ModelSpec
    engine: Engine
    choice: Choice

    @property
    def device(self) -> str:
        return self.engine.device

    def network(self, call: Call) -> Network:
        fused = self.choice.runtime != "own" and isinstance(self.engine, Fused)  # else `network` may be any attribute
        return cast("Fused", self.engine).network(call) if fused else plain(self.predict, call, self.spec)

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        if patches.shape[1] != len(self.spec.bands):
            raise ModelError(f"model {self.spec.name} takes {len(self.spec.bands)} bands, not {patches.shape[1]}")
        scores = self.engine.predict(patches)
        refuse_other_shape(self.spec, patches.shape, scores.shape)
        return scores
