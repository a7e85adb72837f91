"""Rules of known products: what their numbers mean, and whose word counts where their metadata disagree.

| product | numbers mean | the word that counts | source |
| --- | --- | --- | --- |
| Sentinel-2 below baseline 04.00 | number ÷ 10 000 | SAFE: its list of offsets; STAC: the baseline | 1 |
| … from 04.00 | (number − 1000) ÷ 10 000 | SAFE: its list, without one the baseline; STAC: the offset stated | 1, 2 |
| … with `…:boa_offset_applied: true` | number ÷ 10 000 | the flag: 1000 has been subtracted | 3 |
| … with `…:boa_offset_applied: false` | as the baseline says | the baseline | 3 |
| Landsat Collection 2, Level 2 | number × 2.75e-5 − 0.2 | STAC: this rule; folder: its `_MTL` | 4 |
| … temperature | number × 0.00341802 + 149 K | the same | 4 |

Where another word says otherwise, the scene is done with a doubt of the code `scale-contradiction`. Without a flag, an
offset of 0 from 04.00 on may be meant: a catalogue may have subtracted the 1000.

1. ESA, SentiWiki, "S2 Products", Level-1C and Level-2A; Sentinel-2 Products Specification Document, 14.9. Baseline
   99.99 is that of Sen2Cor on the user's own machine, which says nothing of an offset.
2. Planetary Computer's `sentinel-2-l2a`, "Baseline Change", and microsoft/PlanetaryComputer#134: its items have the
   baseline, and neither scale nor offset.
3. Element 84's Earth Search: Element84/earth-search#66 (`raster:bands` has offset −0.1 whether or not it is applied),
   cirrus-geo/cirrus-earth-search#21 and #26 (what the flag means; before v1 it is `sentinel:boa_offset_applied`).
4. USGS, "How do I use a scale factor with Landsat Level-2 science products?"; LSDS-1618 and LSDS-1619.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilesseg.doubts import doubt
from tilesseg.formats.reading.spectral_bands import MSI, OLI, TM, band_number

CODE = "scale-contradiction"
"""Code of the doubt that a product's metadata disagree on what its numbers mean."""
SHIFT = -1000.0
"""Offset of Sentinel-2's numbers from processing baseline 04.00 on."""
SHIFTED_SINCE, _OWN_MACHINE = 4.0, 99.0
QUANTIFICATION = 10_000.0

Pair = tuple[float, float]
"""Scale and offset: value = number × scale + offset."""

_MSI_NAMES = {*MSI.numbers.values(), "rededge"}
_LANDSAT_NAMES = {*OLI.numbers.values(), *TM.numbers.values(), "nir08"}
LANDSAT_SURFACE, _TEMPERATURE = (2.75e-05, -0.2), (0.00341802, 149.0)
_FLAG = ":boa_offset_applied"
_BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
_PRODUCT_IDS = ("s2:product_uri", "s2:product_id", "sentinel:product_id", "earthsearch:product_id")
_LANDSAT_ID = re.compile(r"^L[COET]0[4-9]_L2S[PR]_\d{6}_\d{8}_(?:\d{8}_)?02_")


@dataclass(frozen=True, slots=True)
class ProductRule:
    """Scaling of the bands of one product, as its metadata outside the bands' own say."""

    product: str
    """Name of the product, and the words that the rule follows from."""
    scalings: Mapping[str, Pair]
    """Scale and offset by common name or number of a band."""
    decides: bool
    """Whether the rule counts where a band states another offset."""

    def scaling(self, name: str | None) -> Pair | None:
        """Scale and offset of a band, or None where the rule does not speak of it."""
        if name is None:
            return None
        common = name.rpartition(".")[2]
        return self.scalings.get(common) or self.scalings.get(band_number(common) or "")


def shifted(baseline: float | None) -> bool:
    """Whether Sentinel-2's numbers of a processing baseline have 1000 added."""
    return baseline is not None and SHIFTED_SINCE <= baseline < _OWN_MACHINE


def read_baseline(text: object) -> float | None:
    """Processing baseline of Sentinel-2: of `05.09`, or of a product's name with `_N0509_`."""
    match = re.fullmatch(r"\s*(\d{1,2}\.\d\d?)\s*", str(text)) or re.search(r"_N(\d{4})_", str(text))
    if match is None:
        return None
    return float(match[1]) if "." in match[1] else int(match[1]) / 100


