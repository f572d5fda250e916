"""The stages thresholds and selection: numbered candidates, their targets, and the clips that pass."""

import numpy as np
import pandas as pd
import pytest

from foleylib import paths
from foleylib.datasets import features, samples
from foleylib.papers import pages
from foleylib.runtime import write_json
from foleylib.sampling.thresholds import nearest_of_class
from foleylib.stages import selection, thresholds
from foleylib.stages.candidates import calibrated, candidates_of, targets_of
from foleylib.stages.sample import Drawer, load_clap, load_run

LABELS = ["DogBark", "Rain"]


@pytest.fixture(scope="module")
def clap(project, tiny):
    return load_clap(tiny)


@pytest.fixture(scope="module")
def calibration(project, tiny):
    return thresholds.make(tiny)


def test_candidates_are_numbered_clips(project, tiny, clap):
    """The first are those of the run, whatever else is asked for; given ones are not drawn again."""
    folder, (clips, waves) = paths.SYSTEMS / "ldm" / "1", load_run("ldm", 1)
    candidates = candidates_of(Drawer(folder, tiny, clap=clap), 1, tiny)
    candidates.waves["Rain", 0] = waves[0]
    embeddings = candidates({"DogBark": (1, 2), "Rain": (0, 1)})
    assert {label: E.shape for label, E in embeddings.items()} == {"DogBark": (2, 48), "Rain": (1, 48)}
    assert set(candidates.waves) == {("DogBark", 1), ("DogBark", 2), ("Rain", 0)}
    for number in (1, 2):
        drawn, before = candidates.waves["DogBark", number], waves[number]
        assert np.abs(drawn - before).max() < 0.01  # Griffin-Lim enlarges what another batch rounds otherwise
    assert np.array_equal(candidates.waves["Rain", 0], waves[0])
    assert candidates.rows([("DogBark", 2)]).seed.item() == clips.seed[2]
    np.testing.assert_allclose(embeddings["Rain"], clap.embed_audio(waves[:1], 16000).cpu(), atol=1e-6)


def test_thresholds_are_written_with_their_curves(calibration, tiny):
    result, curve = calibration
    assert list(result) == ["text", "tuned"] and all(list(result[kind]) == LABELS for kind in result)
    assert calibrated("text") == result["text"] and calibrated("audio") is None
    assert list(curve.columns) == ["label", "share", "threshold", "fad", "n", "draws", "target"]
    assert curve.groupby(["target", "label"]).share.apply(list).tolist() == [[1.0, 0.5]] * 4
    best = curve.loc[curve.groupby(["target", "label"]).fad.idxmin()].set_index(["target", "label"]).threshold
    for kind, label in best.index:
        assert result[kind][label] == pytest.approx(best[kind, label], abs=1e-6)
    written = pd.read_csv(paths.RESULTS / "thresholds.csv")
    pd.testing.assert_frame_equal(written, curve, rtol=1e-5, check_dtype=False)


def test_nothing_is_calibrated_without_a_file(project, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    assert calibrated("text") is None
    write_json(tmp_path / "thresholds.json", {"text": {"Rain": 0.5}})
    assert calibrated("text") == {"Rain": 0.5} and calibrated("tuned") is None


def test_nearest_real_clips(project, tiny):
    nearest = thresholds.nearest_real_clips(tiny)
    index, arrays = features.load(paths.FEATURES / "foley", "train")
    assert (
        nearest.name == "nearest" and nearest.index.tolist() == index.label.tolist() == ["DogBark"] * 4 + ["Rain"] * 4
    )
    np.testing.assert_array_equal(nearest, nearest_of_class(arrays["audio"], index.label))


def test_selected_run(project, tiny, calibration):
    report = selection.make("tuning_filter", tiny)
    pd.testing.assert_frame_equal(report, pages.report_of("tuning_filter"), check_dtype=False)
    assert report.groupby("seed").label.apply(list).tolist() == [LABELS] * 2
    assert report.threshold_first.tolist() == [calibration[0]["tuned"][label] for label in LABELS] * 2
    wanted, folder = tiny.sampling.clips_per_class, paths.SAMPLES / "tuning_filter"
    assert samples.seeds(folder) == [0, 1]
    for seed in (0, 1):
        manifest, waves = samples.load(folder, seed)
        of_seed = report[report.seed == seed]
        assert len(waves) == of_seed.accepted.sum() and (of_seed.short == (of_seed.accepted < wanted)).all()
        assert list(manifest.columns) == [*samples.COLUMNS, "score", "threshold", "tries"]
        assert (manifest.score >= manifest.threshold - 1e-9).all() and manifest.tries.min() >= 1
        unselected, before = load_run("tuning", seed)
        same = manifest.id.isin(unselected.id)  # the first candidates are the clips of the unselected run
        assert np.array_equal(waves[same], before[unselected.id.isin(manifest.id)])
        table = pd.read_parquet(folder / str(seed) / "candidates.parquet")
        assert table.accepted.sum() == len(manifest) and len(table) <= 2 * wanted * tiny.selection.cap
        assert table.groupby("label").size().tolist() == of_seed.candidates.tolist()


def test_impossible_threshold_ends_at_the_cap(project, tiny):
    strict = tiny.selection.changed(thresholds={"DogBark": 1.0, "Rain": -1.0}, relax_by=0.0)
    report = selection.make("ldm_filter", tiny.changed(selection=strict)).set_index(["seed", "label"])
    assert report.short.loc[0, "DogBark"] and not report.short.loc[0, "Rain"]
    assert report.candidates.loc[0, "DogBark"] == tiny.sampling.clips_per_class * tiny.selection.cap
    strict = strict.changed(thresholds={"DogBark": 1.0, "Rain": 1.0})
    message = "ldm_filter: no candidate passed. selection: DogBark has 0 of 3 clips after 6 candidates, Rain has 0"
    with pytest.raises(ValueError, match=message):
        selection.make("ldm_filter", tiny.changed(selection=strict))
    assert not (paths.SAMPLES / "ldm_filter").exists()


def test_a_group_of_an_unknown_class_is_refused(project, tiny, calibration):
    changed = tiny.changed(selection=tiny.selection.changed(best_of={"Dogbark": 2}))
    with pytest.raises(ValueError, match=r"selection.best_of names \['Dogbark'\], which are none of DogBark, Rain"):
        selection.make("ldm_filter", changed)


def test_kinds_of_target(project, tiny, clap):
    folder = paths.SYSTEMS / "tuning" / "0"
    targets = {kind: targets_of(kind, folder, tiny, clap) for kind in ("text", "tuned", "audio")}
    assert targets["text"]["Rain"].shape == targets["tuned"]["Rain"].shape == (1, 48)
    assert targets["audio"]["Rain"].shape == (tiny.selection.targets, 48)
    assert not np.allclose(targets["text"]["Rain"], targets["tuned"]["Rain"], atol=1e-3)
    for rows in targets.values():
        np.testing.assert_allclose([np.linalg.norm(row) for E in rows.values() for row in E], 1, atol=1e-5)
    with pytest.raises(ValueError, match="ldm/0 has no tuning layer: a filter with target 'tuned' needs a system with"):
        targets_of("tuned", paths.SYSTEMS / "ldm" / "0", tiny, clap)


def test_unknown_selected_run_is_named(tiny):
    with pytest.raises(ValueError, match="filters in params.yaml has no 'ldm'; it has: ldm_filter, tuning_filter"):
        selection.make("ldm", tiny)
