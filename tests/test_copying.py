"""How near clips are to their neighbours, and whose neighbours are another's."""

import numpy as np
import pytest

from foleylib.evaluation import copying


def test_nearest_is_the_cosine_to_the_nearest_neighbour_there_is():
    clips = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [1.0, 0.0]])
    neighbours = np.array([[[0, 5], [4, 4]], [[0, 7], [1, 0]], [[-1, -1], [1, 1]], [[1, 0], [1, 0]]], dtype=float)
    mask = np.array([[True, True], [True, False], [True, False], [False, False]])
    found = copying.nearest(clips, neighbours, mask)
    assert found[:3] == pytest.approx([np.sqrt(0.5), 1.0, -1.0]) and np.isnan(found[3])
    everywhere = copying.nearest(clips, neighbours, np.ones((4, 2), dtype=bool))
    assert everywhere == pytest.approx([np.sqrt(0.5), 1.0, 1.0, 1.0])
    assert copying.nearest(5 * clips, 0.1 * neighbours, mask)[:3] == pytest.approx(found[:3])  # not the level


def test_a_clip_of_zeros_is_near_to_nothing():
    assert copying.nearest(np.zeros((1, 2)), np.ones((1, 1, 2)), np.ones((1, 1), dtype=bool)).tolist() == [0.0]


def test_half_precision_does_not_overflow():
    rows = (300 * np.random.default_rng(0).normal(size=(5, 8))).astype(np.float16)
    found = copying.nearest(rows, rows[:, None], np.ones((5, 1), dtype=bool))
    assert found == pytest.approx(1) and found.dtype == np.float32


@pytest.mark.parametrize(
    ("clips", "neighbours", "mask"),
    [((2, 3), (2, 4, 5), (2, 4)), ((2, 3), (3, 4, 3), (3, 4)), ((2, 3), (2, 3), (2, 4)), ((2, 3), (2, 4, 3), (2, 5))],
)
def test_shapes_that_do_not_fit_are_told(clips, neighbours, mask):
    with pytest.raises(ValueError, match=r"clips \(2, 3\), neighbours .* give \(N, D\), \(N, K, D\) and \(N, K\)"):
        copying.nearest(np.ones(clips), np.ones(neighbours), np.ones(mask, dtype=bool))


def test_the_cosine_of_centred_log_mels_is_their_correlation():
    rng = np.random.default_rng(0)
    one, other = rng.normal(-5, 2, (2, 4, 6, 3)).astype(np.float32)
    cosine = copying.nearest(copying.centred(one), copying.centred(other)[:, None], np.ones((4, 1), dtype=bool))
    assert cosine == pytest.approx([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other)])
    assert copying.centred(one).shape == (4, 18) and np.abs(copying.centred(one).sum(1)).max() < 1e-9


def test_strangers_are_half_the_clips_away_where_no_neighbour_is_shared():
    assert copying.strangers(np.arange(12).reshape(6, 2)).tolist() == [3, 4, 5, 0, 1, 2]
    assert copying.strangers(np.arange(10).reshape(5, 2)).tolist() == [2, 3, 4, 0, 1]
    assert copying.strangers(np.array([[1], [2]])).tolist() == [1, 0]


def test_strangers_share_as_little_as_can_be():
    rows = np.array([[1, 2], [3, 4], [2, 5], [6, -1], [7, -1]])
    assert copying.strangers(rows).tolist() == [3, 3, 4, 0, 1]  # the first is not given to the third, nor back
    assert copying.strangers(np.array([[1, 2], [2, 1], [1, 3]])).tolist() == [2, 2, 0]
    assert copying.strangers(np.full((3, 2), -1)).tolist() == [1, 2, 0]  # no neighbour at all is none that is shared
    with pytest.raises(ValueError, match="1 clips: give at least 2"):
        copying.strangers(np.array([[1, 2]]))
