"""A folder of one's own sounds, as README tells it: from the profile to the scores of models that were fine-tuned on it."""

import pandas as pd
import pytest
import yaml
from made_corpora import noise
from workspace import make_workspace, run

from foleylib.params import profiles
from foleylib.paths import ROOT


@pytest.fixture
def workspace(tmp_path):
    """A repository with profile `own`, of three classes of five sounds beside it, in the length of the smoke profile."""
    for label in ("WoodSaw", "baby_crying", "clock tick"):
        for i in range(5):
            noise(
                tmp_path / "my_sounds" / label / f"{label[:2]}{i}.flac",
                seconds=2.0,
                rate=44100,
                seed=10 * len(label) + i,
            )
    folder = make_workspace(tmp_path / "repository")
    profiles.apply("own", params=folder / "params.yaml")
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    settings["judge"]["train"] |= {"steps": 10, "validate_every": 10}
    settings["finetune"]["train"] |= {"steps": 4, "validate_every": 4}
    settings["sampling"]["clips_per_class"] = 3
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder


@pytest.mark.slow
def test_a_folder_of_sounds_becomes_scored_clips(workspace):
    run(workspace, "dvc", "repro", "evaluate")
    summary = pd.read_csv(workspace / "results" / "summary.csv")
    assert {"real", "ldm", "tuning"} <= set(summary.run)  # the smoke profile has no row of the foundation
    labels = {"WoodSaw", "baby_crying", "clock tick"}
    assert labels <= set(summary["class"]) and summary[summary.run == "ldm"].value.notna().any()
    clips = pd.read_parquet(workspace / "data" / "samples" / "ldm" / "0" / "manifest.parquet")
    assert set(clips.prompt) == {"wood saw", "baby crying", "clock tick"} and len(clips) == 9
    assert not (workspace / "models" / "foundation" / "ldm_large").exists()


def test_the_profile_is_the_one_that_the_readme_applies():
    text = (ROOT / "README.md").read_text()
    assert "./run python -m foleylib.params own" in text and "./run dvc repro evaluate" in text
    assert yaml.safe_load((ROOT / "params" / "own.yaml").read_text())["corpora"]["foley"]["kind"] == "folder"
