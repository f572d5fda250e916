"""The stage codec: real clips through VAE and vocoder, beside Griffin-Lim and other real clips."""

import numpy as np
import pandas as pd
import pytest

from foleylib import paths
from foleylib.stages import codec


@pytest.fixture(scope="module")
def scores(project, tiny):
    return codec.make(tiny.changed(foundation=tiny.foundation.changed(corpus="foley")))


def test_rows_and_columns(scores):
    ways = [(clips, name) for clips in ("real mels", "through the VAE") for name in ("HiFi-GAN", "Griffin-Lim")]
    assert list(scores.loc["foley"].index) == [("real", "–"), *ways]
    embedded = {f"{score}, {name}" for score in ("kad", "coverage") for name in ("judge", "clap")}
    assert set(scores) == {"mel", "stft", "accuracy, judge"} | embedded
    assert scores.drop(index="real", level="clips").notna().all(axis=None)
    assert scores.loc[("foley", "real")][["mel", "stft"]].isna().all(axis=None)
    written = pd.read_csv(paths.RESULTS / "codec.csv")
    np.testing.assert_allclose(written["kad, clap"], scores["kad, clap"], rtol=1e-4)


def test_an_untrained_vocoder_loses_to_griffin_lim(scores):
    """And an untrained VAE leaves nothing to either."""
    rows = scores.loc["foley"]
    for score in ("mel", "stft", "kad, clap"):
        assert rows.loc[("real mels", "Griffin-Lim"), score] < rows.loc[("real mels", "HiFi-GAN"), score]
        assert rows.loc[("real mels", "Griffin-Lim"), score] < rows.loc[("through the VAE", "Griffin-Lim"), score]


def test_real_clips_cover_one_another(scores):
    assert scores.loc[("foley", "real"), "coverage, clap"].item() > 0.4
    assert scores.loc[("foley", "real"), "coverage, judge"].item() > 0.4
