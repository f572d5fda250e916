"""Audit of corpora on clips with known faults."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from made_corpora import corpus
from scipy.signal import butter, sosfiltfilt

from foleylib.corpora import audit as auditing
from foleylib.corpora.audit import (
    _fingerprint,
    _near_duplicates,
    _power,
    audit,
    audit_problems,
    effective_bandwidth,
)
from foleylib.corpora.prepare import prepare

RATE = 16000
SIZE = 15360  # of a clip of 0.96 s
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def noises():
    return 0.1 * np.random.default_rng(5).standard_normal((4, SIZE))


@pytest.fixture(scope="module")
def audited(tmp_path_factory, noises):
    root = tmp_path_factory.mktemp("audit")
    burst = np.where(np.arange(SIZE) < 960, noises[2], 0.0)
    waves = {
        "test/copy": noises[0],
        "test/near": 0.5 * noises[1] + 1e-5,
        "train/burst": burst,
        "train/loud": np.clip(30 * noises[3], -1, 32767 / 32768),
        "train/one": noises[0],
        "train/silent": np.zeros(SIZE),
        "train/third": noises[0],
        "train/tone": 0.5 * np.sin(2 * np.pi * 1000 * np.arange(SIZE) / RATE),
        "train/two": noises[1],
    }
    (root / "in/x").mkdir(parents=True)
    lines = ["path,label,split"]
    for name, wave in waves.items():
        split, stem = name.split("/")
        soundfile.write(root / f"in/x/{stem}.wav", wave, RATE, subtype="PCM_16")
        lines.append(f"x/{stem}.wav,x,{split}")
    (root / "in/metadata.csv").write_text("\n".join(lines))
    prepare("faults", corpus("folder", root / "in", seconds=0.96, split_fractions=None), root / "out")
    return audit(root / "out").set_index("id")


def test_levels(audited):
    assert audited.rms_db["x-two"] == pytest.approx(-20, abs=0.2)
    assert audited.rms_db["x-silent"] == pytest.approx(-120) and audited.peak["x-silent"] == 0
    assert audited.silence_fraction["x-burst"] == pytest.approx(45 / 48)  # 3 of 48 frames hold the burst
    assert audited.clipped_fraction["x-loud"] == pytest.approx(0.74, abs=0.02)
    assert audited.clipped_fraction.drop("x-loud").max() == 0


def test_duplicates(audited):
    assert audited.duplicate_of["x-copy"] == "x-one" and audited.duplicate_kind["x-copy"] == "exact"
    assert audited.duplicate_of["x-third"] == "x-one" and audited.duplicate_kind["x-third"] == "exact"
    assert audited.duplicate_of["x-near"] == "x-two" and audited.duplicate_kind["x-near"] == "near"
    assert (audited.duplicate_of.drop(["x-copy", "x-third", "x-near"]) == "").all()


def test_problems(audited):
    problems = audit_problems(audited.reset_index()).set_index("problem")
    assert problems["count"].to_dict() == {
        "quiet": 1,
        "mostly silent": 2,
        "clipped": 1,
        "narrow band": 2,
        "exact duplicate in the same split": 1,
        "near duplicate in the same split": 0,
        "exact duplicate in another split": 1,
        "near duplicate in another split": 1,
    }
    assert problems.examples["exact duplicate in another split"] == ["x-copy"]


@pytest.mark.parametrize("cutoff", [1000, 4000])
def test_bandwidth_of_filtered_noise(noises, cutoff):
    wave = sosfiltfilt(butter(12, cutoff, output="sos", fs=RATE), noises[0])
    bandwidth = effective_bandwidth(_power(wave).mean(axis=0), RATE)
    assert cutoff < bandwidth < 1.5 * cutoff


def test_bandwidth_closed_forms(noises):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    assert effective_bandwidth(_power(tone).mean(axis=0), RATE) == pytest.approx(1000, abs=5 * RATE / 1024)
    assert effective_bandwidth(_power(noises[0]).mean(axis=0), RATE) == RATE / 2
    assert effective_bandwidth(_power(np.zeros(RATE)).mean(axis=0), RATE) == 0
    quiet = np.rint(sosfiltfilt(butter(12, 2000, output="sos", fs=RATE), noises[0]) / 500 * 32768) / 32768
    assert effective_bandwidth(_power(quiet).mean(axis=0), RATE) < 4000  # quantisation noise does not count


def test_power_of_white_noise_is_its_variance(noises):
    assert _power(noises[0])[:, 5:-5].mean() == pytest.approx(0.01, rel=0.1)


def test_near_duplicates_equal_brute_force():
    prints = np.array([_fingerprint(_power(RNG.standard_normal(4000))) for _ in range(60)])
    prints[40:] = prints[:20] + 1e-4 * RNG.standard_normal((20, 1024))
    prints /= np.linalg.norm(prints, axis=1, keepdims=True)
    splits = RNG.choice(["train", "test"], 60)
    near = _near_duplicates(prints.astype(np.float32), splits, np.arange(60))
    assert list(near) == [-1] * 40 + list(range(20))


def test_near_duplicates_prefer_another_split():
    prints = np.tile(_fingerprint(_power(RNG.standard_normal(4000))), (4, 1)).astype(np.float32)
    assert list(_near_duplicates(prints, np.array(["b", "a", "a", "b"]), np.arange(4))) == [-1, 0, 0, 1]
    assert list(_near_duplicates(prints, np.array(["b", "a", "a", "b"]), np.array([1, 2]))) == [-1, -1, 1, -1]


def test_near_duplicates_are_the_same_in_smaller_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    prints = np.array([_fingerprint(_power(rng.standard_normal(4000))) for _ in range(40)], dtype=np.float32)
    prints[25:] = prints[rng.integers(0, 25, 15)]
    splits, kept = rng.choice(["train", "test"], 40), np.flatnonzero(np.arange(40) % 7)
    whole = _near_duplicates(prints, splits, kept)
    monkeypatch.setattr(auditing, "BLOCK", 3)
    assert (whole >= 0).sum() > 5 and np.array_equal(_near_duplicates(prints, splits, kept), whole)
    assert (_near_duplicates(prints[:1], splits[:1], np.arange(1)) == -1).all()


def test_an_audit_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    prepare("s", corpus("synthetic", classes=["Rain"], clips_per_class={"train": 5}), tmp_path / "out")
    whole, power = audit(tmp_path / "out"), auditing._power
    monkeypatch.setattr(auditing, "SHARD", 2)
    seen = []

    def stopped(wave):
        seen.append(wave)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return power(wave)

    monkeypatch.setattr(auditing, "_power", stopped)
    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path / "out")
    assert (tmp_path / ".out.audit").is_dir()
    assert (
        audit(tmp_path / "out").equals(whole) and len(seen) == 4 + 3
    )  # of the second shard both clips are heard again
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sources_that_were_left_out_are_counted(audited):
    left_out = pd.DataFrame({"id": ["x", "y"], "source_path": ["x.wav", "y.wav"], "reason": ["", ""]})
    problems = audit_problems(audited.reset_index(), left_out)
    assert problems.iloc[-1].tolist() == ["unusable source, left out", 2, ["x", "y"]]
    assert audit_problems(audited.reset_index(), left_out[:0]).equals(problems[:-1])
