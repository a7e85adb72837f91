from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tilesseg.models.normalisation import Normalisation, mean_std, percentiles

DTYPES = ["uint8", "uint16", "int16", "float32", "float64"]
images = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.tuples(st.just(3), st.integers(1, 8), st.integers(1, 8)),
        elements=st.integers(0, 255).map(float) if dtype.startswith("f") else st.integers(0, 255),
    )
)
numbers = st.floats(-100, 100)
divisors = st.floats(0.5, 100)
normalisations = st.builds(
    Normalisation,
    st.tuples(numbers, numbers, numbers),
    st.tuples(divisors, divisors, divisors),
    st.sampled_from([1.0, 1e-4, 2.75e-5]),
    st.sampled_from([0.0, -0.2, 7.0]),
)


@given(images, normalisations)
def test_normalising_is_the_arithmetic_it_says_it_is(image: NDArray[Any], rule: Normalisation) -> None:
    subtract, divide = (np.array(values)[:, None, None] for values in (rule.subtract, rule.divide))
    expected = (image.astype(np.float64) * rule.scale + rule.offset - subtract) / divide
    result = rule.apply(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


@given(images, normalisations)
def test_the_input_is_left_alone(image: NDArray[Any], rule: Normalisation) -> None:
    before = image.copy()
    rule.apply(image)
    np.testing.assert_array_equal(image, before)


@given(images, normalisations, st.integers(0, 8), st.integers(0, 8))
def test_a_window_normalised_is_that_window_of_the_normalised_image(
    image: NDArray[Any], rule: Normalisation, y: int, x: int
) -> None:
    np.testing.assert_array_equal(rule.apply(image[:, y:, x:]), rule.apply(image)[:, y:, x:])


@given(images, normalisations)
def test_a_batch_is_normalised_like_its_images(image: NDArray[Any], rule: Normalisation) -> None:
    for single in rule.apply(np.stack([image, image])):
        np.testing.assert_array_equal(single, rule.apply(image))


def test_clipping_comes_last() -> None:
    rule = Normalisation((10.0,), (10.0,), clip=(0.0, 1.0))
    assert rule.apply(np.array([[[0, 10, 15, 20, 99]]], np.uint8)).tolist() == [[[0.0, 0.0, 0.5, 1.0, 1.0]]]


def test_small_integers_do_not_wrap_round() -> None:
    assert Normalisation((200.0,), (1.0,)).apply(np.array([[[0]]], np.uint8)).item() == -200.0


@pytest.mark.parametrize("channels", [1, 4])
def test_statistics_of_another_number_of_bands_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"{channels} channels, but statistics for 3 bands"):
        Normalisation((0.0,) * 3, (1.0,) * 3).apply(np.zeros((channels, 2, 2)))


@pytest.mark.parametrize(
    ("subtract", "divide", "complaint"),
    [((0.0,), (1.0, 1.0), "1 values to subtract, 2 to divide"), ((0.0, 0.0), (1.0, 0.0), "divide by zero")],
)
def test_statistics_that_cannot_be_used_are_refused(
    subtract: tuple[float, ...], divide: tuple[float, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Normalisation(subtract, divide)


samples = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(2, 50)), elements=st.floats(0, 1000, width=32)
)


@given(samples)
def test_mean_and_std_make_a_sample_standard(sample: NDArray[np.float32]) -> None:
    result = Normalisation(*mean_std(sample)).apply(sample[:, None, :])[:, 0].astype(np.float64)
    spread = np.ptp(sample, axis=1)
    for band in np.flatnonzero(spread > 1):
        assert result[band].mean() == pytest.approx(0, abs=1e-2)
        assert result[band].std() == pytest.approx(1, abs=1e-2)


def test_a_constant_band_divides_by_one() -> None:
    assert mean_std(np.array([[7, 7, 7], [1, 2, 3]], np.uint16)) == ((7.0, 2.0), (1.0, pytest.approx(0.8165, abs=1e-4)))


def test_percentiles_are_taken_of_each_band() -> None:
    sample = np.stack([np.arange(101), np.arange(101) * 10])
    assert percentiles(sample, 2, 98) == ((2.0, 20.0), (98.0, 980.0))
