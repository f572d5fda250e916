"""What the page of re-audioldm shows of results, in closed forms; the experiments themselves run in the smoke graph."""

import numpy as np
import pandas as pd
import pytest

from foleylib.papers import re_audioldm_pages as pages
from foleylib.params.retrieval import Read


@pytest.fixture
def experiment(tiny):
    models = {"none": None, "both": Read(), "audio": Read(text=False), "both_10": Read(k=10)}
    return tiny.re_audioldm.model_copy(update={"models": models, "seeds": [0, 1, 2], "captions": 2})


def table(values, *, metric="clap_score", embedder="clap", variant="own", caption=0):
    """Rows of scores: {model: value of each seed}."""
    keys = ["model", "variant", "caption", "seed", "metric", "embedder", "value"]
    rows = [
        (model, variant, caption, seed, metric, embedder, value)
        for model, own in values.items()
        for seed, value in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=keys)


def test_models_are_named_by_what_they_read(experiment):
    shown = pages.display(experiment)
    assert shown["none"].name == "No retrieval" and shown["audio"].name == "Audio, K = 3"
    assert shown["both_10"].name == "Audio + text, K = 10"
    assert len({shown[name].colour for name in experiment.models}) == len(experiment.models)
    assert {"real", "codec", "off", "swapped", "full", "published"} <= set(shown)


def test_numbers_are_of_models_that_differ_in_k_alone(experiment):
    scores = table({"none": [1], "both": [2], "audio": [9], "both_10": [3]})
    found = pages.numbers(scores, experiment)
    assert found[["k", "value"]].to_numpy().tolist() == [[0, 1], [3, 2], [10, 3]]


def test_groups_have_every_caption_of_the_first_seed(experiment):
    scores = pd.concat([table({"none": [1, 5], "audio": [4]}), table({"none": [2, 6]}, caption=1)])
    found = pages.groups(scores, experiment)
    assert found[["model", "caption", "value"]].to_numpy().tolist() == [["none", 1, 1], ["none", 2, 2]]


def test_probes_stand_in_for_models(experiment):
    scores = pd.concat([table({"both": [1], "none": [7]}), table({"both": [2]}, variant="swapped")])
    found = pages.probes(scores, "both")
    assert dict(zip(found.model, found.value)) == {"both": 1, "swapped": 2}


def test_names_of_buckets():
    assert pages.bucket_names([0, 1, 100]) == ["0", "1 to 99", "100 and more"]
    assert pages.bucket_names([0, 10]) == ["0 to 9", "10 and more"]


def classes(model, seed, clap, variant="own"):
    """Rows of three classes: one that was never trained on, two rare ones with one and three clips, one frequent."""
    rows = [("A", 0, 2, clap[0]), ("B", 5, 1, clap[1]), ("C", 9, 3, clap[2]), ("D", 50, 4, clap[3])]
    frame = pd.DataFrame(rows, columns=["label", "trained", "clips", "clap_score"])
    return frame.assign(event_recall=1.0, model=model, variant=variant, caption=0, seed=seed)


def test_buckets_weight_classes_by_their_clips():
    found = pages.buckets(classes("none", 0, [0.1, 0.0, 0.4, 0.5]), [0, 1, 10])
    found = found[found.metric == "clap_score"].set_index("bucket")
    assert list(found.index) == ["0", "1 to 9", "10 and more"]
    assert found.value.tolist() == pytest.approx([0.1, 0.3, 0.5]) and found.clips.tolist() == [2, 4, 4]


def test_gains_are_paired_by_seed():
    frames = []
    for seed, shift in enumerate([0.0, 0.2, 0.4]):  # seeds differ much, the gain little
        frames.append(classes("none", seed, np.array([0.1, 0.1, 0.1, 0.1]) + shift))
        frames.append(classes("both", seed, np.array([0.4, 0.2, 0.2, 0.1]) + shift))
    found = pages.buckets(pd.concat(frames), [0, 1, 10])
    gains = pages.gain_by_bucket(found, "both", "none")
    gains = gains[gains.metric == "clap_score"]
    assert gains["mean"].tolist() == pytest.approx([0.3, 0.1, 0.0]) and gains.seeds.tolist() == [3] * 3
    assert gains.low.tolist() == pytest.approx([0.3, 0.1, 0.0])  # no spread is left
    more = pages.tail_against_head(found, "both", "none", "clap_score")
    assert more["mean"] == pytest.approx(0.3) and more.low == pytest.approx(0.3)
    sentence = pages.sentence_on_tail(found, "both", "none")
    assert (
        "more in CLAP score (+0.300 [+0.300, +0.300]" in sentence
        and "neither more nor less in Event recall" in sentence
    )
    shown = pages.gains_table(found, "both", "none")
    assert list(shown.index) == ["0", "1 to 9", "10 and more"] and "+0.300 [+0.300, +0.300]" in set(shown.iloc[0])


def test_copying_is_told_beside_real_clips(experiment):
    experiment = experiment.model_copy(update={"baseline": "none", "probed": "both"})
    values = {"both": [0.6], "none": [0.4], "real": [0.5]}
    scores = pd.concat([table(values, metric=m, embedder=e) for m, e in pages.NEAREST.items()])
    assert "0.600 with retrieval, 0.400 without, 0.500 of real clips" in pages.sentence_on_copying(scores, experiment)
