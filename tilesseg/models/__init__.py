"""Models: networks with a contract (`spec.ModelSpec`), whatever runs them.

An engine hides one foreign runtime; a new one is a row in `ENGINES` and a file beside this one. Loading never
unpickles: weights are safetensors, ONNX, TorchScript or programs of torch.export.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.bundle import Bundle, KnownModel, find_bundle, list_models, verify_weights
from tilesseg.models.call import Call, Network, plain
from tilesseg.models.choice import Choice
from tilesseg.models.spec import ModelSpec

__all__ = ["ENGINES", "Bundle", "KnownModel", "Model", "find_bundle", "list_models", "load_model", "verify_weights"]


class Engine(Protocol):
    """A network in its runtime. Safe to call from several threads; it computes for one at a time."""

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda:0` and so on."""

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Model.predict`."""


class OpenEngine(Protocol):
    """What a row of `ENGINES` names."""

    def __call__(self, spec: ModelSpec, weights: Path | None, *, device: str, threads: int) -> Engine:
        """Load a network. `weights` is the verified file; `device` is `auto` or the runtime's own word.

        Raises:
            ModelError: the weights are not what the spec says, or the runtime or the device is not there.
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
        """The network with the ends that a scene needs. Safe to call from several threads, computes for one at a time.

        May take seconds: an engine compiles here. Keep it; the same call gives the same network.
        """


ENGINES: Mapping[str, str] = {
    "unet": "tilesseg.models.torch_engine:open_unet",
    "torchscript": "tilesseg.models.torch_engine:open_torchscript",
    "exported": "tilesseg.models.exported_engine:open_exported",
    "onnx": "tilesseg.models.onnx_engine:open_onnx",
}


def load_model(
    reference: str | Path | Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,
    engine: str = "auto",
    precision: str = "auto",
) -> Model:
    """Find a model, check its weights file against the spec's sha256, and load it.

    Args:
        reference: MODEL as `find_bundle` takes it, or the bundle itself.
        device: `auto` (cuda where there is one, else cpu), `cpu`, `cuda`, `cuda:1` …
        threads: CPU threads of the engine; None takes every core this process may use.
        engine: `auto`, or the runtime: `torch`, `openvino`, `onnxruntime`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        ModelError: not found, damaged, or not what its spec says.
    """
    bundle = reference if isinstance(reference, Bundle) else find_bundle(reference)
    opener = _opener(bundle.spec)
    if bundle.weights_path is None and bundle.spec.engine in ENGINES:
        raise ModelError(f"model {bundle.spec.name}: engine {bundle.spec.engine} needs the section `weights`; add it")
    verify_weights(bundle)
    opened = opener(bundle.spec, bundle.weights_path, device=device, threads=threads or available_cores())
    return _HeldToSpec(bundle.spec, opened, Choice())


def available_cores() -> int:
    """Cores this process may use. Asked of the system: Dask's nanny sets OMP_NUM_THREADS=1 and would answer for it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _opener(spec: ModelSpec) -> OpenEngine:
    dotted = ENGINES.get(spec.engine, spec.engine)
    if ":" not in dotted:
        known = ", ".join(ENGINES)
        raise ModelError(f"model {spec.name} has engine {dotted}; known are {known}, or package.module:Class")
    try:
        opener: OpenEngine = pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"model {spec.name} has engine {dotted}, which cannot be imported: {error}") from None
    return opener


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
        return plain(self.predict, call, self.spec)

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        n, channels, height, width = patches.shape
        if channels != len(self.spec.bands):
            raise ModelError(f"model {self.spec.name} takes {len(self.spec.bands)} bands, not {channels}")
        scores = self.engine.predict(patches)
        shrink = self.spec.patch.shrink
        promised = (n, self.spec.score_channels, height - shrink, width - shrink)
        if scores.shape != promised:
            raise ModelError(
                f"model {self.spec.name} gives scores {scores.shape} for patches {patches.shape}, its spec promises "
                f"{promised}; correct classes, decision or patch.shrink in its model.yaml"
            )
        return scores
