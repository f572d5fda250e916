"""Players: the sound inside is the sound given, the same bytes each time, and nothing from outside the page."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from foleylib import listen

RATE = 16000


@pytest.fixture
def wave():
    t = np.arange(2 * RATE) / RATE
    return (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def sounds(shown):
    """Waves inside the players of a page."""
    data = re.findall(r"data:audio/\w+;base64,([^\"]+)", shown.data)
    return [soundfile.read(io.BytesIO(base64.b64decode(d)), dtype="float32") for d in data]


@pytest.mark.parametrize("codec, tolerance", [("ogg", 0.05), ("flac", 1 / 32768)])
def test_player_carries_the_wave_at_its_level(wave, codec, tolerance):
    ((heard, rate),) = sounds(listen.player(wave, RATE, title="Tone", codec=codec))
    assert rate == RATE and heard.shape == wave.shape
    np.testing.assert_allclose(heard[500:-500], wave[500:-500], atol=tolerance)


def test_encodings_are_equal_and_pages_valid(wave):
    first, second = listen.encode(wave, RATE), listen.encode(wave, RATE)
    assert first == second
    assert listen.fix_serial(first, 7) != first and listen.fix_serial(listen.fix_serial(first, 7)) == first


def test_checksum_is_that_of_libsndfile(wave):
    out = io.BytesIO()
    soundfile.write(out, wave, RATE, format="OGG", subtype="VORBIS")
    raw = out.getvalue()
    assert listen.fix_serial(raw, int.from_bytes(raw[14:18], "little")) == raw


def test_long_clips_do_not_crash_the_encoder():
    assert len(listen.encode(np.zeros(30 * RATE), RATE)) > 1000


def test_page_has_no_script_and_nothing_external(wave):
    page = listen.player(wave, RATE, title='<script>"x"').data
    assert "<script" not in page and "http" not in page and 'aria-label="&lt;script&gt;&quot;x&quot;"' in page


def test_levels_change_only_when_asked(wave):
    with pytest.raises(ValueError, match="reaches 1.500"):
        listen.player(3 * wave, RATE)
    clips = {("a", "x"): 3 * wave, ("b", "x"): 0.3 * wave}
    loud, quiet = (s for s, _ in sounds(listen.grid(clips, RATE, rows="ab", cols="x", peak=0.5, codec="flac")))
    assert np.abs(loud).max() == pytest.approx(0.5, abs=1e-3) and np.abs(quiet).max() == pytest.approx(0.05, abs=1e-3)


def test_grid_has_headings_and_labels(wave):
    clips = {("ldm", "Rain"): wave, ("real", "Rain"): wave / 2}
    rows = {"real": "Real recordings", "ldm": "LDM"}
    page = listen.grid(clips, RATE, rows=rows, cols=["Rain", "DogBark"], title="Listen").data
    assert page.count("<audio") == 2 and page.count("<td>–</td>") == 2
    assert page.index('aria-label="Real recordings, Rain"') < page.index('aria-label="LDM, Rain"')
    assert '<th scope="row">LDM</th>' in page and '<th scope="col">DogBark</th>' in page


def test_grid_refuses_too_many_and_stray_cells(wave):
    with pytest.raises(ValueError, match="5 rows x 5 columns: at most 24"):
        listen.grid({}, RATE, rows=range(5), cols=range(5))
    with pytest.raises(ValueError, match=r"\('c', 'x'\)"):
        listen.grid({("c", "x"): wave}, RATE, rows="ab", cols="x")


@pytest.mark.parametrize("bad", [np.zeros((2, 100)), np.zeros(0), np.full(100, np.nan)])
def test_refuses_what_is_no_mono_wave(bad):
    with pytest.raises(ValueError, match="one channel"):
        listen.player(bad, RATE)


def test_refuses_unknown_codec_and_peak(wave):
    with pytest.raises(ValueError, match="'flac', 'ogg'"):
        listen.player(wave, RATE, codec="mp3")
    with pytest.raises(ValueError, match="peak=2"):
        listen.player(wave, RATE, peak=2)


def test_damaged_stream_is_named():
    with pytest.raises(ValueError, match="byte 0"):
        listen.fix_serial(b"RIFF" + bytes(40))


def test_clip_shows_mel_over_sound_and_repeats(wave):
    mel = np.linspace(-11, 1, 200 * 64).reshape(200, 64)
    first, second = (listen.clip(wave, mel, RATE, hop=160, title="Tone").data for _ in range(2))
    assert first == second and first.index("<img") < first.index("<audio")
