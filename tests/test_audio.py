"""Sound files and the shaping of clips."""

import errno
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from foleylib.audio.io import AudioError, fit_length, peak_normalise, read, remove_dc, resample, write

RATE = 16000


def sine(frequency, *, rate=RATE, seconds=0.5, amplitude=0.4):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def test_write_then_read_keeps_16_bits(tmp_path):
    wave = np.random.default_rng(0).uniform(-1, 1, 2000).astype(np.float32)
    path = tmp_path / "folder" / "a.wav"
    write(path, wave, RATE)
    again, rate = read(path)
    assert rate == RATE and again.dtype == np.float32
    assert np.abs(again - wave).max() <= 1 / 32768
    assert soundfile.info(path).subtype == "PCM_16"
    assert [p.name for p in path.parent.iterdir()] == ["a.wav"]


def test_int16_round_trip_is_exact(tmp_path):
    samples = np.arange(-32768, 32768, 7, dtype=np.int16)
    write(tmp_path / "a.wav", samples / 32768, RATE)
    assert np.array_equal(read(tmp_path / "a.wav")[0], samples.astype(np.float32) / 32768)


def test_read_averages_channels_and_resamples(tmp_path):
    left, right = sine(440), sine(1000)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    wave, _ = read(tmp_path / "s.wav")
    np.testing.assert_allclose(wave, (left + right) / 2, atol=1e-7)
    halved, rate = read(tmp_path / "s.wav", 8000)
    assert rate == 8000 and len(halved) == len(wave) // 2


def test_read_names_the_file_and_the_fault(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "inf.wav", np.array([0, np.inf]), RATE, subtype="FLOAT")
    for name, fault in [
        ("text", "cannot be read"),
        ("empty", "no samples"),
        ("nan", "NaN or Inf"),
        ("inf", "NaN or Inf"),
        ("missing", "no such file"),
    ]:
        with pytest.raises(AudioError, match=f"{name}.wav: .*{fault}.*;"):
            read(tmp_path / f"{name}.wav")


@pytest.mark.parametrize("wave", [[0.0, np.nan], [0.0, 1.5], [], [[0.0, 0.1]]])
def test_write_refuses_what_would_be_lost(tmp_path, wave):
    with pytest.raises(AudioError):
        write(tmp_path / "a.wav", wave, RATE)
    assert not any(tmp_path.iterdir())


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    write(path, sine(440), RATE)
    before = path.read_bytes()

    def half(file, content):
        with open(file, "wb") as begun:
            begun.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(AudioError, match="a.wav: cannot be written .No space left on device.; make room"):
        write(path, sine(880), RATE)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("to_rate", [8000, 22050, 24000, 48000])
def test_resample_keeps_a_tone(to_rate):
    out = resample(sine(440), RATE, to_rate)
    expected = sine(440, rate=to_rate)
    assert len(out) == len(expected) and out.dtype == np.float32
    inner = slice(to_rate // 20, -to_rate // 20)
    np.testing.assert_allclose(out[inner], expected[inner], atol=1e-3)


def test_resample_removes_what_would_alias():
    out = resample(sine(7000), RATE, 8000)
    assert np.abs(out[400:-400]).max() < 1e-3


@given(
    st.integers(1, 3000), st.sampled_from([8000, 16000, 22050, 44100, 48000]), st.sampled_from([16000, 24000, 32000])
)
def test_resample_length(samples, from_rate, to_rate):
    out = resample(np.zeros(samples, dtype=np.float32), from_rate, to_rate)
    assert len(out) == round(samples * to_rate / from_rate)


@given(st.integers(1, 50), st.integers(0, 120), st.sampled_from(["repeat", "pad"]))
def test_fit_length_sample_by_sample(samples, length, mode):
    out = fit_length(np.arange(1, samples + 1, dtype=np.float32), length, mode=mode)
    i = np.arange(length)
    assert np.array_equal(out, i % samples + 1 if mode == "repeat" else np.where(i < samples, i + 1, 0))
    assert out.dtype == np.float32


def test_fit_length_refuses():
    with pytest.raises(ValueError, match="mode='mirror': give"):
        fit_length(np.zeros(3), 5, mode="mirror")
    with pytest.raises(ValueError, match="no samples"):
        fit_length(np.zeros(0), 5)


def test_remove_dc_and_peak():
    wave = sine(440) + np.float32(0.2)
    assert abs(remove_dc(wave).mean(dtype=np.float64)) < 1e-7
    assert np.abs(peak_normalise(wave)).max() == pytest.approx(0.5)
    assert np.array_equal(peak_normalise(np.zeros(4, dtype=np.float32)), np.zeros(4))


# Files that are cut short


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("kept", [0.1, 0.9, 0.999])
def test_a_wav_cut_short_is_refused(tmp_path, subtype, kept):
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=16000).clip(-3, 3), 16000, subtype=subtype)
    assert len(read(path)[0]) == 16000
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(AudioError, match="a.wav: is cut short"):
        read(path)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_streamed_wav_is_read(tmp_path, size):
    """Its writer did not know the length and wrote a size that stands for that."""
    path = tmp_path / "a.wav"
    write(path, 0.1 * np.ones(8000), 16000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    if size:
        assert len(read(path)[0]) == 8000
    else:
        with pytest.raises(AudioError, match="holds no samples"):
            read(path)


@pytest.mark.parametrize("format", ["MP3", "FLAC", "OGG"])
def test_other_formats_cut_short_are_refused(tmp_path, format):
    path = tmp_path / f"a.{format.lower()}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=64000).clip(-3, 3), 16000, format=format)
    assert len(read(path)[0]) == pytest.approx(64000, abs=2000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(AudioError, match=path.name):
        read(path)
