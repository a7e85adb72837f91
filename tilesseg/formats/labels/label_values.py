"""Values of labels: from the numbers in a raster, or the attributes of features, to classes.

Nothing is guessed. Without a mapping the values are the classes, 0 … n − 1, and every other value is refused: the
commonest mask is 0 and 255, and 255 would otherwise be left out, so that any mask would have a perfect score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.raster.labels import IGNORED

IGNORE, OTHER = "ignore", "other"
SHOWN = 8
"""Largest number of values in a message."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Options of reading labels."""

    values: Mapping[int | str, str] | None = None
    """Class of each value: its name, or `ignore`; the key `other` is every value that is not listed. None: the values
    are 0 … n − 1."""
    attribute: str | None = None
    """Attribute of features that says the class; None: all features are of the second of two classes."""
    layer: str | None = None
    """Layer of a vector file of several."""
    all_touched: bool = False
    """Whether a feature covers every pixel that it touches; else those whose centres it holds."""
    area: str | None = None
    """File of polygons, outside which nothing is labelled."""


@dataclass(frozen=True)
class LabelValues:
    """Class of each value of a file."""

    path: str
    """Path of the file, for the refusal."""
    classes: tuple[str, ...]
    """Names of the classes 0 … n − 1."""
    table: Mapping[int | str, int]
    """Class of each listed value."""
    other: int | None = None
    """Class of all other values; None refuses them."""
    stated: bool = True
    """Whether a mapping was given."""

    @classmethod
    def of(cls, path: str, classes: Sequence[str], values: Mapping[int | str, str] | None) -> LabelValues:
        """Values of a file as its user maps them.

        Raises:
            SourceError: a name is no class.
        """
        names = tuple(classes)
        if values is None:
            return cls(path, names, {number: number for number in range(len(names))}, stated=False)
        table = {value: _class_of(name, names, path) for value, name in values.items()}
        return cls(path, names, table, table.pop(OTHER, None))

    def classified(self, values: NDArray[Any], valid: NDArray[np.bool_], corner: tuple[int, int]) -> NDArray[np.uint8]:
        """Classes of values `(y, x)`; `IGNORED` where they are not valid, unless their value is listed.

        A background that is tagged as nodata is a class where the mapping lists it.

        Args:
            values: integers, or floats that are whole.
            valid: pixels that are no nodata.
            corner: row and column of the first value, for the refusal.

        Raises:
            SourceError: a valid pixel has a value of no class.
        """
        labels, listed = self._listed(values)
        unknown = ~listed & valid
        if self.other is not None:
            labels[unknown] = self.other
        elif unknown.any():
            self._refuse(values, unknown, corner)
        labels[~valid & ~(listed if self.stated else np.False_)] = IGNORED
        return labels

    def of_attribute(self, value: Any) -> int | None:
        """Class of an attribute's value, by `values` or by its name; None where it has none.

        Values are compared as text: files hold the number 1 as `1`, `1.0` or `"1"`.
        """
        if not self.stated:
            return self.classes.index(value) if value in self.classes else None
        whole = isinstance(value, bool | float) and float(value).is_integer()
        texts = (str(value), str(int(value))) if whole else (str(value),)
        return next((self._texts[text] for text in texts if text in self._texts), self.other)

    @cached_property
    def _texts(self) -> dict[str, int]:
        """Class of each listed value by its text."""
        return {str(key): label for key, label in self.table.items()}

    def _listed(self, values: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Classes of the listed values, `IGNORED` elsewhere, and where values are listed."""
        if values.dtype == np.uint8:
            return self._bytes[0][values], self._bytes[1][values]
        labels, listed = np.full(values.shape, IGNORED, np.uint8), np.zeros(values.shape, np.bool_)
        for value, label in self.table.items():
            here = values == value
            labels[here], listed = label, listed | here
        return labels, listed

    @cached_property
    def _bytes(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Class of each of the 256 values of a byte, and which of them are listed."""
        labels, listed = np.full(256, IGNORED, np.uint8), np.zeros(256, np.bool_)
        for value, label in self.table.items():
            if isinstance(value, int) and 0 <= value < 256:
                labels[value], listed[value] = label, True
        return labels, listed

    def _refuse(self, values: NDArray[Any], unknown: NDArray[np.bool_], corner: tuple[int, int]) -> None:
        row, column = (int(axis[0]) for axis in np.nonzero(unknown))
        found = np.unique(values[unknown])
        shown = ", ".join(map(_number, found[:SHOWN])) + (" …" if len(found) > SHOWN else "")
        classes = ", ".join(f"{number} {name}" for number, name in enumerate(self.classes))
        known = f"not among the values {', '.join(map(str, self.table))}" if self.stated else f"none of {classes}"
        raise SourceError(
            f"{self.path}: the value {_number(values[row, column])} at row {row + corner[0]}, column "
            f"{column + corner[1]} is {known} (without a class: {shown}); {self._remedy(found)}"
        )

    def _remedy(self, found: NDArray[Any]) -> str:
        first, second, value = self.classes[0], self.classes[-1], _number(found[0])
        if self.stated:
            return f"add to values, for instance {value}: ignore, or other: {second}"
        if len(found) == 1 and len(self.classes) == 2:
            return f"say what it means: values 0: {first}, {value}: {second}, or {value}: ignore"
        return f"say what they mean: values 0: {first}, other: {second}, or a class or ignore for each value"


def _number(value: Any) -> str:
    """A value in a message as a user writes it in a mapping: 1234567, and not 1.23457e+06."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _class_of(name: str, classes: Sequence[str], path: str) -> int:
    """Number of a class, or `IGNORED`.

    Raises:
        SourceError: there is no class of this name.
    """
    if name == IGNORE:
        return IGNORED
    if name in classes:
        return classes.index(name)
    raise SourceError(
        f"{path}: values name the class {name}, and the classes are {', '.join(classes)}; "
        f"{did_you_mean(name, [*classes, IGNORE])}write one of these, or ignore"
    )


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """Question after the known name that is closest, whatever its capitals; empty without a close one."""
    folded = {one.casefold(): one for one in known}
    close = get_close_matches(str(name).casefold(), folded, 1)
    return f"did you mean {folded[close[0]]}? " if close else ""
