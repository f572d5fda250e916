"""Bootstrap intervals: coverage, clips kept whole, bias, pairing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foleylib.evaluation import statistics
from foleylib.evaluation.frechet import fad


def embeddings(seed, n=30, windows=4, d=6, shift=0.0):
    """Windows of one clip are alike: a clip mean plus small noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1, d)) + 0.2 * rng.normal(size=(n, windows, d)) + shift


def mean_of(values):
    """Statistic: mean of the rows drawn."""
    return lambda rows: values[rows].mean()


def test_interval_of_a_mean_covers_it_as_often_as_its_level_says():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        values = rng.normal(size=40)
        interval = statistics.bootstrap_interval(40, mean_of(values), seed=trial, n_boot=200, level=0.9)
        hits += interval.low <= 0 <= interval.high
    assert 0.83 <= hits / 200 <= 0.95


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(size=400)
    interval = statistics.bootstrap_interval(400, mean_of(values), seed=0, n_boot=2000)
    error = values.std() / 20
    expected = values.mean(), values.mean() - 1.96 * error, values.mean() + 1.96 * error
    assert interval[:3] == pytest.approx(expected, abs=0.01)
    assert interval.sd == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("strata", [[np.arange(30)], [np.arange(10), np.arange(10, 30)]])
def test_draws_are_those_of_scipy(strata):
    from scipy.stats import bootstrap

    values = np.random.default_rng(2).normal(size=30)
    interval = statistics.bootstrap_interval(dict(enumerate(strata)), mean_of(values), seed=3, n_boot=50)
    theirs = bootstrap(
        strata,
        lambda *rows: values[np.concatenate(rows).astype(int)].mean(),
        n_resamples=50,
        batch=1,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    assert interval[1:3] == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)
    assert interval.sd == pytest.approx(theirs.bootstrap_distribution.std(), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(3, 12),
    m=st.integers(3, 12),
    d=st.integers(1, 15),
    level=st.floats(0.05, 0.99),
    fixed=st.booleans(),
)
def test_interval_contains_fad_and_repeats(seed, n, m, d, level, fixed):
    x, y = embeddings(seed, n, 2, d), embeddings(seed + 1, m, 2, d, shift=1.0)
    options = {"seed": 5, "fixed_reference": fixed, "n_boot": 20, "level": level}
    interval = statistics.frechet_bootstrap(x, y, **options)
    assert interval == statistics.frechet_bootstrap(x, y, **options)
    assert interval.estimate == fad(x, y)
    assert 0 <= interval.low <= interval.estimate <= interval.high


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("d", [5, 100])
def test_fast_draws_equal_fad_of_whole_resampled_clips(fixed, d):
    x, y = embeddings(3, 20, 3, d), embeddings(4, 15, 2, d, shift=0.5)
    rng, slow = np.random.default_rng(7), []
    for _ in range(10):
        x_drawn = x if fixed else x[rng.integers(20, size=20)]
        slow.append(fad(x_drawn, y[rng.integers(15, size=15)]))
    interval = statistics.frechet_bootstrap(x, y, seed=7, fixed_reference=fixed, n_boot=10, level=0.8)
    low, high = np.quantile(slow - np.median(slow) + fad(x, y), [0.1, 0.9])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-6)
    assert interval.sd == pytest.approx(np.std(slow), abs=1e-6)


def test_draws_of_fad_are_biased_upwards_so_that_plain_quantiles_miss_it():
    x, y = embeddings(8, n=40, windows=1, d=30), embeddings(9, n=40, windows=1, d=30)
    plain, recentred = (
        statistics.bootstrap_interval(40, lambda rows: fad(x, y[rows]), seed=1, n_boot=100, recentre=recentre)
        for recentre in (False, True)
    )
    assert plain.low > plain.estimate == recentred.estimate
    assert recentred.low <= recentred.estimate <= recentred.high
    assert recentred == pytest.approx(statistics.frechet_bootstrap(x, y, seed=1, n_boot=100, fixed_reference=True))


