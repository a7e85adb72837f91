"""Programs of `torch.export` (`.pt2`), read without torch's own reader, which would run whatever the file says.

`torch.export.load` (torch 2.13) unpickles with `weights_only=False` if the archive requests it, loads compiled
libraries from it, and evaluates its size expressions and guards as Python. Nothing of this is needed to compute: the
archive holds a graph as JSON and the tensors as raw bytes. So both are read here, and only operators of torch's own
library `aten` and integer arithmetic are called. A program that needs more (a pickled tensor, a custom operator or
object, control flow) is refused. Schema: torch/_export/serde/schema.py, major version 8.
"""

from __future__ import annotations

import json
import math
import operator
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tilesseg.errors import ModelError, cannot
from tilesseg.models.exported.export_program import DTYPES, Operation, Program, Size, freed, names_in
from tilesseg.models.shape_advice import type_problem

SCHEMA = 8
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "eq", "ne", "lt", "le", "gt", "ge", "and_",
            "or_", "getitem",
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("floor", "ceil", "trunc")},
    "torch.sym_int": int, "torch.sym_float": float, "torch.sym_max": max, "torch.sym_min": min,
    "torch.sym_not": operator.not_,
}  # fmt: skip
_ATEN = "torch.ops.aten."
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_none")


def read_program(path: Path) -> Program:
    """Read a `.pt2` file that `torch.export.save` of torch 2.9 or later has written.

    Raises:
        ModelError: the file is of another kind, or needs more than operators of `aten` and raw tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except OSError as error:
        raise ModelError(cannot(f"read {path}", error, "give a .pt2 file")) from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{path} is not a program of torch.export.save ({type(error).__name__}: {str(error)[:100]}); save it again "
            "with torch 2.9 or later"
        ) from None


def _read(archive: zipfile.ZipFile, path: Path) -> Program:
    entries = {name.partition("/")[2]: name for name in archive.namelist()}
    if "models/model.json" not in entries:
        raise ModelError(f"{path} holds no program of torch.export, or an older one; save it with torch 2.9 or later")
    data = json.loads(archive.read(entries["models/model.json"]))
    major = data["schema_version"]["major"]
    if major != SCHEMA:
        raise ModelError(f"{path} has schema {major} of torch.export, tilesseg reads {SCHEMA}; save it with torch 2.13")
    graph, signature = data["graph_module"]["graph"], data["graph_module"]["signature"]
    takes, held = _inputs(signature["input_specs"], path)
    gives = _output(signature["output_specs"], path)
    kept = _payloads(archive, entries, path)
    operations = [_operation(node, path) for node in graph["nodes"]]
    used = {name for call in operations for name in names_in((call.arguments, *call.keywords.values()))} | {gives}
    tensors = {name: _tensor(archive, entries, *kept[fqn]) for name, fqn in held.items() if name in used}
    _refuse_training(operations, held, path)
    shape = _shape(graph["tensor_values"][takes], data.get("range_constraints") or {}, path)
    return Program(freed(operations, {gives, takes, *tensors}), tensors, takes=takes, gives=gives, shape=shape)


def _inputs(specs: Sequence[Mapping[str, Any]], path: Path) -> tuple[str, dict[str, str]]:
    """Name of the input, and by name of each tensor in the file its name in the configuration."""
    takes, held = [], {}
    for spec in specs:
        ((kind, body),) = spec.items()
        if kind == "user_input":
            takes.append(body["arg"].get("as_tensor", {}).get("name"))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            held[body["arg"]["name"]] = body[f"{kind}_name"]
        else:
            raise ModelError(
                f"{path} takes a {kind}, and tilesseg gives one tensor of patches; export it with this input"
            )
    if len(takes) != 1 or takes[0] is None:
        raise ModelError(f"{path} takes {len(takes)} inputs, and tilesseg gives one tensor; export it with one")
    return takes[0], held


def _output(specs: Sequence[Mapping[str, Any]], path: Path) -> str:
    kinds = [next(iter(spec)) for spec in specs]
    changes = [kind for kind in kinds if kind.endswith("mutation")]
    if changes:
        raise ModelError(
            f"{path} changes its own tensors ({changes[0]}); call eval() on the network and export it again"
        )
    if kinds != ["user_output"] or "as_tensor" not in specs[0]["user_output"]["arg"]:
        raise ModelError(
            f"{path} gives {len(specs)} outputs, not one tensor (n, class, y, x); export it with this output"
        )
    return str(specs[0]["user_output"]["arg"]["as_tensor"]["name"])


def _payloads(archive: zipfile.ZipFile, entries: Mapping[str, str], path: Path) -> dict[str, tuple[str, Any]]:
    """Place of each tensor in the archive, and its shape; a pickled tensor is refused."""
    payloads: dict[str, tuple[str, Any]] = {}
    for part in ("weights", "constants"):
        file = entries.get(f"data/{part}/model_{part}_config.json")
        if file is None:
            raise ModelError(f"{path} keeps its {part} pickled, and tilesseg never unpickles; save it with torch 2.9")
        for name, meta in json.loads(archive.read(file))["config"].items():
            if meta["use_pickle"] or meta["tensor_meta"] is None:
                raise ModelError(
                    f"{path} keeps {name} pickled, and tilesseg never unpickles; export a network of plain tensors"
                )
            payloads[name] = f"data/{part}/{meta['path_name']}", meta["tensor_meta"]
    return payloads


def _tensor(archive: zipfile.ZipFile, entries: Mapping[str, str], file: str, meta: Any) -> torch.Tensor:
    dtype = DTYPES[meta["dtype"]]
    sizes, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
    raw = bytearray(archive.read(entries[file]))
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
    return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]).clone()


def _operation(node: Mapping[str, Any], path: Path) -> Operation:
    inputs = node["inputs"]
    for argument in inputs:
        _refuse_unknown(argument["arg"], node["target"], path)
    positional = tuple(argument["arg"] for argument in inputs if argument.get("kind") != 2)
    keywords = {argument["name"]: argument["arg"] for argument in inputs if argument.get("kind") == 2}
    target, call = _called(node["target"], path)
    return Operation(target, call, positional, keywords, tuple(node["outputs"]))


def _called(target: str, path: Path) -> tuple[str, Callable[..., Any]]:
    if target in _ARITHMETIC:
        return target, _ARITHMETIC[target]
    name, _, overload = target.removeprefix(_ATEN).partition(".")
    packet = getattr(torch.ops.aten, name, None) if target.startswith(_ATEN) and name.isidentifier() else None
    overloaded = getattr(packet, overload, None) if overload.isidentifier() else None
    if not isinstance(overloaded, torch._ops.OpOverload) or any(
        argument.name == "filename" for argument in overloaded._schema.arguments
    ):
        raise ModelError(
            f"{path} calls {target}, and tilesseg runs operators of torch's aten only; export it without this call"
        )
    return f"aten::{name}", overloaded


def _refuse_unknown(argument: Mapping[str, Any], target: str, path: Path) -> None:
    ((kind, held),) = argument.items()
    known = (
        "as_tensor", "as_tensors", "as_optional_tensor", "as_optional_tensors", "as_sym_int", "as_sym_ints",
        "as_sym_bool", "as_sym_bools", "as_sym_float", "as_sym_floats", "as_scalar_type", "as_memory_format",
        "as_layout", "as_device", *_PLAIN,
    )  # fmt: skip
    if kind not in known or (kind == "as_scalar_type" and held not in DTYPES):
        raise ModelError(
            f"{path} gives {target} a value of the kind {kind}, which tilesseg does not know; export it again"
        )


def _refuse_training(operations: Sequence[Operation], held: Mapping[str, str], path: Path) -> None:
    """Refuse operations that make a score depend on earlier patches, or on chance.

    Raises:
        ModelError: the network was exported in training mode.
    """
    for operation in operations:
        name, arguments = operation.target.removeprefix("aten::"), operation.arguments
        first = arguments[0].get("as_tensor", {}).get("name") if arguments else None
        changes = name.endswith("_") and first in held
        learns = name == "batch_norm" and arguments[5] == {"as_bool": True} and "as_tensor" in arguments[3]
        drops = name in ("dropout", "feature_dropout", "alpha_dropout") and {"as_bool": True} in arguments
        if changes or learns or drops or name in ("native_dropout", "rand_like", "randn_like", "bernoulli"):
            raise ModelError(f"{path} was exported in training mode (it calls {name}); call eval() and export it again")


def _shape(meta: Mapping[str, Any], ranges: Mapping[str, Any], path: Path) -> tuple[Size, ...]:
    problem = type_problem(path, str(DTYPES.get(meta["dtype"], "another type")))
    if problem:
        raise ModelError(problem)
    return tuple(_size(size, ranges) for size in meta["sizes"])


def _size(size: Mapping[str, Any], ranges: Mapping[str, Any]) -> Size:
    if "as_int" in size:
        return Size(size["as_int"], size["as_int"])
    name = str(size["as_expr"]["expr_str"]).removeprefix("Symbol('").partition("'")[0]
    bound = ranges.get(name, {})  # of a plain symbol; sizes like 16·k are left to the operators
    return Size(bound.get("min_val") or 0, bound.get("max_val"))
