"""Nodes of an ONNX file, read from its protobuf without the package `onnx`: onnxruntime cannot list them.

Only the fields that `patch_dependence` needs are decoded; others are skipped by their length, so a file of gigabytes
costs a page or two. Wire format: https://protobuf.dev/programming-guides/encoding/; field numbers: onnx.proto.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tilesseg.errors import ModelError, cannot

Span = tuple[int, int]
_GRAPH, _FUNCTION = 7, 25  # ModelProto
_NODE, _INITIALIZER = 1, 5  # GraphProto
_FUNCTION_NODE = 7  # FunctionProto
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5  # NodeProto
_ATTRIBUTE_NAME, _INT, _TENSOR, _SUBGRAPH, _INTS = 1, 3, 5, 6, 8  # AttributeProto
_INT64_DATA, _TENSOR_NAME, _RAW_DATA = 7, 8, 9  # TensorProto


@dataclass(frozen=True, slots=True)
class Node:
    """An operation."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, list[int]] = field(default_factory=dict)
    """Attributes that are an integer, integers, or a tensor of int64."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """All operations of a file, also inside branches, loops and functions."""

    nodes: tuple[Node, ...]
    constants: dict[str, list[int]]
    """Values that do not depend on the input, by name: numbers of a short int64 tensor, else an empty list."""


def read_nodes(path: Path) -> Nodes:
    """Read an ONNX file.

    Raises:
        ModelError: the file cannot be read, or is not ONNX.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            nodes: list[Node] = []
            constants: dict[str, list[int]] = {}
            for number, span in messages(data, (0, len(data))):
                if number == _GRAPH:
                    _graph(data, span, nodes, constants)
                elif number == _FUNCTION:
                    parts = [part for number, part in messages(data, span) if number == _FUNCTION_NODE]
                    nodes += [_node(data, part, nodes, constants) for part in parts]
    except OSError as error:
        raise ModelError(cannot(f"read {path}", error, "give an ONNX file")) from None
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path} is not an ONNX file ({error}); export it again") from None
    if not nodes:
        raise ModelError(f"{path} is not an ONNX file: it has no nodes; export it again")
    return Nodes(tuple(nodes), constants)


def _graph(data: mmap.mmap, span: Span, nodes: list[Node], constants: dict[str, list[int]]) -> None:
    for number, part in messages(data, span):
        if number == _NODE:
            node = _node(data, part, nodes, constants)
            nodes.append(node)
            if node.op == "Constant":
                constants[node.outputs[0]] = node.attributes.get("value", node.attributes.get("value_ints", []))
        elif number == _INITIALIZER:
            name, values = _tensor(data, part)
            constants[name] = values


def _node(data: mmap.mmap, span: Span, nodes: list[Node], constants: dict[str, list[int]]) -> Node:
    op, inputs, outputs, attributes = "", [], [], {}
    for number, part in messages(data, span):
        if number == _OP_TYPE:
            op = text(data, part)
        elif number == _INPUT:
            inputs.append(text(data, part))
        elif number == _OUTPUT:
            outputs.append(text(data, part))
        elif number == _ATTRIBUTE:
            name, values = _attribute(data, part, nodes, constants)
            attributes[name] = values
    return Node(op, tuple(inputs), tuple(outputs), attributes)


def _attribute(
    data: mmap.mmap, span: Span, nodes: list[Node], constants: dict[str, list[int]]
) -> tuple[str, list[int]]:
    name, values = "", []
    for number, part in fields(data, span):
        if isinstance(part, int):
            values += [_signed(part)] if number in (_INT, _INTS) else []
        elif number == _ATTRIBUTE_NAME:
            name = text(data, part)
        elif number == _INTS:
            values += _packed(data, part)
        elif number == _TENSOR:
            values += _tensor(data, part)[1]
        elif number == _SUBGRAPH:
            _graph(data, part, nodes, constants)
    return name, values


def _tensor(data: mmap.mmap, span: Span) -> tuple[str, list[int]]:
    """Name of a tensor and, if it is short, its values as int64."""
    name, values = "", []
    for number, part in messages(data, span):
        if number == _TENSOR_NAME:
            name = text(data, part)
        elif number == _INT64_DATA:
            values += _packed(data, part)
        elif number == _RAW_DATA and part[1] - part[0] <= 64 and (part[1] - part[0]) % 8 == 0:
            values += struct.unpack(f"<{(part[1] - part[0]) // 8}q", data[part[0] : part[1]])
    return name, values


def messages(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Fields with a length: messages, strings and packed numbers."""
    for number, part in fields(data, span):
        if not isinstance(part, int):
            yield number, part


def fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span | int]]:
    """Fields of a message: number, and either the span of its bytes or the value of a varint."""
    at, stop = span
    while at < stop:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > stop:
                raise ValueError(f"a field of {size} bytes where {stop - at} are left")
            yield number, (at, at + size)
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} is unknown")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 10 bytes")


def _packed(data: mmap.mmap, span: Span) -> list[int]:
    values, at = [], span[0]
    while at < span[1]:
        value, at = _varint(data, at)
        values.append(_signed(value))
    return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def text(data: mmap.mmap, span: Span) -> str:
    """Text of a string field."""
    return data[span[0] : span[1]].decode("utf-8")
