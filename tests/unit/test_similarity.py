import numpy as np
import pytest

from memoryd.vectors.similarity import normalize, shorten


def test_rows_get_length_one_and_a_zero_row_stays_zero() -> None:
    rows = normalize(np.array([[3, 4], [0, 0], [1e-20, 0], [1e19, 1e19]], dtype=np.float32))
    assert rows.dtype == np.float32
    assert rows[0].tolist() == pytest.approx([0.6, 0.8])
    assert np.isfinite(rows).all()
    assert np.linalg.norm(rows[3]) == pytest.approx(1)


def test_shortened_rows_have_length_one_again() -> None:
    rows = normalize(np.arange(1, 13, dtype=np.float32).reshape(2, 6))
    short = shorten(rows, 4)
    assert short.shape == (2, 4)
    assert np.allclose(np.linalg.norm(short, axis=1), 1)
    assert np.allclose(short[0] / short[0, 0], [1, 2, 3, 4])


@pytest.mark.parametrize("dimensions", [6, 7, 10_000])
def test_what_is_not_longer_stays_as_it_is(dimensions: int) -> None:
    rows = normalize(np.ones((2, 6), dtype=np.float32))
    assert shorten(rows, dimensions) is rows


@pytest.mark.parametrize("scale", [1e-3, 1, 20])
@pytest.mark.parametrize("norm", [1, 2, 3, 30, 100])
def test_high_norms_of_small_and_large_numbers_are_right(scale: float, norm: int) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 384)).astype(np.float32) * scale
    lengths = np.linalg.norm(normalize(rows.astype(np.float32), norm).astype(float), norm, axis=1)
    assert np.allclose(lengths, 1, rtol=1e-5)
