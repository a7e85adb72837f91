"""Shapes and types that a network takes and gives, against its spec: each kind of difference with its own remedy.

A difference of kind (channels last, labels in place of scores, scores at a quarter of the size) is not a difference of
number, and no number in the spec mends it; the advice says what to change in the export.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilesseg.models.spec import ModelSpec

Shape = tuple[int, ...]
LAST = (
    "transpose inside the network before you export it, or convert with tf2onnx --inputs-as-nchw and --outputs-as-nchw"
)
LABELS = "export it without its last step (argmax, threshold, or the counting of objects), so that it gives scores"


def input_problem(name: object, shape: Sequence[int | None], spec: ModelSpec) -> str | None:
    """Sentence about an input `shape` of the file `name` that does not fit its spec; None if patches fit it.

    An axis that is free is None.
    """
    problem = _input(shape, spec)
    return problem and f"{name} {problem}"


def _input(shape: Sequence[int | None], spec: ModelSpec) -> str | None:
    bands = len(spec.bands)
    if len(shape) == 5:
        return "takes volumes (5 axes), tilesseg gives (n, channel, y, x); take a network for 2-D images"
    if len(shape) != 4:
        return f"takes an array of {len(shape)} axes, not (n, channel, y, x); export it with these axes"
    if shape[1] != bands and shape[3] == bands:
        return f"takes channels last (n, y, x, channel), as Keras does, tilesseg gives (n, channel, y, x); {LAST}"
    if shape[1] is not None and shape[1] != bands:
        return f"takes {shape[1]} channels, its spec names {bands} bands; correct bands"
    height, width = shape[2:]
    if height is not None and width is not None and height != width:
        return f"takes patches of {height} × {width}, and those of tilesseg are square; export it with free sides"
    for side in (height, width):
        if side is not None and side != spec.patch.fixed:
            return f"takes patches of {side} only, its spec {spec.patch.rule}; set patch.fixed: {side}"
    return None


def type_problem(name: object, dtype: str) -> str | None:
    """Sentence about an input of the file `name` that is not float32; None if it is."""
    kind = dtype.removeprefix("tensor(").removesuffix(")").removeprefix("torch.").lower()
    kind = {
        "float": "float32",
        "f32": "float32",
        "f16": "float16",
        "half": "float16",
        "u8": "uint8",
        "f64": "float64",
        "double": "float64",
        "byte": "uint8",
    }.get(kind, kind)
    if kind == "float32":
        return None
    remedy = "export it in float32, with model.float()"
    if "int" in kind:
        remedy = f"export it with a float32 input, whose first step is x.round().to(torch.{kind}) if it needs integers"
    return f"{name} takes {kind}, tilesseg gives float32; {remedy}"


def score_problem(
    spec: ModelSpec, given: Shape, got: Shape, *, margin: int = 0, whole: bool | None = None
) -> str | None:
    """Sentence about the shape of scores that a model does not promise; None if it is the promised one.

    Args:
        spec: spec of the network.
        given: shape of the patches `(n, channel, y, x)`.
        got: shape that the network gives for them.
        margin: number of pixels that are already left out on each side.
        whole: whether all values are whole numbers; None if that is not known.
    """
    problem = _scores(spec, given, got, margin, whole)
    return problem and f"model {spec.name} {problem}"


def _scores(spec: ModelSpec, given: Shape, got: Shape, margin: int, whole: bool | None) -> str | None:
    lost = spec.patch.shrink + 2 * margin
    n, k, sides = given[0], spec.score_channels, tuple(side - lost for side in given[2:])
    promised = (n, k, *sides)
    if got == promised:
        return None
    about = f"gives {got} for patches {given}, its spec promises {promised}"
    if got in (given[2:], (n, *sides), (n, *given[2:])) or (got == (n, 1, *sides) and k > 1 and whole):
        return f"gives labels, not scores: {got} for patches {given}; {LABELS}"
    if len(got) == 2:
        return f"gives {got}, a score for a whole patch, not for each pixel; take a network for segmentation"
    if len(got) != 4 or got[0] != n:
        return f"{about}; export it with one output (n, class, y, x)"
    if got[3] == k and got[1] != k and _shorter(got[1:3], sides):
        return f"gives channels last: {about}; {LAST}"
    if got[2:] == sides:
        return f"{about}; {_channels(spec, got[1], whole)}"
    return f"{about}; {_sides(given, got, margin)}"


def _shorter(got: Shape, sides: Shape) -> bool:
    return all(0 < a <= b for a, b in zip(got, sides, strict=True))


def _channels(spec: ModelSpec, channels: int, whole: bool | None) -> str:
    """Remedy where the network gives another number of channels than its spec promises."""
    classes, kind = len(spec.classes), spec.decision.kind
    if channels == 1:
        if whole is None:
            return (
                "set decision: {kind: threshold, threshold: 0.5} if it is one score; if labels, export it before argmax"
            )
        return "set decision: {kind: threshold, threshold: 0.5} and two classes, for it is one score"
    if kind == "threshold" and channels == classes:
        return "leave out decision, for there is a score for each class"
    if kind == "argmax" and channels == classes - 1:
        return "set decision: {kind: threshold, background: true} if the first class has no score, else correct classes"
    more = channels + (kind == "threshold")
    if more > 254:
        return f"take a network of at most 254 classes, for it gives {channels} scores"
    also = ", and set decision.background: true" if kind == "threshold" and not spec.decision.background else ""
    return f"name {more} classes{also}"


def _sides(given: Shape, got: Shape, margin: int) -> str:
    """Remedy where the scores have other sides than the spec promises."""
    sides = [side - 2 * margin for side in given[2:]]
    (height, factor), (_, other) = ((a, a / b if b else 0.0) for a, b in zip(sides, got[2:], strict=True))
    if factor == other and factor >= 2 and factor.is_integer():
        return (
            f"these are scores at 1/{factor:.0f} of the size: add torch.nn.functional.interpolate(scores, "
            f"scale_factor={factor:.0f}, mode='bilinear') at its end before you export it"
        )
    if 0 < factor == other < 1:
        return "these are scores of finer pixels than the patch has: scale them down before you export it"
    cuts = {a - b for a, b in zip(sides, got[2:], strict=True)}
    if len(cuts) == 1 and 0 < (cut := cuts.pop()) < height and cut % 2 == 0:
        return f"set patch.shrink: {cut} if the border is left out (unpadded convolutions)"
    return "export it with padding, so that scores have the size of the patch"
