"""Augmentation: random changes of a training patch, each a function of the patch's seed alone.

Patches are turned, read at another size and resampled, and changed in colour. Invalid pixels keep the value that a run
fills them with, and labels are never interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.training.train_spec import Augment

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]

TURNS = 8
"""Number of ways to turn and mirror a square."""
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density of haematoxylin, eosin and DAB in red, green and blue: Ruifrok and Johnston, 2001, Quantification of
histochemical staining by color deconvolution."""


@dataclass(frozen=True, slots=True)
class PatchPixels:
    """Pixels of a patch: values, which of them are valid, and what is true there."""

    values: Values
    """Normalised values `(channel, y, x)`."""
    valid: Mask
    """Mask of the valid pixels `(y, x)`."""
    labels: Labels
    """Labels `(y, x)`, IGNORED where nothing is known."""

    def turned(self, turn: int) -> PatchPixels:
        """Pixels after a turn from 0 (as they are) to 7, see `turned`."""
        return PatchPixels(turned(self.values, turn), turned(self.valid, turn), turned(self.labels, turn))

    def resampled(self, side: int) -> PatchPixels:
        """Square of another side: values bilinear between valid pixels, labels and validity of the nearest pixel."""
        height, width = self.valid.shape
        if (height, width) == (side, side):
            return self
        rows, columns = _nearest(height, side), _nearest(width, side)
        valid = self.valid[np.ix_(rows, columns)]
        return PatchPixels(_between_valid(self.values, self.valid, valid, side), valid, self.labels[rows][:, columns])


def turned(plane: NDArray[Any], turn: int) -> NDArray[Any]:
    """Array `(…, y, x)` after `turn % 4` quarter turns, mirrored before them from 4 on."""
    mirrored = plane[..., ::-1] if turn >= TURNS // 2 else plane
    return np.ascontiguousarray(np.rot90(mirrored, turn % 4, axes=(-2, -1)))


def change_colours(pixels: PatchPixels, options: Augment, *, seed: int) -> PatchPixels:
    """Patch of another brightness, contrast and noise; invalid pixels are left as they are.

    Args:
        pixels: the patch.
        options: largest changes.
        seed: number that decides all changes.
    """
    rng = np.random.default_rng([seed, 0])
    shift, exponent = options.brightness * _signed(rng), 1 + options.gamma * _signed(rng)
    noise = rng.standard_normal(pixels.values.shape, np.float32) if options.noise else None
    values = pixels.values.copy()
    for number, channel in enumerate(values):
        known = channel[pixels.valid]
        if known.size:
            known = _changed(known, shift, exponent)
            if noise is not None:
                known += np.float32(options.noise) * noise[number][pixels.valid]
            channel[pixels.valid] = known
    return PatchPixels(values, pixels.valid, pixels.labels)


def change_stains(values: NDArray[Any], share: float, *, white: float, seed: int) -> Values:
    """Values of a stained slide `(3, y, x)`, before normalisation, with stronger or weaker stains.

    Strengths are those of haematoxylin, eosin and DAB in optical density, each multiplied by its own random factor
    from 1 − `share` to 1 + `share` (Tellez et al., 2018, without their shift).

    Args:
        values: red, green and blue.
        share: largest change.
        white: value of the bare glass.
        seed: number that decides the changes.
    """
    rng = np.random.default_rng([seed, 1])
    factors = 1 + share * rng.uniform(-1, 1, len(_STAINS))
    stains = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    change = (np.linalg.inv(stains) * factors @ stains).astype(np.float32)
    density = -np.log10(np.clip(values, white / 1024, white, dtype=np.float32) / np.float32(white))
    new = sum(change[number][:, None, None] * density[number] for number in range(len(_STAINS)))
    lit: Values = np.float32(white) * np.power(np.float32(10), -np.maximum(new, 0))
    return lit


def _changed(known: Values, shift: float, exponent: float) -> Values:
    """Values of a channel after gamma between their extremes, and shifted by a share of their deviation."""
    low, size = known.min(), np.ptp(known)
    added = np.float32(shift * known.std(dtype=np.float64))
    if exponent != 1 and size > 0:
        known = low + size * ((known - low) / size) ** np.float32(exponent)
    changed: Values = known + added
    return changed


def _signed(rng: np.random.Generator) -> float:
    return float(rng.uniform(-1, 1))


def _nearest(length: int, side: int) -> NDArray[np.intp]:
    """Index of the pixel under the centre of each of `side` pixels over `length`."""
    return ((2 * np.arange(side) + 1) * length // (2 * side)).astype(np.intp)


def _between_valid(values: Values, valid: Mask, wanted: Mask, side: int) -> Values:
    """Values by bilinear interpolation of the valid pixels alone; elsewhere the nearest pixel's own."""
    if valid.all():
        return _bilinear(values, side)
    weights = _bilinear(valid[None].astype(np.float32), side)
    sums = _bilinear(np.where(valid, values, np.float32(0)), side)
    own = values[:, _nearest(values.shape[1], side)][:, :, _nearest(values.shape[2], side)]
    np.divide(sums, weights, out=own, where=wanted)
    return own


def _bilinear(values: Values, side: int) -> Values:
    """Planes `(channel, y, x)` resampled to a square; pixels beyond the border repeat the last one."""
    for axis in (1, 2):
        length = values.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
        low = np.floor(at).astype(np.intp)
        share = (at - low).astype(np.float32).reshape([-1 if axis == 1 else 1, -1 if axis == 2 else 1])
        first, second = (np.take(values, index, axis) for index in (low, np.minimum(low + 1, length - 1)))
        values = first + share * (second - first)
    return values