def test_recentred_interval_covers_the_expected_fad_at_this_size():
    rng = np.random.default_rng(10)
    reference = rng.normal(size=(500, 4))
    sets = [0.5 + 1.3 * rng.normal(size=(60, 4)) for _ in range(150)]
    expected = np.mean([fad(reference, y) for y in sets])
    options = {"seed": 2, "fixed_reference": True, "n_boot": 100}
    intervals = [statistics.frechet_bootstrap(reference, y, **options) for y in sets[:100]]
    assert 0.85 <= np.mean([i.low <= expected <= i.high for i in intervals])


def test_pairing_removes_what_two_systems_share():
    rng = np.random.default_rng(11)
    prompt, noise = rng.normal(size=100), 0.1 * rng.normal(size=(2, 100))
    a, b = prompt + noise[0], prompt + noise[1] - 0.1
    paired = statistics.bootstrap_interval(100, mean_of(a - b), seed=0)
    assert 0 < paired.low < paired.estimate < paired.high
    assert paired.sd < 0.2 * statistics.bootstrap_interval(100, mean_of(a), seed=0).sd
    same = statistics.bootstrap_interval(100, mean_of(noise[0] - noise[1]), seed=0)
    assert same.low < 0 < same.high


def test_every_class_keeps_its_number_of_clips():
    drawn, strata = [], statistics.group_rows(["x"] * 10 + ["y"] * 30 + ["x"])
    assert {label: rows.tolist() for label, rows in strata.items()} == {"x": [*range(10), 40], "y": [*range(10, 40)]}

    def statistic(rows):
        drawn.append((np.isin(rows, strata["x"]).sum(), len(rows)))
        return 0.0

    statistics.bootstrap_interval(strata, statistic, seed=0, n_boot=50)
    assert set(drawn) == {(11, 41)} and len(drawn) == 51  # the estimate and every draw


def test_mean_over_seeds():
    assert statistics.over_seeds([1, 2, 3]) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    for values in ([4.0], [3.0, 5.0]):  # Student's interval of two spans everything
        mean, low, high = statistics.over_seeds(values)
        assert mean == 4 and np.isnan([low, high]).all()


@pytest.mark.parametrize("hits", [0, 3, 20])
def test_wilson_is_that_of_scipy(hits):
    from scipy.stats import binomtest

    expected = binomtest(hits, 20).proportion_ci(0.9, method="wilson")
    interval = statistics.wilson(hits / 20, 20, level=0.9)
    assert interval[1:3] == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= interval.low <= interval.estimate == hits / 20 <= interval.high <= 1


def test_frechet_draws_keep_the_numbers_of_the_classes():
    x, y = embeddings(0, n=40), np.concatenate([embeddings(1, n=20), embeddings(2, n=20, shift=6.0)])
    groups = {"a": np.arange(20), "b": np.arange(20, 40)}
    options = {"seed": 0, "fixed_reference": True, "n_boot": 50}
    by_class, loose = (statistics.frechet_bootstrap(x, y, groups=g, **options) for g in (groups, None))
    assert by_class.estimate == loose.estimate and by_class.sd < 0.5 * loose.sd  # far classes: their shares matter most


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: statistics.bootstrap_interval(1, np.mean, seed=0), "at least 2"),
        (lambda: statistics.bootstrap_interval({"x": np.arange(9), "y": [9]}, np.mean, seed=0), "at least 2"),
        (lambda: statistics.bootstrap_interval(9, lambda rows: np.nan, seed=0), "not finite"),
        (lambda: statistics.frechet_bootstrap(np.eye(3), np.eye(4), seed=0), "same model"),
        (lambda: statistics.over_seeds([]), "one per seed"),
        (lambda: statistics.over_seeds([1.0, np.nan]), "one per seed"),
    ],
)
def test_bad_input_stops_with_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
