"""Thresholds: presets, calibration at equal numbers of clips, neighbours within a class."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_selection import AXIS, DIM, scored

from foleylib.evaluation.frechet import fad
from foleylib.sampling import thresholds


def class_pool(good=40, bad=40, seed=0):
    """A pool of which the good clips are like the reference and score high, the bad are shifted away and score low."""
    rng = np.random.default_rng(seed)
    shift = np.zeros(DIM)
    shift[:2] = 2.0, 0.0
    reference, alike = (rng.normal(scale=0.3, size=(n, DIM)) + shift for n in (200, good))
    away = rng.normal(scale=0.3, size=(bad, DIM)) + np.roll(shift, 1)
    return np.concatenate([alike, away])[rng.permutation(good + bad)], reference


def calibrate_rain(E, reference, *, labels=None, targets=None, metric=fad, **options):
    labels, targets = labels or ["Rain"] * len(E), targets or {"Rain": AXIS}
    return thresholds.calibrate(E, labels, targets, {"Rain": reference}, metric=metric, seed=0, **options)


def test_calibrated_threshold_removes_what_is_unlike_the_reference():
    E, reference = class_pool()
    best, curve = calibrate_rain(E, reference, shares=[1.0, 0.75, 0.5, 0.25])
    scores = E[:, 0] / np.linalg.norm(E, axis=1)
    assert list(curve.columns) == ["label", "share", "threshold", "fad", "n", "draws"]
    assert curve.share.tolist() == [1.0, 0.75, 0.5, 0.25] and curve.draws.tolist() == [20, 20, 20, 1]
    assert (scores >= best["Rain"]).sum() <= 40 and scores[scores >= best["Rain"]].min() > 0.6
    assert curve.fad[0] > curve.fad[1] > 2 * curve.fad[2]


def test_shares_are_compared_at_one_number_of_clips():
    sizes = []

    def size(reference, clips):
        sizes.append(len(clips))
        return 0.0

    E = scored(np.linspace(-0.9, 0.9, 30))
    best, curve = calibrate_rain(E, E, shares=(0.1, 1.0, 0.5), draws=5, metric=size)
    assert set(sizes) == {3} and curve.n.tolist() == [3] * 3 and len(sizes) == curve.draws.sum() == 11
    assert curve.threshold.tolist() == pytest.approx([-1, np.quantile(E[:, 0], 0.5), np.quantile(E[:, 0], 0.9)])
    assert best == {"Rain": -1.0}  # all are equal: the lower threshold


def test_only_passing_clips_are_scored_and_all_of_them_come_to_it():
    lowest, E = {}, scored(np.random.default_rng(1).permutation(np.linspace(-0.9, 0.9, 40)))

    def low(reference, clips):
        lowest.setdefault(len(lowest), clips[:, 0].min())
        return 0.0

    _, curve = calibrate_rain(E, E, shares=[0.5, 0.25], draws=30, metric=low)
    first = np.array(list(lowest.values())[:30])
    assert first.min() == pytest.approx(E[E[:, 0] >= curve.threshold[0], 0].min()) and len(set(first)) > 1


def test_each_clip_may_have_a_target_of_its_own():
    """Turned over with its target, a clip is as similar to it as before: the scores and the threshold stay."""
    scores = np.linspace(-0.9, 0.9, 30)
    E, sign = scored(scores), np.where(np.arange(30) % 2, -1.0, 1.0)[:, None]
    own = {"Rain": sign * np.asarray(AXIS).reshape(1, -1)}
    _, curve = calibrate_rain(sign * E, E, targets=own, shares=[1.0, 0.5], paired=True)
    assert curve.threshold.tolist() == pytest.approx([-1, np.quantile(scores, 0.5)])
    with pytest.raises(ValueError, match="targets of Rain: 1 of 30 clips; give one a clip"):
        calibrate_rain(E, E, shares=[1.0], paired=True)


def test_share_of_all_clips_at_full_number_is_plain_fad():
    E, reference = class_pool(20, 20)
    best, curve = calibrate_rain(E, reference, shares=[1])
    assert curve.fad.item() == pytest.approx(fad(reference, E)) and curve.draws.item() == 1
    assert best == {"Rain": -1.0}


def test_classes_are_calibrated_apart():
    (a, real_a), (b, real_b) = class_pool(seed=1), class_pool(seed=2)
    options = {"metric": fad, "shares": [1.0, 0.5], "seed": 3, "draws": 4}
    targets, real = {"A": AXIS, "B": np.roll(AXIS, 1)}, {"A": real_a, "B": real_b}
    labels = np.tile(["A", "B"], 80)
    both, curve = thresholds.calibrate(np.stack([a, b], 1).reshape(160, DIM), labels, targets, real, **options)
    alone, of_a = thresholds.calibrate(a, ["A"] * 80, targets, real, **options)
    assert both["A"] == alone["A"] and curve[curve.label == "A"].equals(of_a)
    _, of_b = thresholds.calibrate(b, ["B"] * 80, targets, real, **options)
    assert curve[curve.label == "B"].reset_index(drop=True).equals(of_b)
    assert both["B"] == -1.0  # its target points to the bad clips


def test_thresholds_of_every_kind():
    def of(given, calibrated=None, classes=("Rain", "DogBark")):
        return thresholds.thresholds_of(SimpleNamespace(thresholds=given), calibrated, list(classes))

    assert of("text-driven-foley") == {"Rain": 0.2, "DogBark": 0.3}
    assert list(of("latent-clap-loss", classes=["MovingMotorVehicle", "Keyboard"]).values()) == [0.75, 0.15]
    assert of("validation", {"DogBark": 0.1, "Rain": -1, "Keyboard": 0}) == {"Rain": -1.0, "DogBark": 0.1}
    assert of({"DogBark": 0, "Rain": 1}) == {"Rain": 1.0, "DogBark": 0.0}
    with pytest.raises(ValueError, match="'validation': nothing was calibrated"):
        of("validation")
    with pytest.raises(ValueError, match="'validation' has no DogBark, only Rain"):
        of("validation", {"Rain": 0.1})
    with pytest.raises(ValueError, match="'latent-clap-loss' has no Siren"):
        of("latent-clap-loss", classes=["Siren"])
    with pytest.raises(ValueError, match=r"selection.thresholds: \{'Rain': 20\} is no cosine similarity"):
        of({"DogBark": 0.1, "Rain": 20})


def test_published_thresholds():
    assert list(thresholds.PRESETS["text-driven-foley"].values()) == [0.3, 0.03, 0.2, 0.15, 0.75, 0.2, 0.2]
    assert list(thresholds.PRESETS["latent-clap-loss"].values()) == [0.2, 0.2, 0.2, 0.15, 0.75, 0.2, 0.2]
    assert list(thresholds.PRESETS["latent-clap-loss"]) == sorted(thresholds.PRESETS["text-driven-foley"])


def test_nearest_clip_of_the_same_class():
    E = np.array([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8], [1.0, 0.0]])
    nearest = thresholds.nearest_of_class(E, ["a", "a", "a", "b"])
    np.testing.assert_allclose(nearest, [0.6, 0.8, 0.8, np.nan])


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"labels": ["Rain"] * 7}, "7 labels of 8 clips"),
        ({"shares": [1.0, 0.2]}, "0.2 of the 8 clips of Rain is 1"),
        ({"labels": ["DogBark"] * 8}, "targets has no DogBark"),
        ({"labels": ["DogBark"] * 8, "targets": {"DogBark": AXIS}}, "reference has no DogBark"),
    ],
)
def test_bad_input_stops_with_a_sentence(changes, message):
    E = scored(np.linspace(-0.9, 0.9, 8))
    with pytest.raises(ValueError, match=message):
        calibrate_rain(E, E, **{"shares": [1.0, 0.5], **changes})
