from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.errors import ModelError
from tilesseg.models.spec import ModelSpec, PatchSizes, parse_spec, read_spec

SPEC: dict[str, Any] = {
    "name": "lakes",
    "licence": "CC-BY-4.0",
    "engine": "unet",
    "unet": {"depth": 4, "width": 16},
    "weights": {"file": "lakes.safetensors", "sha256": "0" * 64},
    "bands": ["red", "nir"],
    "input_range": [0, 10000],
    "normalise": {"kind": "mean_std", "mean": [1000, 2000], "std": [300, 400]},
    "patch": {"offset": 0, "multiple": 16, "stride_multiple": 16},
    "margin": 96,
    "classes": [{"name": "land", "colour": "tan"}, {"name": "water", "colour": "#0000FF"}],
}


def spec_with(changes: dict[str, Any]) -> dict[str, Any]:
    """`SPEC` with some keys set, by dotted path; None takes the key away."""
    data = deepcopy(SPEC)
    for path, value in changes.items():
        *parents, key = path.split(".")
        place = data
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            del place[key]
        else:
            place[key] = value
    return data


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "normalise missing": ({"normalise": None}, "normalise is required and missing"),
    "input_range missing": ({"input_range": None}, "input_range is required and missing"),
    "bands missing": ({"bands": None}, "bands is required and missing"),
    "no bands": ({"bands": []}, "bands: Tuple should have at least 1 item"),
    "unknown key": ({"colour": "red"}, "unknown key colour"),
    "unknown nested key": ({"patch.size": 256}, "unknown key patch.size"),
    "unknown format": ({"format": 2}, "format: Input should be 1"),
    "unknown colour": ({"classes": [{"name": "a", "colour": "reddish"}] * 2}, "unknown colour 'reddish'"),
    "half a colour": ({"classes": [{"name": "a", "colour": "#ff"}] * 2}, "unknown colour '#ff'"),
    "one class": ({"classes": SPEC["classes"][:1]}, "classes: Tuple should have at least 2 items"),
    "255 classes": (
        {"classes": [{"name": str(i), "colour": "red"} for i in range(255)]},
        "classes: Tuple should have at most 254 items",
    ),
    "a class named twice": ({"classes": [{"name": "a", "colour": "red"}] * 2}, "classes are named twice: a, a"),
    "a class without a name": ({"classes": [{"name": "", "colour": "red"}] * 2}, "classes.0.name"),
    "a band named twice": ({"bands": ["red", "red"]}, "bands are named twice: red, red"),
    "short sha256": ({"weights.sha256": "abc"}, "weights.sha256: String should match pattern"),
    "sha256 that YAML reads as a number": ({"weights.sha256": 0}, "weights.sha256: Input should be a valid string"),
    "weights without sha256": ({"weights.sha256": None}, "weights.sha256 is required and missing"),
    "range the wrong way": ({"input_range": [10000, 0]}, "input_range goes from low to high, not 10000.0 to 0.0"),
    "infinite range": ({"input_range": [0, float("inf")]}, "input_range.1: Input should be a finite number"),
    "mean missing": ({"normalise.mean": None}, "normalise: normalise kind mean_std needs mean"),
    "range with a mean": (
        {"normalise": {"kind": "range", "low": 0, "high": 1, "mean": [0]}},
        "normalise: normalise kind range takes no mean",
    ),
    "none with a number": ({"normalise": {"kind": "none", "low": 0}}, "normalise: normalise kind none takes no low"),
    "unknown kind": ({"normalise": {"kind": "zscore"}}, "normalise.kind: Input should be 'mean_std'"),
    "one mean for two bands": ({"normalise.mean": [1]}, "normalise.mean has 1 values for 2 bands"),
    "a std of zero": ({"normalise.std": [0, 1]}, "normalise.std must be above zero: (0.0, 1.0)"),
    "a negative std": ({"normalise.std": [1, -1]}, "normalise.std must be above zero: (1.0, -1.0)"),
    "a std that is no number": (
        {"normalise.std": [1, float("nan")]},
        "normalise.std.1: Input should be a finite number",
    ),
    "an empty range": ({"normalise": {"kind": "range", "low": 5, "high": 5}}, "normalise divides by zero"),
    "percentiles per band": (
        {"normalise": {"kind": "scene_percentiles", "low": [1, 2], "high": [98, 99]}},
        "scene_percentiles takes one low and one high",
    ),
    "percentiles the wrong way": (
        {"normalise": {"kind": "scene_percentiles", "low": 98, "high": 2}},
        "scene_percentiles needs 0 ≤ low < high ≤ 100, not 98.0 and 2.0",
    ),
    "clip the wrong way": ({"normalise.clip": [1, 0]}, "clip goes from low to high, not 1.0 to 0.0"),
    "a scaling by zero": ({"scaling": [0, 1]}, "scaling by zero"),
    "an illegal preferred size": ({"patch.preferred": 250}, "patch: patch size 250 is not legal: 0 + k·16"),
    "a patch that shrinks to nothing": ({"patch": {"fixed": 184, "shrink": 184}}, "patch size 184 is not legal"),
    "an odd shrink": ({"patch.shrink": 3}, "patch: shrink must be even, not 3"),
    "a multiple of zero": ({"patch.multiple": 0}, "patch.multiple: Input should be greater than or equal to 1"),
    "a negative margin": ({"margin": -1}, "margin: Input should be greater than or equal to 0"),
    "a resolution of zero": ({"resolution": 0}, "resolution: Input should be greater than 0"),
    "a threshold among argmax": ({"decision": {"threshold": 0.5}}, "decision: decision kind threshold needs"),
    "a threshold without its number": ({"decision": {"kind": "threshold"}}, "decision: decision kind threshold needs"),
    "a threshold among three": (
        {
            "decision": {"kind": "threshold", "threshold": 0.5},
            "classes": [{"name": n, "colour": "red"} for n in "abc"],
        },
        "a threshold decides between 2 classes, not 3",
    ),
    "a unet without its shape": ({"unet": None}, "engine unet needs the section `unet`"),
    "a shape without the unet": ({"engine": "onnx"}, "engine unet needs the section `unet`"),
    "a unet too deep": ({"unet.depth": 9}, "unet.depth: Input should be less than or equal to 6"),
    "unknown activation": ({"activation": "relu"}, "activation: Input should be 'softmax'"),
}


