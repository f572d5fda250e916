"""Event recall, precision and order: closed forms on frames drawn by hand, and errors."""

import numpy as np
import pytest

from foleylib.evaluation import events

LABELS = ["Rain", "DogBark", "Bell"]
HALF = np.full(3, 0.5)


def frames(*sounds, length=8):
    """Probabilities of one clip [shape=(1, length, 3)]: 0.9 of each (class, first frame, end), 0 elsewhere."""
    made = np.zeros((1, length, 3))
    for kind, start, end in sounds:
        made[0, start:end, kind] = 0.9
    return made


def test_a_class_is_heard_where_its_highest_frame_reaches_its_own_threshold():
    made = np.concatenate([frames((0, 3, 4), (2, 0, 8)), frames()])
    assert events.detected(made, HALF).tolist() == [[True, False, True], [False, False, False]]
    assert events.detected(made, np.array([0.95, 0.5, 0.9])).tolist() == [[False, False, True], [False] * 3]


def test_recall_and_precision_in_closed_form():
    heard = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    scenes = [[0, 1], [2, 1, 0], [0], []]
    np.testing.assert_allclose(events.event_recall(heard, scenes), [1, 1 / 3, 0, np.nan])
    np.testing.assert_allclose(events.event_precision(heard, scenes), [1, 1, np.nan, 0])


def test_recall_of_each_class():
    heard = np.array([[1, 1, 0], [0, 1, 0]], dtype=bool)
    np.testing.assert_allclose(events.recall_by_class(heard, [[0, 1], [0]]), [0.5, 1, np.nan])


def test_position_is_the_centre_of_mass():
    where = events.positions(np.concatenate([frames((0, 0, 3), (1, 4, 8)), frames()]))
    np.testing.assert_allclose(where, [[1, 5.5, 0], [0, 0, 0]])


def test_order_in_closed_form():
    clip = frames((0, 0, 3), (1, 3, 5), (2, 5, 8))
    orders = {(0, 1, 2): 1, (2, 1, 0): 0, (1, 0, 2): 2 / 3, (1, 2, 0): 1 / 3}
    for scene, expected in orders.items():
        assert events.order_accuracy(clip, HALF, [scene]) == pytest.approx(expected)
    assert events.order_accuracy(clip[:, ::-1], HALF, [(0, 1, 2)]) == 0


def test_order_asks_for_pairs_that_are_both_heard():
    clip = frames((0, 0, 3), (2, 5, 8))
    assert events.order_accuracy(clip, HALF, [[0, 1, 2]]) == 1
    assert np.isnan(events.order_accuracy(clip, HALF, [[0, 1]])) and np.isnan(events.order_accuracy(clip, HALF, [[0]]))
    at_once = frames((0, 2, 4), (1, 2, 4))
    assert events.order_accuracy(at_once, HALF, [[0, 1]]) == 0


def test_score_has_a_row_for_each_clip():
    made = np.concatenate([frames((0, 0, 3), (1, 4, 8)), frames((2, 0, 8))])
    table = events.score(made, HALF, [[1, 0], [2]])
    assert table.columns.to_list() == ["events", "heard", "recall", "precision", "order"]
    np.testing.assert_allclose(table.to_numpy(), [[2, 2, 1, 1, 0], [1, 1, 1, 1, np.nan]])


def test_the_threshold_with_the_largest_f1():
    scores, truth = np.array([0.1, 0.3, 0.6, 0.7]), np.array([False, False, True, True])
    assert 0.3 < events.best_threshold(scores, truth) <= 0.6
    # One event among the others, at 0.3: finding all three (F1 6/7) is worth the false alarm at 0.4.
    truth = np.array([True, False, True, True])
    assert events.best_threshold(np.array([0.3, 0.4, 0.6, 0.7]), truth) <= 0.3
    # ... but not at the price of ten.
    scores, truth = np.r_[0.3, 0.6, 0.7, np.full(10, 0.4)], np.r_[True, True, True, np.zeros(10, dtype=bool)]
    assert 0.4 < events.best_threshold(scores, truth) <= 0.6
    with pytest.raises(ValueError, match="no event is there"):
        events.best_threshold(scores, np.zeros(13, dtype=bool))


def test_thresholds_are_exact_in_half_precision():
    assert np.array_equal(events.GRID.astype(np.float16).astype(float), events.GRID)


def test_events_by_their_labels():
    assert events.indices([["Bell", "Rain"], []], LABELS) == [[2, 0], []]
    assert events.present([[2, 0], []], 3).tolist() == [[True, False, True], [False] * 3]
    with pytest.raises(ValueError, match="does not know Frog, Wind; train one"):
        events.indices([["Wind", "Rain"], ["Frog"]], LABELS)
    with pytest.raises(ValueError, match=r"twice in 1 scenes, first \['Rain', 'Bell', 'Rain'\]"):
        events.indices([["Rain"], ["Rain", "Bell", "Rain"]], LABELS)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 8, 3\) and thresholds \(2,\)"):
        events.detected(frames(), HALF[:2])
    with pytest.raises(ValueError, match="1 clips but the events of 2 scenes"):
        events.order_accuracy(frames(), HALF, [[0], [1]])
