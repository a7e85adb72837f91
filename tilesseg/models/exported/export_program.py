"""A program: a graph of torch's `aten` operators with its tensors, computed one operation after the other.

`export_archive` reads it from a `.pt2` file. It calls the same operators as the eager network, so that the scores are
the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import torch

DTYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
    7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
"""Types of values, by their numbers in the schema of torch.export."""
_FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """A call of the graph."""

    target: str
    """Name of the operator without its overload, such as `aten::conv2d`, or of a function on numbers."""
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    """Arguments as in the file: dicts of a single entry, whose key is the kind of value; see `Program.value`."""
    keywords: Mapping[str, Any]
    results: tuple[Any, ...]
    unused: tuple[str, ...] = ()
    """Values that no later operation needs."""


@dataclass(frozen=True, slots=True)
class Size:
    """A side of the input."""

    low: int
    high: int | None
    """Largest size; None if there is no bound."""

    @property
    def fixed(self) -> int | None:
        return self.low if self.low == self.high else None


class Program(torch.nn.Module):
    """A graph of `aten` operators with its tensors; called with one batch of patches."""

    def __init__(
        self,
        operations: Sequence[Operation],
        tensors: Mapping[str, torch.Tensor],
        *,
        takes: str,
        gives: str,
        shape: tuple[Size, ...],
    ) -> None:
        super().__init__()
        self.operations, self.shape = tuple(operations), shape
        self._takes, self._gives = takes, gives
        self._places = {name: f"held_{name}" for name in tensors}
        for name, tensor in tensors.items():
            self.register_buffer(self._places[name], tensor)
        self.eval()

    def forward(self, patches: torch.Tensor) -> Any:
        """Scores of `patches (n, channel, y, x)`."""
        values: dict[str, Any] = {name: getattr(self, place) for name, place in self._places.items()}
        values[self._takes] = patches
        for operation in self.operations:
            arguments = [self.value(argument, values) for argument in operation.arguments]
            keywords = {key: self.value(argument, values) for key, argument in operation.keywords.items()}
            _bind(operation.results, operation.call(*arguments, **keywords), values)
            for name in operation.unused:
                values.pop(name, None)
        return values[self._gives]

    def value(self, argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """Value of an argument; a device is always the device of the patches."""
        ((kind, held),) = argument.items()
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return values[held["name"]]
            case "as_tensors":
                return [values[part["name"]] for part in held]
            case "as_optional_tensor":
                return self.value(held, values)
            case "as_optional_tensors" | "as_sym_ints" | "as_sym_bools" | "as_sym_floats":
                return [self.value(part, values) for part in held]
            case "as_sym_int" | "as_sym_bool" | "as_sym_float":
                return self.value(held, values)
            case "as_name":
                return values[held]
            case "as_scalar_type":
                return DTYPES[held]
            case "as_memory_format":
                return _FORMATS[held]
            case "as_layout":
                return torch.strided
            case "as_device":
                return values[self._takes].device
            case _:
                return held

    @property
    def held(self) -> frozenset[str]:
        """Names in the graph of the values that do not depend on the input."""
        return frozenset(self._places)

    @property
    def needs_rows(self) -> bool:
        """Whether the graph relies on the memory layout of its arrays, so that channels must not come last."""
        return any(each.target in ("aten::view", "aten::as_strided", "aten::_unsafe_view") for each in self.operations)


def freed(operations: Sequence[Operation], kept: Set[str]) -> list[Operation]:
    """Operations, each with the values that no later operation needs; `kept` are never among them.

    The input is kept: its device is that of the arrays that operations make.
    """
    needed, result = set(kept), list[Operation]()
    for operation in reversed(operations):
        named = set(names_in((operation.arguments, *operation.keywords.values(), operation.results)))
        result.append(replace(operation, unused=tuple(named - needed)))
        needed |= named
    return result[::-1]


def names_in(held: Any) -> list[str]:
    """Names of all values in arguments, at any depth."""
    if isinstance(held, Mapping):
        own = [held[key] for key in ("name", "as_name") if isinstance(held.get(key), str)]
        return own + [name for part in held.values() for name in names_in(part)]
    return [name for part in held for name in names_in(part)] if isinstance(held, list | tuple) else []


def _bind(results: Sequence[Any], given: Any, values: dict[str, Any]) -> None:
    """Store the results of an operation in `values`, by their names."""
    if not results:
        return  # a check of the graph, which gives nothing
    many = isinstance(given, list | tuple)
    if len(results) == 1 and "as_tensors" in results[0]:
        results = [{"as_tensor": tensor} for tensor in results[0]["as_tensors"]]
    for result, value in zip(results, given if many else [given], strict=True):
        for name in names_in(result):
            values[name] = value
