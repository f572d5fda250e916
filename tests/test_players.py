"""Players: the sound inside is the sound given, the same bytes each time, and nothing from outside the page."""

import base64
import io
import re

import numpy as np
import pyloudnorm
import pytest
import soundfile
from PIL import Image

from foleylib.report import players
from foleylib.report.style import Display

RATE = 16000


@pytest.fixture
def wave():
    t = np.arange(2 * RATE) / RATE
    return (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def one(wave, rate=RATE, **options):
    """A grid of a single player."""
    return players.grid({("Tone", "x"): wave}, rate, rows=["Tone"], cols=["x"], **options)


def sounds(shown):
    """Waves inside the players of a page."""
    data = re.findall(r"data:audio/\w+;base64,([^\"]+)", shown.data)
    return [soundfile.read(io.BytesIO(base64.b64decode(d)), dtype="float32") for d in data]


@pytest.mark.parametrize("codec, tolerance", [("mp3", 0.05), ("flac", 1 / 32768)])
def test_sound_is_the_wave_at_its_level_and_the_same_bytes(wave, codec, tolerance):
    sound = players.encode(wave, RATE, codec=codec)
    decoded, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert rate == RATE and decoded.shape == wave.shape and sound == players.encode(wave, RATE, codec=codec)
    np.testing.assert_allclose(decoded[800:-800], wave[800:-800], atol=tolerance)


@pytest.mark.parametrize("rate", [16000, 24000, 32000, 48000])
def test_players_are_small_at_every_rate(rate):
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(1.28 * rate)).clip(-3, 3)
    ((decoded, decoded_rate),) = sounds(one(noise, rate))
    assert decoded_rate == rate and len(decoded) == len(noise)
    assert len(players.encode(noise, rate)) < len(noise)  # half a byte a sample or less: PCM has two


def test_page_has_no_script_and_nothing_external(wave):
    name = '<script>"x"'
    page = players.grid({(name, "x"): wave}, RATE, rows=[name], cols=["x"], title=name).data
    assert "<script" not in page and "http" not in page and 'aria-label="&lt;script&gt;&quot;x&quot;, x"' in page


def test_a_grid_has_one_loudness(wave):
    clips = {("a", "x"): wave, ("b", "x"): 0.1 * wave, ("c", "x"): np.zeros_like(wave)}
    shown = players.grid(clips, RATE, rows="abc", cols="x")
    loud, quiet, silent = (sound for sound, _ in sounds(shown))
    assert loud.std() == pytest.approx(quiet.std(), rel=0.01) and np.abs(silent).max() < 1e-3
    assert "loudness matched to −23 LUFS (ITU-R BS.1770)" in shown.data
    meter = pyloudnorm.Meter(RATE)
    assert meter.integrated_loudness(players.at_loudness(0.1 * wave, RATE)) == pytest.approx(-23, abs=0.1)
    as_they_are = players.grid(clips, RATE, rows="abc", cols="x", loudness=None)
    loud, quiet, _ = (sound for sound, _ in sounds(as_they_are))
    assert loud.std() == pytest.approx(10 * quiet.std(), rel=0.01) and "levels as they are" in as_they_are.data


def test_loudness_never_clips(wave):
    click = np.zeros(RATE, dtype=np.float32)
    click[1000] = 0.5
    assert np.abs(players.at_loudness(click, RATE)).max() <= players.PEAK + 1e-6
    assert np.abs(players.at_loudness(wave[:2000], RATE)).max() == pytest.approx(players.PEAK)  # shorter than a block
    with pytest.raises(ValueError, match="reaches 1.500"):
        one(3 * wave, loudness=None)


def test_grid_has_headings_labels_and_spectrograms(wave):
    clips = {("ldm", "Rain"): wave, ("real", "Rain"): wave / 2}
    display = {"real": Display("Real <clips>", "#333333"), "ldm": Display("LDM", "#0173b2")}
    page = players.grid(clips, RATE, rows=["real", "ldm"], cols=["Rain", "DogBark"], display=display, title="Both").data
    assert page.count("<audio") == page.count("<img") == 2 and page.count("<br>–</div>") == 2 and "<p>Both, " in page
    assert page.index('aria-label="Real &lt;clips&gt;, Rain"') < page.index('aria-label="LDM, Rain"')
    assert "<b>LDM</b>" in page and page.count(">Dog bark<") == page.count(">Rain<") == 2
    image = Image.open(io.BytesIO(base64.b64decode(re.search(r"image/webp;base64,([^\"]+)", page)[1])))
    shades = np.asarray(image.convert("L")).astype(float)
    assert shades.shape == (64, 200) and shades.mean(axis=1).argmax() == pytest.approx(64 - 64 * 440 / 2840, abs=10)


def test_grid_refuses_too_many_and_stray_cells(wave):
    with pytest.raises(ValueError, match="7 rows x 7 columns: at most 40"):
        players.grid({}, RATE, rows=range(7), cols=range(7))
    with pytest.raises(ValueError, match=r"\('c', 'x'\)"):
        players.grid({("c", "x"): wave}, RATE, rows="ab", cols="x")


@pytest.mark.parametrize("bad", [np.zeros((2, 100)), np.zeros(0), np.full(100, np.nan)])
def test_refuses_what_is_no_mono_wave(bad):
    with pytest.raises(ValueError, match="one channel"):
        one(bad)


def test_refuses_unknown_codec(wave):
    with pytest.raises(ValueError, match="'flac', 'mp3'"):
        players.encode(wave, RATE, codec="ogg")
