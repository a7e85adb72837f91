"""A window: a half-open rectangle of pixels.

Positions and sizes are whole pixels in `(y, x)` order. A window may lie partly or wholly outside its image:
patches overhang, and the source reflects (see `formats.read_reflected`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Pixels `y ≤ row < y + height`, `x ≤ column < x + width`."""

    y: int
    x: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a window has no negative size: {self.height} × {self.width}")

    @classmethod
    def from_bounds(cls, y: int, x: int, y_stop: int, x_stop: int) -> Window:
        """The window between two corners; empty where they cross."""
        return cls(y, x, max(0, y_stop - y), max(0, x_stop - x))

    @property
    def y_stop(self) -> int:
        return self.y + self.height

    @property
    def x_stop(self) -> int:
        return self.x + self.width

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def empty(self) -> bool:
        return self.height == 0 or self.width == 0

    def shift(self, dy: int, dx: int) -> Window:
        return Window(self.y + dy, self.x + dx, self.height, self.width)

    def inset(self, before: int, after: int) -> Window:
        """Take `before` pixels off the top and left, `after` off the bottom and right (negative: grow)."""
        return Window.from_bounds(self.y + before, self.x + before, self.y_stop - after, self.x_stop - after)

    def intersect(self, other: Window) -> Window:
        """The shared pixels; an empty window where there are none."""
        return Window.from_bounds(
            max(self.y, other.y), max(self.x, other.x), min(self.y_stop, other.y_stop), min(self.x_stop, other.x_stop)
        )

    def touches(self, other: Window) -> bool:
        return not self.intersect(other).empty

    def contains(self, other: Window) -> bool:
        return self.intersect(other) == other

    def slices(self, origin: Window | None = None) -> tuple[slice, slice]:
        """Index of these pixels in an array that holds `origin` (default: the whole image)."""
        y, x = (origin.y, origin.x) if origin else (0, 0)
        return slice(self.y - y, self.y_stop - y), slice(self.x - x, self.x_stop - x)
