"""Selection: who is taken and why, relaxation, caps, cost."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from foleylib.sampling import selection

DIM = 16


def rules(**changes):
    """The section `selection` as far as `select` reads it."""
    return SimpleNamespace(
        **{"duplicate": 0.99, "cap": 8, "relax_after": 3, "relax_by": 0.05, "best_of": {}, **changes}
    )


def scored(scores, seed=0):
    """Unit rows (N, DIM) whose similarity to the first axis is `scores`, in random directions otherwise."""
    scores = np.asarray(scores, dtype=float)
    rest = np.random.default_rng(seed).normal(size=(len(scores), DIM - 1))
    rest *= np.sqrt(1 - scores[:, None] ** 2) / np.linalg.norm(rest, axis=1, keepdims=True)
    return np.concatenate([scores[:, None], rest], axis=1)


class Source:
    """`draw` from fixed candidates {class: (N, DIM)}, which keeps the requests that it was given."""

    def __init__(self, pool):
        self.pool, self.requests = pool, []

    def __call__(self, requests):
        self.requests.append(requests)
        return {label: self.pool[label][first : first + count] for label, (first, count) in requests.items()}


AXIS = np.eye(1, DIM)


def select_rain(E, wanted, threshold, **changes):
    """(Selected, Source) of one class with its target on the first axis."""
    source = Source({"Rain": E})
    result = selection.select(source, wanted, {"Rain": threshold}, {"Rain": AXIS}, settings=rules(**changes), seed=0)
    return result, source


def taken(result):
    return result.candidates.number[result.candidates.accepted].tolist()


def test_first_clips_to_reach_the_threshold_are_taken():
    result, source = select_rain(scored([0.1, 0.5, 0.3, 0.2, 0.6, 0.7, 0.9, 0.0]), 3, 0.4)
    assert source.requests == [{"Rain": (0, 3)}, {"Rain": (3, 3)}]
    assert taken(result) == [1, 4, 5]
    columns = ["label", "number", "score", "threshold", "target", "accepted", "reason", "tries"]
    assert list(result.candidates.columns) == columns
    assert result.candidates.tries.tolist() == [pd.NA, 2, pd.NA, pd.NA, 3, 1]
    assert result.accepted.number.tolist() == [1, 4, 5] and result.accepted.index.tolist() == [0, 1, 2]
    assert result.candidates.score.tolist() == pytest.approx([0.1, 0.5, 0.3, 0.2, 0.6, 0.7])
    numbers = {"label": "Rain", "wanted": 3, "accepted": 3, "candidates": 6, "acceptance": 0.5}
    numbers |= {"threshold_first": 0.4, "threshold_last": 0.4, "short": False}
    assert result.report.to_dict("records") == [numbers]
    assert selection.sentence(result.report) == ""


def test_no_filter_takes_the_first_clips_at_once():
    result, source = select_rain(scored([-1.0, -0.5, 0.0, 0.5]), 4, selection.NO_FILTER)
    assert taken(result) == [0, 1, 2, 3] and len(source.requests) == 1


def test_embeddings_and_targets_need_not_be_of_unit_length():
    E = scored(np.linspace(-0.5, 0.5, 12))
    plain = select_rain(E, 3, 0.1)[0].candidates
    source = Source({"Rain": (7 * E).astype(np.float32)})
    long = selection.select(source, 3, {"Rain": 0.1}, {"Rain": 0.2 * AXIS}, settings=rules(), seed=0).candidates
    assert long.reason.equals(plain.reason)
    assert np.allclose(long.score, plain.score, atol=1e-6)


def test_later_rounds_draw_what_is_missing_over_the_share_that_passed():
    scores = np.array([0.0] * 15 + [1.0] * 5 + [0.0] * 20 + [1.0] * 20)
    _, source = select_rain(scored(0.9 * scores), 20, 0.5, duplicate=2.0)
    # 5 of 20 pass: 15 are missing, 60 would be asked for, the first round is the most; then 15 of 40, 5 missing: 14.
    assert source.requests[:2] == [{"Rain": (0, 20)}, {"Rain": (20, 20)}]
    result, source = select_rain(scored(0.9 * np.array([1] * 9 + [0] * 6 + [1] * 20)), 10, 0.5, duplicate=2.0)
    # 9 of 10 pass: ceil(10 / 9) = 2, that fails: twice ceil(12 / 9 * 2) = 3, which fails: ceil(15 / 9 * 3) = 5.
    assert source.requests == [{"Rain": r} for r in [(0, 10), (10, 2), (12, 3), (15, 5)]]
    assert result.candidates.reason.tolist().count("surplus") == 4 and result.report.accepted.item() == 10


def test_full_classes_are_not_drawn_again():
    source = Source({"Rain": scored([0.9] * 4, 1), "DogBark": scored([0.1, 0.9, 0.9, 0.9], 2)})
    thresholds, targets = {"DogBark": 0.5, "Rain": 0.5}, {"DogBark": AXIS, "Rain": AXIS}
    result = selection.select(source, 2, thresholds, targets, settings=rules(), seed=0)
    assert source.requests == [{"DogBark": (0, 2), "Rain": (0, 2)}, {"DogBark": (2, 2)}]
    assert result.report.label.tolist() == ["DogBark", "Rain"] and result.report.candidates.tolist() == [4, 2]
    assert result.candidates.groupby("label").number.apply(list).tolist() == [[0, 1, 2, 3], [0, 1]]


def test_near_duplicates_are_left_out_and_named():
    E = scored([0.9, 0.8, 0.9, 0.85, 0.7])
    E[2], E[3] = E[0], -E[1]
    result, _ = select_rain(E, 3, 0.5, cap=2)
    assert result.candidates.reason.tolist() == ["passed", "passed", "near duplicate", "below threshold", "passed"]
    result, _ = select_rain(E[:3], 3, 0.5, duplicate=1.01, cap=1)
    assert taken(result) == [0, 1, 2]


def test_a_clip_below_the_threshold_makes_no_duplicates():
    E = scored([0.1, 0.9, 0.9])
    E[0] = [0.499, *E[1, 1:] * np.sqrt(1 - 0.499**2) / np.linalg.norm(E[1, 1:])]
    E[1] = [0.501, *E[1, 1:] * np.sqrt(1 - 0.501**2) / np.linalg.norm(E[1, 1:])]
    assert E[0] @ E[1] > 0.999
    assert select_rain(E, 1, 0.5)[0].candidates.reason.tolist() == ["below threshold", "passed"]


def test_relaxation_looks_again_best_first():
    scores = [0.42, 0.455, 0.1, 0.46, 0.48, 0.2]
    result, source = select_rain(scored(scores), 2, 0.5, relax_after=3, relax_by=0.05, cap=9)
    assert len(source.requests) == 3
    assert taken(result) == [3, 4]
    table = result.candidates
    below = "below threshold"
    assert table.reason.tolist() == [below, "surplus", below, "passed", "passed", below]
    assert table.threshold.tolist() == [0.5, 0.45, 0.5, 0.45, 0.45, 0.5]
    assert table.tries[[4, 3]].tolist() == [6, 0]
    assert result.report.threshold_first.item() == 0.5 and result.report.threshold_last.item() == 0.45


def test_best_of_a_group_alone_may_pass():
    scores = [0.5, 0.6, 0.1, 0.2, 0.7, 0.8, 0.3, 0.1, 0.2]
    result, source = select_rain(scored(scores), 2, 0.4, best_of={"Rain": 3, "DogBark": 10})
    assert source.requests == [{"Rain": (0, 6)}] and taken(result) == [1, 5]
    reasons = result.candidates.reason.tolist()
    assert reasons == [selection.BEATEN, "passed", *[selection.BEATEN] * 3, "passed"]
    assert result.accepted.tries.tolist() == [3, 3]


def test_groups_are_drawn_whole_until_the_cap():
    result, source = select_rain(scored([0.5] + [0.1] * 20), 2, 0.4, best_of={"Rain": 3}, cap=5, relax_by=0.0)
    assert [count for request in source.requests for _, count in request.values()] == [6, 3]
    assert taken(result) == [0] and len(result.candidates) == 9 and result.report.short.item()
    relaxed, _ = select_rain(
        scored([0.3, 0.35, 0.1] * 4), 1, 0.4, best_of={"Rain": 3}, relax_after=1, relax_by=0.1, cap=9
    )
    assert taken(relaxed) == [1] and relaxed.accepted.threshold.item() == pytest.approx(0.3)


def test_relaxation_keeps_near_duplicates_out():
    E = scored([0.46, 0.46, 0.2, 0.1, 0.3, 0.0, 0.47, 0.4])
    E[1] = E[0]
    result, _ = select_rain(E, 2, 0.5, relax_after=2, cap=4)
    assert result.candidates.reason[:2].tolist() == ["passed", "near duplicate"]
    assert taken(result) == [0, 6]


def test_a_round_with_a_clip_ends_the_run_of_failures():
    scores = [0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1]
    result, _ = select_rain(scored(scores), 2, 0.5, relax_after=3, cap=3)
    assert result.report.threshold_last.item() == 0.5  # one failure, a clip, one failure, cap
    result, _ = select_rain(scored(scores), 2, 0.5, relax_after=1, cap=3)
    assert result.report.threshold_last.item() == 0.4


def test_threshold_falls_again_and_never_below_no_filter():
    result, _ = select_rain(scored([-0.95] * 6), 1, 0.9, relax_after=1, relax_by=0.7, cap=9)
    assert result.report.threshold_last.item() == -1 and taken(result) == [0]
    assert result.report.candidates.item() == 3


def test_each_fall_takes_its_own_run_of_failures():
    result, _ = select_rain(scored([-0.9] * 7), 1, 0.5, relax_after=2, cap=7)
    assert result.report.threshold_last.item() == pytest.approx(0.35)  # after rounds 2, 4 and 6


def test_cap_stops_the_draws_and_the_sentence_says_so():
    result, source = select_rain(scored([0.9] + [0.0] * 20), 3, 0.5, cap=4, relax_by=0.0)
    assert result.report.candidates.item() == 12 == sum(count for r in source.requests for _, count in r.values())
    assert result.report.short.item() and result.report.acceptance.item() == pytest.approx(1 / 12)
    assert selection.sentence(result.report) == (
        "selection: Rain has 1 of 3 clips after 12 candidates; lower its threshold or raise selection.cap"
    )


def test_sentence_names_every_short_class_and_no_other():
    report = pd.DataFrame(
        [("Rain", 30, 12, 240, True), ("DogBark", 30, 30, 40, False), ("Keyboard", 30, 0, 240, True)],
        columns=["label", "wanted", "accepted", "candidates", "short"],
    )
    assert selection.sentence(report) == (
        "selection: Rain has 12 of 30 clips after 240 candidates, Keyboard has 0 of 30 clips after 240 candidates; "
        "lower their thresholds or raise selection.cap"
    )


def test_targets_are_drawn_by_class_and_number_and_not_by_round():
    targets = {"Rain": np.eye(5, DIM), "DogBark": np.eye(5, DIM)}
    E = np.abs(np.random.default_rng(3).normal(size=(60, DIM)))
    pool, thresholds = {"Rain": E, "DogBark": E}, {"Rain": 0.2, "DogBark": 0.2}
    few, many = (
        selection.select(Source(pool), n, thresholds, targets, settings=rules(), seed=4).candidates for n in (3, 9)
    )
    both = few.merge(many, on=["label", "number"])
    assert len(both) == len(few) and (both.target_x == both.target_y).all()
    unit = E / np.linalg.norm(E, axis=1, keepdims=True)
    assert np.allclose(many.score, [unit[n] @ np.eye(5, DIM)[t] for n, t in zip(many.number, many.target)])
    rain, dog = (many[many.label == c].set_index("number").target for c in thresholds)
    assert rain.nunique() > 1 and (rain != dog[dog.index.isin(rain.index)].reindex(rain.index)).any()
    other = selection.select(Source(pool), 9, thresholds, targets, settings=rules(), seed=5).candidates
    assert other.target.tolist()[:10] != many.target.tolist()[:10]


def test_targets_are_drawn_evenly():
    index, _ = selection.scores_of("Rain", np.ones((2000, 2)), np.ones((4, 2)), seed=0)
    counts = np.bincount(index, minlength=4)
    assert counts.min() > 430 and counts.max() < 570  # 500, standard deviation 19


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-1, 1), min_size=48, max_size=48),
    wanted=st.integers(1, 6),
    cap=st.integers(1, 8),
    threshold=st.floats(-1, 1),
    duplicate=st.floats(0.3, 1.0),
    relax_after=st.integers(1, 4),
    relax_by=st.floats(0, 0.3),
)
def test_whatever_is_drawn_the_promises_hold(scores, wanted, cap, threshold, duplicate, relax_after, relax_by):
    E, knobs = scored(scores), {"duplicate": duplicate, "cap": cap, "relax_after": relax_after, "relax_by": relax_by}
    result, source = select_rain(E, wanted, threshold, **knobs)
    table, report, numbers = result.candidates, result.report.iloc[0], taken(result)
    assert len(numbers) == report.accepted <= wanted and len(table) == report.candidates <= cap * wanted
    assert table.number.tolist() == list(range(len(table)))
    assert report.short == (len(numbers) < wanted) == bool(selection.sentence(result.report))
    assert len(numbers) == wanted or len(table) == cap * wanted
    assert (table.score[table.accepted] >= table.threshold[table.accepted]).all()
    assert (table.threshold >= report.threshold_last).all() and report.threshold_last >= -1
    similar = E[numbers] @ E[numbers].T - 2 * np.eye(len(numbers))
    assert not numbers or similar.max() < duplicate + 1e-9
    assert (table.accepted == (table.reason == "passed")).all() and table.tries.sum() <= len(table)
    assert all(count <= wanted for r in source.requests for _, count in r.values())
    assert select_rain(E, wanted, threshold, **knobs)[0].candidates.equals(table)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.floats(-1, 1), min_size=40, max_size=40),
    wanted=st.integers(1, 5),
    threshold=st.floats(-1, 1),
    duplicate=st.floats(0.3, 1.0),
    sizes=st.lists(st.integers(1, 9), min_size=40, max_size=40),
)
def test_size_of_the_rounds_changes_no_decision(scores, wanted, threshold, duplicate, sizes):
    E = scored(scores)
    pool = selection.Pool("Rain", wanted, threshold, AXIS, rules(duplicate=duplicate, relax_by=0.0), 0)
    for size in sizes:
        part = E[len(pool.rows) :][:size]
        if len(part) and len(pool.taken) < wanted:
            pool.add(part)
    result, _ = select_rain(E, wanted, threshold, duplicate=duplicate, relax_by=0.0, cap=40 // wanted)
    reached = len(result.candidates)
    assert [n for n in pool.taken if n < reached] == taken(result)


def test_targets_of_highest_mean_similarity():
    angles = np.array([0.0, 0.1, 0.2, 1.5, 3.0])
    E = np.stack([np.cos(angles), np.sin(angles)], 1)
    mean = (E @ E.T - np.eye(5)).sum(0) / 4
    order = np.argsort(-mean)
    result = selection.multi_targets(3 * E, 3)
    assert np.allclose(result, E[order[:3]]) and 4 not in order[:3]
    assert np.allclose(selection.multi_targets(E, 5), E[order])


def test_economics_by_class_and_in_total():
    report = pd.DataFrame(
        {"label": ["Rain", "DogBark", "Keyboard"], "accepted": [10, 20, 0], "candidates": [40, 30, 20]}
    )
    costs = ["accepted", "candidates", "candidates_per_clip", "seconds", "seconds_per_clip"]
    result = selection.economics(report, 0.5).set_index("label")
    assert list(result.columns) == costs
    assert result.loc["Rain", costs].tolist() == [10, 40, 4, 20, 2]
    assert np.isinf(result.seconds_per_clip["Keyboard"]) and np.isinf(result.candidates_per_clip["Keyboard"])
    assert result.loc["all", costs].tolist() == [30, 90, 3, 45, 1.5]


def run_select(draw, thresholds=None, targets=None):
    thresholds, targets = thresholds or {"Rain": 0.5}, targets or {"Rain": AXIS}
    return selection.select(draw, 2, thresholds, targets, settings=rules(), seed=0)


E = scored(np.linspace(-0.9, 0.9, 8))


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: run_select(Source({}), thresholds={"Rain": np.nan}), "no cosine similarity"),
        (lambda: run_select(Source({}), targets={"DogBark": AXIS}), "targets has no Rain, only DogBark"),
        (lambda: run_select(Source({}), targets={"Rain": AXIS[0]}), r"targets of Rain: shape \(16,\)"),
        (lambda: run_select(Source({}), targets={"Rain": 0 * AXIS}), "targets of Rain: an embedding is 0"),
        (lambda: run_select(lambda requests: {}), "no 2 embeddings of Rain"),
        (lambda: run_select(Source({"Rain": E[:1]})), "no 2 embeddings of Rain"),
        (lambda: run_select(Source({"Rain": E * np.nan})), "draw of Rain: an embedding is 0 or not finite"),
        (lambda: run_select(Source({"Rain": E[:, :4]})), "Rain: embeddings have 4 columns, targets 16"),
        (lambda: selection.multi_targets(E, 9), "k=9 of 8"),
        (lambda: selection.multi_targets(E, 0), "k=0 of 8"),
        (lambda: selection.multi_targets(E[:1], 1), "at least 2 clips"),
    ],
)
def test_bad_input_stops_with_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
