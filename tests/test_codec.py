"""The stage codec: real clips through VAE and vocoder, beside Griffin-Lim and other real clips."""

import numpy as np
import pandas as pd
import pytest
import torch

from foleylib import paths
from foleylib.stages import codec


@pytest.fixture(scope="module")
def scores(project, tiny):
    return codec.make(tiny.changed(foundation=tiny.foundation.changed(corpus="foley")))


def test_rows_and_columns(scores):
    ways = [(clips, name) for clips in ("real mels", "through the VAE") for name in ("HiFi-GAN", "Griffin-Lim")]
    rows = list(scores.loc["foley"].index)
    assert rows[0] == ("real", "–") and rows[5:] == ways
    assert all(name.startswith("real, ") and vocoder == "–" for name, vocoder in rows[1:5])
    embedded = {f"{score}, {name}" for score in ("kad", "coverage") for name in ("judge", "clap")}
    assert set(scores) == {"mel", "stft", "accuracy, judge"} | embedded
    assert scores.loc["foley"].iloc[5:].notna().all(axis=None)
    assert scores.loc[("foley", "real")][["mel", "stft"]].isna().all(axis=None)
    written = pd.read_csv(paths.RESULTS / "codec.csv")
    np.testing.assert_allclose(written["kad, clap"], scores["kad, clap"], rtol=1e-4)


def test_slight_disturbances_are_slight():
    t = torch.arange(16000) / 16000
    waves = 0.5 * torch.stack([torch.sin(2 * torch.pi * f * t) for f in (440.0, 3000.0)])
    found = codec.slightly_disturbed(waves, 16000, seed=0)
    assert {name: clips.shape for name, clips in found.items()} == dict.fromkeys(found, waves.shape)
    distance = {name: float((clips - waves).std()) for name, clips in found.items()}
    assert distance["real, noise at -60 dB"] == pytest.approx(1e-3, rel=0.05)
    assert distance["real, by way of 22.05 kHz"] < 0.02 and distance["real, another microphone"] > 0.005
    assert torch.equal(2 * found["real, half as loud"], waves)


def test_an_untrained_vocoder_loses_to_griffin_lim(scores):
    """And an untrained VAE leaves nothing to either."""
    rows = scores.loc["foley"]
    for score in ("mel", "stft", "kad, clap"):
        assert rows.loc[("real mels", "Griffin-Lim"), score] < rows.loc[("real mels", "HiFi-GAN"), score]
        assert rows.loc[("real mels", "Griffin-Lim"), score] < rows.loc[("through the VAE", "Griffin-Lim"), score]


def test_real_clips_cover_one_another(scores):
    assert scores.loc[("foley", "real"), "coverage, clap"].item() > 0.4
    assert scores.loc[("foley", "real"), "coverage, judge"].item() > 0.4