def stac_rule(item: Mapping[str, Any], *, jp2: bool = False) -> ProductRule | None:
    """The rule of a STAC item's product, or None where the product is not known.

    Args:
        item: the item.
        jp2: whether it is for files of JPEG 2000: they are ESA's own, and the flag of Earth Search is of its copies.
    """
    properties = dict(item.get("properties") or {})
    if jp2:
        properties = {key: value for key, value in properties.items() if not key.endswith(_FLAG)}
    return _sentinel2(item, properties) or _landsat(item, properties)


def _sentinel2(item: Mapping[str, Any], properties: Mapping[str, Any]) -> ProductRule | None:
    platform = f"{properties.get('constellation')} {properties.get('platform')}".lower().replace("_", "-")
    baseline = _baseline(item, properties)
    if "sentinel-2" not in platform and baseline is None:
        return None
    flag = next((key for key in properties if key.endswith(_FLAG)), None)
    applied = None if flag is None else str(properties[flag]).lower() == "true"
    if baseline is None and not applied:
        return None
    offset = SHIFT / QUANTIFICATION if shifted(baseline) and not applied else 0.0
    words = [f"processing baseline {baseline:05.2f}"] if baseline is not None else []
    words += [f"{flag}: {str(applied).lower()}"] if flag else []
    names = {*_MSI_NAMES, *MSI.numbers}
    decides = flag is not None or not shifted(baseline)
    return ProductRule(
        f"Sentinel-2 of {' and '.join(words)}", dict.fromkeys(names, (1 / QUANTIFICATION, offset)), decides
    )


def _baseline(item: Mapping[str, Any], properties: Mapping[str, Any]) -> float | None:
    """Processing baseline of an item of Sentinel-2; `processing:version` is also that of other products."""
    named = [properties.get(key) for key in _PRODUCT_IDS] + [item.get("id")]
    is_sentinel = any(re.match(r"S2[A-D]_", str(name)) for name in named)
    keys = _BASELINES if is_sentinel else _BASELINES[:2]
    found = [read_baseline(value) for value in [properties.get(key) for key in keys] + (named if is_sentinel else [])]
    return next((baseline for baseline in found if baseline is not None), None)


def _landsat(item: Mapping[str, Any], properties: Mapping[str, Any]) -> ProductRule | None:
    level2 = str(properties.get("landsat:correction", "")).upper() in ("L2SP", "L2SR")
    second = str(properties.get("landsat:collection_number", "")).lstrip("0") == "2"
    if not (level2 and second) and not _LANDSAT_ID.match(str(item.get("id", ""))):
        return None
    names = _LANDSAT_NAMES - {"pan", "cirrus"}
    scalings = {name: _TEMPERATURE if name.startswith("lwir") else LANDSAT_SURFACE for name in names}
    return ProductRule("Landsat Collection 2, Level 2", scalings, decides=True)


def settle(rule: ProductRule, name: str | None, stated: Pair | None) -> tuple[Pair | None, str]:
    """Scaling of a band of integers, and what there is to say of it.

    Args:
        rule: the rule of its product.
        name: common name of the band.
        stated: scale and offset that its own metadata state, or None.
    """
    pair = rule.scaling(name)
    if pair is None or (stated is not None and same_scaling(stated, pair)):
        return stated, ""
    if stated is None:
        return pair, f"values are those of {rule.product}: {shown_scaling(pair)}; the bands state no scale"
    taken = pair if rule.decides else stated
    return taken, contradiction(rule.product, "the bands' own metadata state", pair, stated, taken)


def contradiction(one: str, two: str, first: Pair, second: Pair, taken: Pair) -> str:
    """Doubt about two words on what numbers mean, with the difference that it makes to a value."""
    size = abs((first[0] - second[0]) * 1000 + first[1] - second[1])
    return doubt(
        CODE,
        f"{one} means {shown_scaling(first)}, and {two} {shown_scaling(second)}; values are taken as "
        f"{shown_scaling(taken)}, and those of the number 1000 would differ by {size:.3g}",
    )


def same_scaling(one: Pair, two: Pair) -> bool:
    """Whether two scalings are the same but for rounding."""
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-9) for a, b in zip(one, two, strict=True))


def shown_scaling(pair: Pair) -> str:
    """A scaling for people, as `number × 0.0001 − 0.1`."""
    scale, offset = pair
    return f"number × {scale:.6g}" + (f" {'+' if offset > 0 else '−'} {abs(offset):.4g}" if offset else "")
