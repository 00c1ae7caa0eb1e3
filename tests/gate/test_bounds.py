"""The statistics under the gate against known values."""

from statistics import NormalDist

import numpy as np
import pytest

from orchestrator.policies import bounds


@pytest.mark.parametrize(("degrees", "table"), [(3, 2.3534), (4, 2.1318), (9, 1.8331), (30, 1.6973), (1000, 1.6464)])
def test_students_quantiles_are_those_of_the_table(degrees: int, table: float) -> None:
    assert bounds.student_quantile(0.95, degrees) == pytest.approx(table, rel=0.01)


@pytest.mark.parametrize(
    ("count", "total", "bound"), [(0, 10, 0.0), (1, 2, 0.0253), (10, 10, 0.7411), (1, 20, 0.00256), (5, 50, 0.0402)]
)
def test_exact_lower_bounds_are_those_of_clopper_and_pearson(count: int, total: int, bound: float) -> None:
    assert bounds.share_lower_bound(count, total, 0.95) == pytest.approx(bound, rel=0.005)


def test_resampled_sums_scatter_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(2, 1, (100, 1))
    sums = bounds.resampled_sums(values, digests=["a"], resamples=20_000)
    assert sums.mean() == pytest.approx(values.sum(), rel=0.01)
    assert sums.std() == pytest.approx(values.std() * 10, rel=0.03)


def test_every_resample_has_as_many_documents_whatever_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CELLS", 50)
    assert np.array_equal(bounds.resampled_sums(np.ones((20, 1)), digests=["a"], resamples=7), np.full((7, 1), 20.0))


def test_the_resamples_depend_on_the_digests_alone() -> None:
    values = np.arange(30.0)[:, None]
    first, again, other = (bounds.resampled_sums(values, digests=[name], resamples=9) for name in "aab")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bounds_of_many_documents_are_plain_percentiles() -> None:
    drawn = np.random.default_rng(0).standard_normal(200_000)
    lower, upper = bounds.bounds(drawn, documents=10_000, confidence=0.95)
    assert (-lower, upper) == pytest.approx((NormalDist().inv_cdf(0.95),) * 2, rel=0.02)


def test_bounds_of_few_documents_are_wider() -> None:
    drawn = np.random.default_rng(0).standard_normal(200_000)
    assert bounds.bounds(drawn, documents=5, confidence=0.95)[1] > 2.3