@pytest.mark.parametrize(("changes", "complaint"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_a_spec_cannot_say_is_refused_in_one_line(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError) as refusal:
        parse_spec(spec_with(changes), where="model.yaml")
    message = str(refusal.value)
    assert message.startswith("model.yaml: ")
    assert complaint in message
    assert "\n" not in message


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_a_spec_that_is_no_mapping_is_refused_in_one_line(data: Any) -> None:
    with pytest.raises(ModelError, match=r"^here: Input should be .*$"):
        parse_spec(data, where="here")


def test_further_problems_are_counted() -> None:
    with pytest.raises(ModelError, match=r"\(and 1 more\); correct the spec$"):
        parse_spec(spec_with({"margin": -1, "resolution": -1}), where="here")


def test_a_missing_spec_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model spec at .*model\.yaml \(No such file"):
        read_spec(tmp_path / "model.yaml")


@pytest.mark.parametrize("content", [b"a: [1,\nb: 2", b"\xff\xfe\x00", b"a: b: c"])
def test_a_spec_that_is_not_yaml_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"; write it as YAML") as refusal:
        read_spec(path)
    assert "\n" not in str(refusal.value)


finite = st.floats(-1e6, 1e6)
names = st.text(min_size=1, max_size=12)
colours = st.from_regex(r"#[0-9a-fA-F]{6}", fullmatch=True) | st.sampled_from(["red", "Navy", "TAN"])


@st.composite
def normalisations(draw: st.DrawFn, bands: int) -> dict[str, Any]:
    def each(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=bands, max_size=bands))

    kind = draw(st.sampled_from(["mean_std", "range", "none", "scene_mean_std", "scene_percentiles"]))
    rule: dict[str, Any] = {"kind": kind}
    if kind == "mean_std":
        rule |= {"mean": each(finite), "std": each(st.floats(1e-3, 1e6))}
    elif kind == "range":
        rule |= {"low": draw(st.floats(-10, 0)), "high": each(st.floats(1, 10))}
    elif kind == "scene_percentiles":
        rule |= {"low": 2, "high": 98.5}
    return rule | draw(st.sampled_from([{}, {"clip": [0, 1]}]))


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    bands = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    labels = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    size = draw(st.integers(0, 40))
    data = SPEC | {
        "name": draw(names),
        "description": draw(st.text()),
        "bands": bands,
        "classes": [{"name": name, "colour": draw(colours)} for name in labels],
        "normalise": draw(normalisations(len(bands))),
        "unet": draw(st.sampled_from([{}, {"width": 8}, {"up": "bilinear", "convolutions": "valid"}])),
        "scaling": [draw(st.floats(1e-9, 1e3)), draw(finite)],
        "fill": draw(finite),
        "resolution": draw(st.none() | st.floats(1e-3, 1e3)),
        "patch": draw(st.sampled_from([{}, {"fixed": 256}, {"offset": 12, "multiple": 16, "shrink": 184}])),
        "margin": draw(st.none() | st.just(size)),
    }
    return parse_spec(data, where="drawn")


@given(specs())
def test_a_spec_written_as_yaml_reads_back_the_same(spec: ModelSpec) -> None:
    assert parse_spec(yaml.safe_load(spec.to_yaml()), where="again") == spec


@pytest.mark.parametrize("text", ["ombré", "a\x85b", "a\u2028b", "a\u2029b", "a\nb", " a: #b ", "\ufeff"], ids=ascii)
def test_awkward_text_survives_yaml(text: str) -> None:
    spec = parse_spec(SPEC | {"description": text}, where="here")
    assert parse_spec(yaml.safe_load(spec.to_yaml()), where="again") == spec


def test_letters_are_written_as_letters() -> None:
    assert "ombré" in parse_spec(SPEC | {"name": "ombré"}, where="here").to_yaml()


def test_yaml_written_begins_with_its_format() -> None:
    assert parse_spec(SPEC, where="here").to_yaml().startswith("format: 1\n")


def test_colours_become_red_green_blue() -> None:
    assert [c.rgb for c in parse_spec(SPEC, where="here").classes] == [(210, 180, 140), (0, 0, 255)]


patch_sizes = st.builds(
    PatchSizes,
    offset=st.integers(0, 50),
    multiple=st.integers(1, 40),
    shrink=st.integers(0, 100).map(lambda half: 2 * half),
)


@given(patch_sizes, st.integers(-10, 2000))
def test_at_least_gives_the_smallest_legal_size_not_below(patch: PatchSizes, size: int) -> None:
    found = patch.at_least(size)
    assert patch.legal(found)
    assert found >= size
    assert not any(patch.legal(smaller) for smaller in range(max(size, 0), found))


@given(patch_sizes)
def test_every_legal_size_leaves_a_prediction_and_follows_the_rule(patch: PatchSizes) -> None:
    legal = [size for size in range(400) if patch.legal(size)]
    assert legal == [size for size in range(patch.offset, 400, patch.multiple) if size > patch.shrink]


def test_a_valid_unet_of_depth_4_takes_12_plus_16k() -> None:
    patch = PatchSizes(offset=12, multiple=16, shrink=184, stride_multiple=16)
    assert [s for s in range(300) if patch.legal(s)] == [188, 204, 220, 236, 252, 268, 284]
    assert patch.at_least(572) == 572


def test_a_fixed_size_is_the_only_one() -> None:
    patch = PatchSizes(fixed=256)
    assert [s for s in range(600) if patch.legal(s)] == [256]
    assert patch.at_least(1) == patch.at_least(1000) == 256


@pytest.mark.parametrize(
    ("changes", "subtract", "divide"),
    [
        ({}, (1000.0, 2000.0), (300.0, 400.0)),
        ({"normalise": {"kind": "range", "low": 0, "high": [10, 20]}}, (0.0, 0.0), (10.0, 20.0)),
        ({"normalise": {"kind": "none"}}, (0.0, 0.0), (1.0, 1.0)),
    ],
)
def test_fixed_kinds_give_their_arithmetic(
    changes: dict[str, Any], subtract: tuple[float, ...], divide: tuple[float, ...]
) -> None:
    rule = parse_spec(spec_with(changes | {"scaling": [2.0, 1.0]}), where="here").normalisation()
    assert (rule.subtract, rule.divide, rule.scale, rule.offset) == (subtract, divide, 2.0, 1.0)


@pytest.mark.parametrize(
    "rule", [{"kind": "scene_mean_std"}, {"kind": "scene_percentiles", "low": 2, "high": 98}], ids=str
)
def test_scene_kinds_take_the_scenes_statistics_and_nothing_else(rule: dict[str, Any]) -> None:
    spec = parse_spec(spec_with({"normalise": rule}), where="here")
    assert spec.normalise.needs_scene
    with pytest.raises(ValueError, match="needs the statistics of a scene"):
        spec.normalisation()
    assert spec.normalisation((1.0, 2.0), (3.0, 4.0)).divide == (3.0, 4.0)


def test_a_threshold_model_gives_one_score_an_argmax_one_per_class() -> None:
    assert parse_spec(SPEC, where="here").score_channels == 2
    decision = {"decision": {"kind": "threshold", "threshold": 0.5}, "activation": "sigmoid"}
    assert parse_spec(spec_with(decision), where="here").score_channels == 1


def test_a_background_has_no_score_and_half_is_its_threshold() -> None:
    decision = {"activation": "sigmoid", "decision": {"kind": "threshold", "background": True}}
    names = ["background", "foreground", "boundary"]
    spec = parse_spec(spec_with(decision) | {"classes": [{"name": name, "colour": "red"} for name in names]}, where="x")
    assert (spec.decision.threshold, spec.score_channels, spec.score_names) == (0.5, 2, ("foreground", "boundary"))
    assert parse_spec(yaml.safe_load(spec.to_yaml()), where="again") == spec


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ({"kind": "argmax", "background": True}, "belongs to kind threshold"),
        ({"kind": "threshold", "threshold": 0.5}, "decision.background: true"),
        ({"kind": "threshold"}, "needs a threshold"),
    ],
)
def test_a_decision_that_does_not_fit_its_classes_is_refused(decision, words) -> None:
    three = {"classes": [{"name": name, "colour": "red"} for name in "abc"]}
    with pytest.raises(ModelError, match=words):
        parse_spec(spec_with({"activation": "sigmoid", "decision": decision}) | three, where="here")
