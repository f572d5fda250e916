"""Stored statistics, arrays and files of scores that no number can be of: each is refused in one sentence."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_evaluation import LABELS, clips, score
from test_folders import BOTH, OPTIONS, folder

from foleylib.evaluation import (
    bandwidth,
    copying,
    corruption,
    differences,
    distribution,
    events,
    metrics,
    quick,
    remarks,
    scores,
)
from foleylib.evaluation.comparable import read, refuse_unlike
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.folders import score_folder, store_statistics
from foleylib.evaluation.frechet import Gaussian, fad, frechet_distance, gaussian
from foleylib.evaluation.paired import paired_scores
from foleylib.evaluation.statistics import bootstrap_interval, frechet_bootstrap, pool, wilson
from foleylib.sampling import selection, thresholds

NET = {"net": BOTH["net"]}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("sounds") / "mine", 0)


# ---- stored statistics


def of(n=50, d=4):
    mean, cov = gaussian(np.random.default_rng(0).normal(size=(n, d)))
    return {"mu": mean, "sigma": cov, "n": n}


def changed(cov, value):
    cov = cov.copy()
    cov[0, 0] = value
    return cov


COV = of()["sigma"]
STORED = [
    ("nan", {"sigma": changed(COV, np.nan)}, "the mean or the covariance is not finite"),
    ("inf", {"sigma": np.full((4, 4), np.inf)}, "the mean or the covariance is not finite"),
    ("mean-inf", {"mu": np.full(4, -np.inf)}, "the mean or the covariance is not finite"),
    ("indefinite", {"sigma": changed(COV, -1.0)}, "the covariance has a negative eigenvalue"),
    ("indefinite-off-diagonal", {"sigma": np.ones((4, 4)) - np.eye(4)}, "the covariance has a negative eigenvalue"),
    ("not-symmetric", {"sigma": np.triu(np.ones((4, 4)))}, "the covariance is not symmetric"),
    ("complex", {"sigma": COV + 1j}, "covariance of complex128: real numbers are wanted"),
    ("texts", {"mu": np.array(["a"] * 4)}, "mean of <U1: real numbers are wanted"),
    ("truths", {"sigma": np.eye(4, dtype=bool)}, "covariance of bool"),
    ("empty", {"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"they must be \(D,\) and \(D, D\)"),
    ("two-means", {"mu": np.zeros((2, 4))}, r"they must be \(D,\) and \(D, D\)"),
    ("other-dimensions", {"mu": np.zeros(5), "sigma": np.eye(5)}, "have 5 dimensions, the clips 4"),
    ("no-clips", {"n": 0}, "the number of clips is 0: one whole number of 2 or more"),
    ("one-clip", {"n": 1}, "the number of clips is 1"),
    ("half-a-clip", {"n": 50.5}, "the number of clips is 50.5"),
    ("nan-clips", {"n": np.nan}, "the number of clips is nan"),
    ("numbers-of-clips", {"n": np.array([50, 50])}, r"the number of clips is \[50, 50\]"),
    ("clips-in-words", {"n": "many"}, "number of clips of <U4"),
    ("other-weights", {"sha256": "0" * 64}, "are of weights 0000.*, not of those given"),
]


@pytest.mark.parametrize(("change", "message"), [pytest.param(*row[1:], id=row[0]) for row in STORED])
def test_statistics_that_no_clips_have(change, message, mine, tmp_path):
    np.savez(tmp_path / "s.npz", **of() | change)
    with pytest.raises(ValueError, match=message) as error:
        score_folder(mine, tmp_path / "s.npz", NET, options=OPTIONS)
    assert "s.npz" in str(error.value) or "dimensions" in message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b[:-200],
        lambda b: b[:40],
        lambda b: b"",
        lambda b: b"mu,sigma\n",
        lambda b: b[:300] + b"\0" * 99 + b[399:],
    ],
)
def test_files_of_statistics_that_are_damaged(spoil, mine, tmp_path):
    np.savez_compressed(tmp_path / "s.npz", **of())
    (tmp_path / "s.npz").write_bytes(spoil((tmp_path / "s.npz").read_bytes()))
    with pytest.raises(ValueError, match=r"s.npz: not an .npz of statistics \(.*\); store it again"):
        score_folder(mine, tmp_path / "s.npz", NET, options=OPTIONS)


def test_few_or_unknown_clips_of_statistics_are_on_the_card(mine, tmp_path):
    np.savez(tmp_path / "few.npz", **of(n=3))
    np.savez(tmp_path / "unknown.npz", mu=np.zeros(4), sigma=np.eye(4))
    few, unknown = (
        score_folder(mine, tmp_path / f"{name}.npz", NET, options=OPTIONS)[1]["remarks"] for name in ("few", "unknown")
    )
    assert any("has 3 reference embeddings of 4 dimensions" in remark for remark in few)
    assert "net: of how many clips the stored statistics are is not known." in unknown
    own = store_statistics(mine, NET, tmp_path / "own.npz")
    assert not [r for r in score_folder(mine, own, NET)[1]["remarks"] if "net" in r]


# ---- arrays


def holed(x, value=np.nan):
    x = x.copy()
    x.flat[1] = value
    return x


X, Y = np.random.default_rng(0).normal(size=(9, 3)), np.random.default_rng(1).normal(size=(8, 3))
P = np.full((9, 2), 0.5)
HALF = np.full((2, 3, 4), 0.5)  # probabilities of a detector
MASK = np.ones((9, 2), dtype=bool)
NEAR = np.ones((9, 2, 3))  # neighbours of X
HEARD = np.ones((1, 4), dtype=bool)
WAVES = np.random.default_rng(2).normal(size=(4, 800))
MEAN, EYE = np.zeros(3), np.eye(3)
METRICS = {
    "fad": lambda x, y: fad(x, y),
    "fad-interval": lambda x, y: frechet_bootstrap(x, y, seed=0, fixed_reference=True, n_boot=3),
    "kad": distribution.kad,
    "coverage": distribution.density_coverage,
    "kernel-distance": lambda x, y: distribution.kernel_distance(x, y, seed=0, subset_size=2),
}
SETS = [
    ("nan", X, holed(Y), "not finite"),
    ("inf", holed(X, np.inf), Y, "not finite"),
    ("none", X, Y[:0], "0 clip|no clips|at least 2"),
    ("one", X, Y[:1], "1 clip|at least 2"),
    ("no-reference", X[:0], Y, "0 clip|no clips|at least 2"),
    ("one-reference", X[:1], Y, "1 clip|at least 2"),
    ("other-model", X, Y[:, :2], "same model"),
    ("no-windows", np.zeros((9, 0, 3)), Y, "1 window|without windows"),
    ("no-windows-generated", X, np.zeros((9, 0, 3)), "1 window|without windows"),
    ("complex", X + 1j, Y, "is of complex128; give real numbers"),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("x", "y", "message"), [pytest.param(*row[1:], id=row[0]) for row in SETS])
def test_sets_that_no_distance_is_of(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        METRICS[metric](x, y)


DISTANCES = {
    "frechet-distance-first": lambda mean, cov: frechet_distance(mean, cov, MEAN, EYE),
    "frechet-distance-second": lambda mean, cov: frechet_distance(MEAN, EYE, mean, cov),
    "fad": lambda mean, cov: fad(Gaussian(mean, cov), Y),
    "fad-of-few": lambda mean, cov: fad(Gaussian(mean, cov), Y[:3]),
    "fad-interval": lambda mean, cov: frechet_bootstrap(Gaussian(mean, cov), Y, seed=0, fixed_reference=True, n_boot=3),
}
GAUSSIANS = [
    ("nan-mean", MEAN * np.nan, EYE, "the mean or the covariance is not finite"),
    ("nan-covariance", MEAN, EYE * np.nan, "the mean or the covariance is not finite"),
    ("negative", MEAN, -EYE, "the covariance has a negative eigenvalue"),
    ("one-negative", MEAN, changed(EYE, -1e-5), "the covariance has a negative eigenvalue"),
    ("triangular", MEAN, np.triu(np.ones((3, 3))), "the covariance is not symmetric"),
    ("complex-mean", MEAN + 1j, EYE, "is of complex128"),
    ("complex-covariance", MEAN, EYE + 1j, "is of complex128"),
    ("other-covariance", MEAN, np.eye(4), r"\(D,\) and \(D, D\)|\(D,\), \(D, D\)"),
]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("mean", "cov", "message"), [pytest.param(*row[1:], id=row[0]) for row in GAUSSIANS])
def test_statistics_in_memory_that_no_clips_have(distance, mean, cov, message):
    with pytest.raises(ValueError, match=message):
        DISTANCES[distance](mean, cov)


def test_rounding_of_float32_is_no_fault_of_a_covariance():
    x, y = (np.random.default_rng(seed).normal(size=(n, 64)) for seed, n in ((0, 20), (1, 200)))
    mean, cov = gaussian(x)
    rounded = cov.astype(np.float32) + np.triu(np.full((64, 64), 1e-7, dtype=np.float32))
    assert np.linalg.eigvalsh(cov.astype(np.float32).astype(float))[0] < 0
    assert fad(Gaussian(mean, rounded), y) == pytest.approx(fad(x, y), rel=1e-3)


CALLS = [
    ("equal-reference", lambda: distribution.kad(np.ones((9, 3)), Y), "at least half of the reference clips are equal"),
    ("far-reference", lambda: distribution.kad(X * 1e200, Y), "too far apart for a number"),
    ("fad-of-large", lambda: fad(X * 1e155, Y), "x or y is too large for a distance"),
    ("fad-of-few-large", lambda: fad(X[:3], Y[:3] * 1e155), "x or y is too large for a distance"),
    ("kernel-of-large", lambda: kernel_distance(X * 1e150, Y * 1e150), "x or y is too large for a score"),
    ("coverage-of-large", lambda: distribution.density_coverage(X * 1e200, Y * 1e200), "too large for a score"),
    ("narrow-kernel", lambda: distribution.kad(X, Y, bandwidth=1e-200), "or the bandwidth too small"),
    ("no-subsets", lambda: distribution.kernel_distance(X, Y, seed=0, subsets=0, subset_size=2), "subsets=0"),
    ("no-neighbours", lambda: distribution.density_coverage(X, Y, k=0), "k=0: give 1 to 8"),
    ("neighbours-of-more-clips", lambda: distribution.density_coverage(X, Y, k=9), "k=9: give 1 to 8"),
    ("is-nan", lambda: metrics.inception_score(holed(X), splits=1, seed=0), "outputs is not finite in 1 clip"),
    ("is-one-clip", lambda: metrics.inception_score(X[:1], splits=1, seed=0), "holds 1 clip"),
    ("kl-other-number", lambda: metrics.kl_divergence(X, Y), "pair the clips by id"),
    ("kl-nan", lambda: metrics.kl_terms(X, holed(X)), "generated_logits is not finite"),
    ("kl-no-probabilities", lambda: metrics.kl_of_means(P, -P), "rows must be probabilities"),
    ("kl-sums", lambda: metrics.kl_of_means(P, 2 * P), "sum to 1"),
    ("clap-zero", lambda: metrics.clap_score(X, 0 * X), "an embedding of length 0"),
    ("clap-one-zero", lambda: metrics.clap_score(X, np.where(np.arange(9)[:, None] == 4, 0, X)), "pair 4 has"),
    ("clap-nan", lambda: metrics.clap_score(X, holed(X)), "text is not finite"),
    ("clap-large", lambda: metrics.clap_score(X * 1e200, X * 1e200), "pair 0 is too long for a cosine"),
    ("clip-of-no-windows", lambda: interval([*Y[:, None], Y[:0]]), r"1 clip\(s\) without windows, first \[8\]"),
    ("groups-of-more", lambda: interval(Y, {"a": np.arange(9)}), "groups do not hold each of the 8 clips of y once"),
    ("groups-of-fewer", lambda: interval(Y, {"a": np.arange(7)}), "groups do not hold each of the 8 clips"),
    ("groups-that-overlap", lambda: interval(Y, {"a": np.arange(8), "b": np.arange(2)}), "groups do not hold each"),
    ("share-above-1", lambda: wilson(1.5, 10), "share=1.5"),
    ("share-nan", lambda: wilson(np.nan, 10), "share=nan"),
    ("share-of-none", lambda: wilson(0.5, 0), "n=0"),
    ("no-draws", lambda: bootstrap_interval(9, np.mean, seed=0, n_boot=0), "n_boot=0"),
    ("level-1", lambda: bootstrap_interval(9, np.mean, seed=0, n_boot=3, level=1.0), "level=1.0"),
    ("no-clips", lambda: bootstrap_interval(0, np.mean, seed=0), "there are no clips"),
    ("no-classes", lambda: bootstrap_interval({}, np.mean, seed=0), "there are no clips"),
    ("other-models", lambda: pool([X, X[:, :2]]), r"embeddings of \[2, 3\] dimensions"),
    ("empty", lambda: pool([]), "there are no clips"),
    ("unknown-class", lambda: quick.average_fad({"Rain": X}, np.array(["Saw"] * 8), Y), "has no clips of class Saw"),
    ("class-of-none", lambda: quick.average_fad({"Saw": X[:0]}, np.array(["Saw"] * 8), Y), "no clips of class Saw"),
    ("average-of-none", lambda: quick.average_fad({"Saw": X}, np.array([]), Y[:0]), "there are no generated clips"),
    ("kad-of-none", lambda: quick.kad_and_coverage(clips(), clips().at(np.r_[:0]), "clap"), "no generated clips"),
    ("noise-negative", lambda: noise(-0.2), "share=-0.2: give a finite share of 0 or more"),
    ("noise-nan", lambda: noise(np.nan), "share=nan: give a finite share"),
    ("judge-unknown", lambda: quick.judge_hits(clips(), ("Rain",)), "'DogBark', 'GunShot' are none of the judge's"),
    ("judge-nan", lambda: quick.judge_hits(with_logits(np.nan), LABELS), "logits are not finite"),
    ("copy-nan", lambda: copying.nearest(holed(X), NEAR, MASK), "clips or neighbours are not finite"),
    ("copy-inf", lambda: copying.nearest(X, holed(NEAR, np.inf), MASK), "are not finite"),
    ("copy-large", lambda: copying.nearest(X * 1e200, NEAR, MASK), "or too large for a length"),
    ("copy-of-large", lambda: copying.nearest(X, NEAR * 1e200, MASK), "or too large for a length"),
    ("silence-nan", lambda: bandwidth.spectral_rolloff(holed(X), 8000), "is not finite"),
    ("no-samples", lambda: bandwidth.spectral_rolloff(np.zeros((2, 0)), 8000), r"shape \(0,\)"),
    ("level-nan", lambda: bandwidth.level_above(holed(X), 8000, 100), "is not finite"),
    ("one-sample", lambda: bandwidth.spectral_rolloff(np.ones((2, 1)), 8000), r"shape \(1,\)"),
    ("loud", lambda: bandwidth.spectral_rolloff(WAVES * 1e200, 8000), "too loud for an energy"),
    ("rolloff-above-1", lambda: bandwidth.spectral_rolloff(WAVES, 8000, share=1.5), r"share=1.5: .* in \(0, 1\]"),
    ("rolloff-nan", lambda: bandwidth.spectral_rolloff(WAVES, 8000, share=np.nan), "share=nan"),
    ("rolloff-negative", lambda: bandwidth.spectral_rolloff(WAVES, 8000, share=-1), "share=-1"),
    ("rolloff-rate", lambda: bandwidth.spectral_rolloff(WAVES, 0), "rate=0: give the samples a second"),
    ("level-rate", lambda: bandwidth.level_above(WAVES, 0, 100), "rate=0"),
    ("level-cutoff-nan", lambda: bandwidth.level_above(WAVES, 8000, np.nan), "cutoff=nan"),
    ("level-cutoff-negative", lambda: bandwidth.level_above(WAVES, 8000, -1), "cutoff=-1"),
    ("envelope-nan", lambda: bandwidth.envelope_similarity(holed(WAVES), WAVES, 8000, 8000), "is not finite"),
    ("envelope-inf", lambda: bandwidth.envelope_similarity(WAVES, holed(WAVES, np.inf), 8000, 8000), "is not finite"),
    ("envelope-loud", lambda: bandwidth.envelope_similarity(WAVES * 1e200, WAVES, 8000, 8000), "too loud"),
    (
        "envelope-of-one",
        lambda: bandwidth.envelope_similarity(WAVES[:1], WAVES, 8000, 8000),
        r"\(1, 10\) and \(4, 10\)",
    ),
    ("envelope-short", lambda: bandwidth.envelope_similarity(WAVES[:, :80], WAVES, 8000, 8000), "of one duration"),
    ("envelope-rate", lambda: bandwidth.envelope_similarity(WAVES, WAVES, 8000, 0), "rate=0"),
    ("envelope-step", lambda: bandwidth.envelope_similarity(WAVES, WAVES, 8000, 8000, step=0), "step=0"),
    ("event-nan", lambda: events.score(holed(HALF), np.full(4, 0.5), [[0], [1]]), "not finite"),
    ("event-threshold", lambda: events.detected(HALF, np.full(4, np.nan)), "not finite"),
    ("event-clips", lambda: events.event_recall(np.ones((2, 4), bool), [[0]]), "2 clips but the events of 1 scenes"),
    ("event-of-no-class", lambda: events.event_recall(HEARD, [[0, 9]]), r"clip 0 has the events \[0, 9\]; .* 0 to 3"),
    ("event-precision", lambda: events.event_precision(HEARD, [[9]]), r"the events \[9\]"),
    ("event-of-each-class", lambda: events.recall_by_class(HEARD, [[9]]), r"the events \[9\]"),
    ("event-order-negative", lambda: events.order_accuracy(HALF[:1], HALF[0, 0], [[0, -1]]), r"the events \[0, -1\]"),
    ("event-order", lambda: events.order_accuracy(HALF[:1], HALF[0, 0], [[0, 7]]), r"the events \[0, 7\]"),
    ("event-twice", lambda: events.event_recall(HEARD, np.array([[2, 0, 0, 0]])), "each once"),
    ("event-heard-numbers", lambda: events.event_recall(np.array([[2, 0, 0, 0]]), [[0]]), "heard is not true or false"),
    ("threshold-nan", lambda: best(np.array([np.nan, 0.9, 0.2]), [True, True, False]), "scores are not finite"),
    (
        "threshold-shapes",
        lambda: best(HALF[0, :2, :2], [True, False]),
        r"scores \(2, 2\) and truth \(2,\) differ in shape",
    ),
    ("threshold-numbers", lambda: best(np.array([0.1, 0.9]), [0, 2]), "truth is not true or false"),
    ("event-nothing", lambda: events.best_threshold(HALF, HALF > 1), "no event is there to be found"),
    (
        "partners-fewer",
        lambda: paired_scores(clips(), clips(per_class=3), clips()),
        "9 partners of 36 clips: give the one that belongs to each",
    ),
    ("target-zero", lambda: selection.unit_rows("targets of Rain", 0 * X), "targets of Rain: an embedding is 0"),
    ("target-nan", lambda: selection.unit_rows("targets of Rain", holed(X)), "targets of Rain: .* not finite"),
    ("nothing-wanted", lambda: select(0, {"Rain": 0.5}), "wanted=0 clips of 1 classes"),
    ("no-class-wanted", lambda: select(2, {}), "wanted=2 clips of 0 classes"),
    ("no-pool", lambda: calibrate(X[:0], []), "there are no clips to calibrate on"),
    ("small-pool", lambda: calibrate(X[:3], ["Rain"] * 3), "0.5 of the 3 clips of Rain is 1"),
    ("zero-in-the-pool", lambda: calibrate(0 * X, ["Rain"] * 9), "an embedding is 0 or not finite"),
    ("nan-in-the-reference", lambda: calibrate(X, ["Rain"] * 9, real=holed(Y)), "not finite"),
    ("share-0", lambda: calibrate(X, ["Rain"] * 9, shares=[1.0, 0.0]), r"give shares in \(0, 1\]"),
    ("shares-nan", lambda: calibrate(X, ["Rain"] * 9, shares=[np.nan]), r"give shares in \(0, 1\]"),
    ("no-shares", lambda: calibrate(X, ["Rain"] * 9, shares=[]), r"give shares in \(0, 1\]"),
    ("calibrated-on-no-draws", lambda: calibrate(X, ["Rain"] * 9, draws=0), "draws=0"),
    ("labels-fewer", lambda: thresholds.nearest_of_class(X, ["Rain"]), "1 labels of 9 clips"),
    (
        "class-missing",
        lambda: score(clips(labels=LABELS[:2]), clips(1)),
        "class GunShot has fewer than 2 reference clips",
    ),
    ("class-of-one-clip", lambda: score(clips(), clips(1).at(np.r_[0:13])), "class Rain has fewer than 2 generated"),
    ("embedding-nan", lambda: score(clips(), with_judge(np.nan)), "y is not finite in 1 clip"),
    ("reference-nan", lambda: score(with_judge(np.inf), clips()), "x is not finite in 1 clip"),
]


def kernel_distance(x, y):
    return distribution.kernel_distance(x, y, seed=0, subset_size=4)


def interval(y, groups=None):
    return frechet_bootstrap(X, y, seed=0, groups=groups, n_boot=3)


def noise(share):
    return corruption.add_noise(torch.zeros(2, 1, 8, 4), np.random.default_rng(0), share=share)


def best(scores, truth):
    return events.best_threshold(scores, np.array(truth))


def with_logits(value):
    found = clips()
    found.arrays["logits"] = holed(found["logits"], value)
    return found


def with_judge(value):
    found = clips()
    found.arrays["judge"] = holed(found["judge"], value)
    return found


def select(wanted, levels):
    targets = dict.fromkeys(levels, X)
    return selection.select(pytest.fail, wanted, levels, targets, settings=SimpleNamespace(best_of={}, cap=2), seed=0)


def calibrate(E, labels, *, real=Y, shares=(1.0, 0.5), draws=2):
    targets, reference = {"Rain": X[:1]}, {"Rain": real}
    return thresholds.calibrate(E, labels, targets, reference, metric=fad, shares=list(shares), seed=0, draws=draws)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy also warns of what overflows
@pytest.mark.parametrize(("call", "message"), [pytest.param(*row[1:], id=row[0]) for row in CALLS])
def test_arrays_that_no_number_is_of(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- scores of different protocols


def card(sha256="a", reference="r", name="judge"):
    return {"run": "ldm", "reference_sha256": reference, "evaluators": {name: {"sha256": sha256}}}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        pytest.param(card(sha256="b"), "weights of the evaluator judge", id="weights"),
        pytest.param(card(reference="s"), "reference clips", id="reference"),
        pytest.param(card(sha256=None), "weights of the evaluator judge", id="weights-unknown"),
        pytest.param(card(reference=None), "reference clips", id="reference-unknown"),
    ],
)
def test_scores_of_other_protocols_make_no_table(other, what, tmp_path):
    with pytest.raises(ValueError, match=f"a.json and b.json are scores of other {what}, which do not compare"):
        refuse_unlike({"a.json": card(), "b.json": other})
    refuse_unlike({"a.json": card(), "b.json": card(), "c.json": {"run": "latent_clap"}})
    refuse_unlike({"a.json": card(), "b.json": card("b", name="clap")})
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, own in zip(files, (card(), other)):
        file.write_text(json.dumps({"headline": {}, "card": own, "scores": []}))
    published = pd.DataFrame(columns=["paper", "table", "row", "class", "metric", "value"])
    with pytest.raises(ValueError, match="which do not compare: run the evaluate stage again"):
        scores.summarise(files, {"ldm": []}, published, pd.DataFrame(), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "run.json is missing; run the evaluate stage", id="missing"),
        pytest.param(b"", "run.json cannot be read as scores", id="empty"),
        pytest.param(b'{"headline": {}, "card"', "run.json cannot be read as scores", id="cut-short"),
        pytest.param(b"\xff\xfe", "run.json cannot be read as scores", id="no-text"),
        pytest.param(b"[]", "run.json lacks the headline, the card or the scores", id="a-list"),
        pytest.param(b'{"headline": {}}', "run.json lacks the headline, the card or the scores", id="no-card"),
    ],
)
def test_files_of_scores_that_cannot_be_read(content, message, tmp_path):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "run.json")


def test_a_difference_needs_both_runs():
    rows = [{"run": "a", "class": "average", "metric": "kad", "embedder": "judge", "seed": 0, "value": 1.0}]
    with pytest.raises(ValueError, match="b: no kad by judge of this run; score it first"):
        differences.paired_differences(pd.DataFrame(rows), [("a", "b")])


def test_few_trainings_and_other_numbers_of_clips_are_said():
    assert remarks.of_seeds(1)[0].startswith("One training alone: there is no interval over trainings")
    assert remarks.of_seeds(2)[0].startswith("2 trainings alone") and remarks.of_seeds(3) == []
    assert remarks.of_counts(70, [140, 140, 70])[0].startswith("70 clips, where most runs have 140: FAD, FD")
    assert remarks.of_counts(140, [140, 140, 70]) == [] == remarks.of_counts(3, [])
    expected = ["Classes without any clips, which are not scored: Saw."]
    assert remarks.of_classes(["Rain"], ["Rain"], ["Rain", "Saw"]) == expected
    merged = remarks.merged({0: ["of all", "of one"], 1: ["of all"], 2: ["of all"]})
    assert merged == ["of all", "Seed 0: of one"]
    assert remarks.listed(range(22)).endswith("18, 19 and 2 more")


def test_sizes_are_those_of_the_smallest_class():
    generated = clips(1).at(np.r_[0:12, 12:15, 24:36])
    assert generated.sizes(clips()) == {"judge": (5, 3, 12), "clap": (4, 3, 12)}
    windows = Embeddings(generated.labels, {"judge": np.zeros((27, 6, 5)), "clap": np.zeros((27, 4))})
    assert windows.sizes(clips())["judge"] == (5, 18, 12)
