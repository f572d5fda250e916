"""Scores against closed forms, golden values and their own symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from foleylib.evaluation import distribution, frechet, metrics


def clouds(seed, n=60, m=80, d=5, scale=1.5):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mixing, scale * rng.normal(size=(m, d)) + rng.normal(size=d)


def expected(case):
    return {key: (row["value"], row["tolerance"]) for key, row in case.manifest["outputs"].items()}


@pytest.mark.parametrize("n,d", [(200, 8), (20, 40)])
def test_fad_of_equal_sets_is_zero_and_of_shifted_sets_the_squared_shift(n, d):
    rng = np.random.default_rng(1)
    x, shift = rng.normal(size=(n, d)), rng.normal(size=d)
    assert frechet.fad(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet.fad(x, x + shift) == pytest.approx(shift @ shift, rel=1e-9)


def test_frechet_distance_of_one_dimension_and_scaled_sets():
    assert frechet.frechet_distance([1.0], [[4.0]], [3.0], [[9.0]]) == pytest.approx(4 + (2 - 3) ** 2)
    x = np.random.default_rng(2).normal(size=(100, 6))
    x -= x.mean(axis=0)
    assert frechet.fad(x, 3 * x) == pytest.approx(4 * np.trace(np.cov(x, rowvar=False)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 30), m=st.integers(2, 30), d=st.integers(1, 12))
def test_fad_is_symmetric_not_negative_and_blind_to_rotation_and_order(seed, n, m, d):
    x, y = clouds(seed, n, m, d)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    value = frechet.fad(x, y)
    assert value >= 0
    assert frechet.fad(y, x) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert frechet.fad(x @ rotation, y @ rotation) == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert frechet.fad(x[::-1], y) == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_both_paths_of_fad_agree_on_a_singular_covariance():
    x, y = clouds(3, n=10, m=12, d=20)
    by_eigh = frechet.frechet_distance(*frechet.gaussian(x), *frechet.gaussian(y))
    assert frechet.fad(x, y) == pytest.approx(by_eigh, abs=1e-5)


def test_windows_are_pooled():
    x, y = clouds(4)
    assert frechet.fad(x.reshape(15, 4, 5), y) == frechet.fad(x, y)


def test_golden_closed_form(golden):
    case = golden("04_fad_closed_form")
    mu1, var1, mu2, var2 = (case.inputs[key] for key in ("mu1", "var1", "mu2", "var2"))
    value, tolerance = expected(case)["fad"]
    assert frechet.frechet_distance(mu1, np.diag(var1), mu2, np.diag(var2)) == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("name", ["04_fad_full_rank", "04_fad_rank_deficient"])
def test_golden_fad(golden, name):
    case = golden(name)
    value, tolerance = expected(case)["fad"]
    assert frechet.fad(case.inputs["x"], case.inputs["y"]) == pytest.approx(value, abs=tolerance)


def test_golden_fad_infinity(golden):
    case = golden("04_fad_inf")
    config = case.manifest["config"]
    options = {"seed": config["numpy_seed"], "steps": config["steps"], "min_n": config["min_n"], "replace": True}
    result = frechet.fad_infinity(case.inputs["x"], case.inputs["y"], **options)
    assert [n for n, _ in result.points] == config["ns"]
    assert [value for _, value in result.points] == pytest.approx(case.manifest["points"], abs=1e-5)
    for key, actual in {"fad_inf": result.score, "slope": result.slope, "r2": result.r2}.items():
        value, tolerance = expected(case)[key]
        assert actual == pytest.approx(value, abs=tolerance)


def test_golden_kernel_distance(golden):
    case = golden("04_kid")
    config, expected = case.manifest["config"], case.manifest["float64_values"]
    options = {"seed": config["numpy_seed"], "subsets": config["subsets"], "subset_size": config["subset_size"]}
    result = distribution.kernel_distance(case.inputs["x"], case.inputs["y"], **options)
    assert result == pytest.approx((expected["mean"], expected["std"]), abs=1e-12)


def test_golden_inception_score(golden):
    case = golden("04_isc")
    logits, seed = case.inputs["logits"], case.manifest["config"]["shuffle_seed"]
    one, ten = (metrics.inception_score(logits, splits=splits, seed=seed) for splits in (1, 10))
    scores = {"mean_splits1": one.mean, "mean_splits10": ten.mean, "std_splits10": ten.std}
    for key, (value, tolerance) in expected(case).items():
        assert scores[key] == pytest.approx(value, abs=tolerance)


def test_golden_kl(golden):
    case = golden("04_kl")
    generated = np.empty_like(case.inputs["generated_logits"])
    generated[case.inputs["generated_order"]] = case.inputs["generated_logits"]
    for variant, (value, tolerance) in expected(case).items():
        kl = metrics.kl_divergence(case.inputs["reference_logits"], generated, variant)
        assert kl == pytest.approx(value, abs=tolerance)


def test_golden_clap_score(golden):
    case = golden("04_clap_score")
    (mean, mean_tolerance), (std, std_tolerance) = expected(case)["mean"], expected(case)["std"]
    audio, text = case.inputs["audio"], case.inputs["text"]
    assert metrics.clap_score(audio, text) == pytest.approx(mean, abs=mean_tolerance)
    assert frechet.cosine_similarities(audio, text).std() == pytest.approx(std, abs=std_tolerance)


def test_kad_in_closed_form():
    x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]])
    k = {d: np.exp(-(d**2) / 8) for d in (0, 2, 4)}  # the bandwidth is 2, the distance of the two reference clips
    expected = 100 * (k[2] + k[4] - 2 * (k[0] + k[4] + k[2] + k[2]) / 4)
    assert distribution.kad(x, y) == pytest.approx(expected)
    assert distribution.kad(x, y, bandwidth=1e6) == pytest.approx(0, abs=1e-6)


def test_kad_has_no_bias_and_sees_what_repeats():
    rng = np.random.default_rng(0)
    same = [distribution.kad(*(rng.normal(size=(n, 8)) for n in (40, 12))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200) and min(same) < 0
    x = rng.normal(size=(40, 8))
    assert (
        distribution.kad(x, np.tile(x[:1], (20, 1)))
        > 2 * np.max(same)
        < distribution.kad(x, rng.normal(size=(20, 8)) + 1)
    )


def test_bandwidth_of_a_reference_that_repeats_is_refused():
    with pytest.raises(ValueError, match="half of the reference clips are equal"):
        distribution.kad(np.ones((4, 2)), np.eye(2))


def test_density_and_coverage_in_closed_form():
    x = np.array([[0.0], [1.0], [2.0], [10.0]])  # radii for k = 1: 1, 1, 1, 8
    assert distribution.density_coverage(x, [[0.5], [20.0]], k=1) == (2 / 2, 2 / 4)
    assert distribution.density_coverage(x, [[1.0], [1.0]], k=1) == (6 / 2, 3 / 4)
    assert distribution.density_coverage(x, [[9.0], [50.0]], k=3).coverage == 1.0
    with pytest.raises(ValueError, match="k=4: give 1 to 3"):
        distribution.density_coverage(x, x, k=4)


def test_windows_of_few_clips_are_rows_of_their_own():
    x, y = (np.random.default_rng(seed).normal(size=(3, 10, 4)) for seed in range(2))
    pooled = distribution.density_coverage(x.reshape(30, 4), y.reshape(30, 4))
    assert distribution.density_coverage(x, y) == pooled and 0.5 < pooled.density < 1.5


def test_coverage_tells_a_sample_from_one_clip_and_from_noise():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 6)), rng.normal(size=(60, 6))
    same, one = distribution.density_coverage(x, y), distribution.density_coverage(x, np.tile(x[:1], (60, 1)))
    assert same.coverage > 0.85 and same.density == pytest.approx(1, abs=0.4)
    assert one.coverage < 0.3 and distribution.density_coverage(x, y + 100) == (0, 0)


def test_kernel_distance_of_two_halves_of_one_cloud_is_near_zero():
    x, _ = clouds(5, n=400)
    same = distribution.kernel_distance(x[:200], x[200:], seed=0, subset_size=100)
    far = distribution.kernel_distance(x[:200], x[200:] + 3, seed=0, subset_size=100)
    assert abs(same.mean) < 0.1 * far.mean


def test_inception_score_of_certain_balanced_classes_is_their_number():
    certain = np.eye(4)[np.arange(40) % 4]
    assert metrics.inception_score(certain, splits=1, seed=0, from_logits=False).mean == pytest.approx(4)
    assert metrics.inception_score(np.zeros((40, 4)), splits=4, seed=0) == pytest.approx((1, 0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 20), classes=st.integers(2, 9))
def test_kl_is_not_negative_and_that_of_means_is_the_smaller(seed, n, classes):
    target, generated = np.random.default_rng(seed).normal(scale=3, size=(2, n, classes))
    paired = metrics.kl_divergence(target, generated)
    of_means = metrics.kl_of_means(softmax(target, axis=1), softmax(generated, axis=1))
    assert -1e-6 * classes <= of_means <= paired + 1e-9
    assert metrics.kl_divergence(target, target) == pytest.approx(0, abs=1e-6 * classes)


def test_fad_infinity_is_seeded_and_nearer_the_truth_than_fad():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(4000, 20)), rng.normal(size=(200, 20))  # one distribution: the truth is 0
    result = frechet.fad_infinity(x, y, seed=3)
    assert result == frechet.fad_infinity(x, y, seed=3) != frechet.fad_infinity(x, y, seed=4)
    assert result.slope > 0 and abs(result.score) < frechet.fad(x, y) / 4
    assert frechet.fad_infinity(x, y, seed=3, replace=True).score > frechet.fad(x, y) / 2


NAN = np.full((3, 2), np.nan)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: frechet.fad(NAN, np.ones((3, 2))), "not finite in 3 clip"),
        (lambda: frechet.fad(np.ones((1, 2)), np.ones((3, 2))), "at least 2"),
        (lambda: frechet.fad(np.ones((1, 9, 2)), np.ones((3, 2))), "at least 2"),
        (lambda: frechet.fad(np.ones((3, 2)), np.ones((3, 4))), "same model"),
        (lambda: frechet.frechet_distance([0.0], [[1.0]], [0.0, 1.0], np.eye(2)), "shapes"),
        (lambda: frechet.frechet_distance([np.nan], [[1.0]], [0.0], [[1.0]]), "not finite"),
        (lambda: frechet.fad_infinity(np.ones((9, 2)), np.ones((9, 2)), seed=0, min_n=9), "differ"),
        (lambda: distribution.kernel_distance(np.ones((9, 2)), np.ones((9, 2)), seed=0, subset_size=10), "subset_size"),
        (lambda: metrics.inception_score(np.ones((9, 2)), splits=5, seed=0), "splits"),
        (lambda: metrics.inception_score(np.ones((9, 2)), splits=1, seed=0, from_logits=False), "sum to 1"),
        (lambda: metrics.kl_divergence(np.ones((9, 2)), np.ones((8, 2))), "pair the clips"),
        (lambda: metrics.kl_divergence(np.ones((9, 2)), np.ones((9, 2)), "argmax"), "variant"),
        (lambda: metrics.kl_of_means(np.eye(2), np.eye(3)), "one classifier"),
        (lambda: metrics.clap_score(np.zeros((3, 2)), np.ones((3, 2))), "length 0"),
    ],
)
def test_bad_input_stops_with_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
