"""Loading a model from its bundle, on a device, by the runtime and in the precision that are chosen for it."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError, cannot
from tilesseg.models.bundle import Bundle, find_bundle, verify_weights
from tilesseg.models.engines.batches import BatchSlots
from tilesseg.models.hardware import able as ask_machine
from tilesseg.models.network import Call, Network, plain, refuse_other_bands, refuse_other_shape
from tilesseg.models.runtime_choice import KINDS, NOT_INSTALLED, Able, Choice, Runtime, choose
from tilesseg.models.spec import ModelSpec
from tilesseg.process import available_cores


class Engine(Protocol):
    """A network in its runtime. Safe to call from several threads; a limited number of threads computes at a time."""

    @property
    def device(self) -> str:
        """Device that computes: `cpu`, `cuda:0` and so on."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Model.predict`."""


@runtime_checkable
class Fused(Protocol):
    """An engine that computes the steps of a call (`Call`) in its runtime."""

    def network(self, call: Call) -> Network:
        """See `Model.network`."""

    def raw(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Model.raw`."""


class OpenOwn(Protocol):
    """A function or class that `engine: package.module:Class` names."""

    def __call__(self, spec: ModelSpec, weights: Path | None, *, device: str, threads: int) -> Engine:
        """Load a network. `weights` is the verified file; `device` is `auto` or the runtime's own word.

        Raises:
            ModelError: the weights do not fit the spec, or there is no such device.
        """


class Model(Protocol):
    """A loaded network."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str:
        """Device that computes: `cpu`, `cuda:0` and so on."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Activated scores of a batch of normalised patches.

        Args:
            patches: `(n, channel, P, P)`, normalised by `spec.normalisation`.

        Returns:
            `(n, spec.score_channels, P − shrink, P − shrink)`, after `spec.activation`.

        Raises:
            ModelError: the network gives another shape than its spec promises.
        """

    def raw(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Output of the network for normalised patches before activation, whatever its shape.

        An engine of the user's own has no such step: it gives its scores.

        Raises:
            ModelError: the network refuses the patches.
        """

    @property
    def choice(self) -> Choice:
        """Runtime and precision, with the reason for both."""

    def network(self, call: Call) -> Network:
        """Network with the steps that a scene needs (`Call`). Safe to call from several threads.

        May take seconds, because an engine compiles here. Keep the result: the same call gives the same network.
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
"""Functions that open each kind of file in each runtime. They take `BatchSlots` in place of the threads that
`OpenOwn` takes, and the precision; functions of torch also take whether to compile."""


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
        ModelError: there is no such model, it is damaged, it does not fit its spec, or the runtime or precision is not
            available.
    """
    bundle = reference if isinstance(reference, Bundle) else find_bundle(reference)
    spec = bundle.spec
    if bundle.weights_path is None and spec.engine in KINDS:
        raise ModelError(
            f"model {spec.name} has engine {spec.engine} and no section `weights`; add this section to its model.yaml"
        )
    verify_weights(bundle)
    choice = choose_for(bundle, ask_machine(device), engine, precision)
    if compiled and choice.runtime != "torch":
        raise ModelError(f"compile is requested and engine {choice.runtime} is chosen; write engine: torch")
    options: dict[str, Any] = {"device": device}
    cores = threads or available_cores()
    if choice.runtime == "own":
        options["threads"] = cores
    else:
        options |= {"batch_slots": BatchSlots(cores, parallel_batches), "precision": choice.precision}
    if choice.runtime == "torch":
        options["compiled"] = compiled
    held = _readable(bundle) if choice.runtime == "openvino" and bundle.onnx is not None else bundle
    return _HeldToSpec(spec, _opener(held.spec, choice.runtime)(held.spec, held.weights_path, **options), choice)


def choose_for(bundle: Bundle, able: Able, engine: str = "auto", precision: str = "auto") -> Choice:
    """Choose as `choose`; before OpenVINO is chosen for a foreign network, try whether it can convert the network.

    A conversion takes seconds. `plan` chooses once; workers load what is chosen.

    Raises:
        ModelError: see `choose`; or OpenVINO is requested and cannot convert the network.
    """
    choice = choose(bundle.spec, able, engine, precision)
    if choice.runtime != "openvino" or bundle.spec.engine == "unet" or find_spec("openvino") is None:
        return choice
    try:
        readable = _readable(bundle)
    except ModelError as problem:
        if engine != "auto":
            raise
        others = tuple(name for name in able.runtimes if name != "openvino")
        native = choose(bundle.spec, replace(able, runtimes=others), engine, precision)
        reason = str(problem).removesuffix(f"; write engine: {native.runtime}")
        return replace(native, why=f"{native.why.replace(NOT_INSTALLED, '')}; {reason}")
    if readable.onnx is None and bundle.onnx is not None:
        return replace(choice, why=f"{choice.why}, from {bundle.onnx.file}: it cannot convert the TorchScript")
    return choice


def _readable(bundle: Bundle) -> Bundle:
    """The bundle, if OpenVINO can convert its network; else one of the ONNX file that its description states beside.

    Raises:
        ModelError: OpenVINO can convert neither, or the ONNX file has another sha256.
    """
    from tilesseg.models.engines.openvino_graphs import read_graphs

    assert bundle.weights_path is not None  # its spec refuses anything else
    try:
        read_graphs(bundle.spec, bundle.weights_path)
        return bundle
    except ModelError:
        if bundle.onnx is None:
            raise
    spec = bundle.spec.model_copy(update={"engine": "onnx", "weights": bundle.onnx})
    path = bundle.folder / bundle.onnx.file
    other = Bundle(spec, bundle.folder, path)
    verify_weights(other)
    read_graphs(spec, path)
    return other


def _opener(spec: ModelSpec, runtime: Runtime) -> Any:
    dotted = ENGINES.get((spec.engine, runtime), spec.engine)
    try:
        return pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            cannot(f"import engine {dotted} of model {spec.name}", error, "install it, or correct engine in model.yaml")
        ) from None


@dataclass(frozen=True, slots=True)
class _HeldToSpec:
    """Any engine, its shapes compared with its spec at every call: a wrong shape would shift or mislabel the mask."""

    spec: ModelSpec
    engine: Engine
    choice: Choice

    @property
    def device(self) -> str:
        return self.engine.device

    def network(self, call: Call) -> Network:
        return self._fused.network(call) if self._fused else plain(self.predict, call, self.spec)

    def raw(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._fused.raw(patches) if self._fused else self.engine.predict(patches)

    @property
    def _fused(self) -> Fused | None:
        """The engine, if it is one of ours: the attributes of another one may mean anything."""
        return self.engine if self.choice.runtime != "own" and isinstance(self.engine, Fused) else None

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        refuse_other_bands(self.spec, patches.shape[1])
        scores = self.engine.predict(patches)
        refuse_other_shape(self.spec, patches.shape, scores.shape)
        return scores
