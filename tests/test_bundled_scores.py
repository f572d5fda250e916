"""A few committed clips under the bundled networks: every machine that runs this shows whether it measures the same.

``./run python tests/test_bundled_scores.py`` writes the scores anew, after a change of the bundle.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from foleylib.corpora.synth import captions
from foleylib.evaluation.embeddings import embed_clips
from foleylib.evaluation.scores import score
from foleylib.networks import clap, judge
from foleylib.params import settings
from foleylib.stages import bundle

CLIPS = Path(__file__).parent / "golden" / "clips"  # SET/LABEL-NUMBER.flac at 16 kHz; the sets are real and generated
SCORES = CLIPS / "scores.csv"


def measured(folder: Path) -> pd.DataFrame:
    """Every score of the generated clips against the real ones, by networks that are unpacked to `folder`."""
    cfg = settings.load()
    for part, section in (("judge", cfg.judge), ("clap", cfg.foundation.clap)):
        bundle.copy_bundled(part, section, part, cfg.corpus_of("foundation"), folder / part)
    networks, sets = {"judge": judge.load(folder / "judge"), "clap": clap.load(folder / "clap")}, {}
    for name in ("real", "generated"):
        files = sorted((CLIPS / name).glob("*.flac"))
        labels = [file.stem.split("-")[0] for file in files]
        waves = np.stack([soundfile.read(file, dtype="float32")[0] for file in files])
        sets[name] = embed_clips(waves, labels, [captions.prompt(label) for label in labels], **networks, rate=16000)
    options = {"judge_labels": networks["judge"].model.labels, "settings": cfg.evaluate}
    rows = pd.DataFrame(score(sets["real"], sets["generated"], **options))
    return rows[["class", "metric", "embedder", "value"]]


def test_scores_are_the_same_on_every_machine(tmp_path):
    scores, expected = measured(tmp_path), pd.read_csv(SCORES, dtype={"embedder": str})
    assert scores.iloc[:, :3].equals(expected.iloc[:, :3])
    np.testing.assert_allclose(scores.value, expected.value, rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        measured(Path(folder)).to_csv(SCORES, index=False, float_format="%.8g")
