"""Players: the sound inside is the sound given, the same bytes each time, and nothing from outside the page."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

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


def test_levels_change_only_when_asked(wave):
    with pytest.raises(ValueError, match="reaches 1.500"):
        one(3 * wave)
    clips = {("a", "x"): 3 * wave, ("b", "x"): 0.3 * wave}
    loud, quiet = (s for s, _ in sounds(players.grid(clips, RATE, rows="ab", cols="x", peak=0.5)))
    assert loud.std() == pytest.approx(0.5 / np.sqrt(2), rel=0.01) and loud.std() == pytest.approx(
        10 * quiet.std(), rel=0.01
    )


def test_grid_has_headings_and_labels(wave):
    clips = {("ldm", "Rain"): wave, ("real", "Rain"): wave / 2}
    display = {"real": Display("Real <clips>", "#333333"), "ldm": Display("LDM", "#0173b2")}
    page = players.grid(clips, RATE, rows=["real", "ldm"], cols=["Rain", "DogBark"], display=display, title="Both").data
    assert page.count("<audio") == 2 and page.count("<td>–</td>") == 2 and "<caption>Both</caption>" in page
    assert page.index('aria-label="Real &lt;clips&gt;, Rain"') < page.index('aria-label="LDM, Rain"')
    assert '<th scope="row">LDM</th>' in page and '<th scope="col">Dog bark</th>' in page


@pytest.mark.parametrize("columns, across", [(4, "c"), (5, "r")])
def test_grids_wider_than_a_page_are_turned_round(wave, columns, across):
    cols = [f"c{i}" for i in range(columns)]
    clips = {(row, col): wave[: RATE // 10] * (0.5 if row == "r0" else 1) for row in ("r0", "r1") for col in cols}
    shown = players.grid(clips, RATE, rows=["r0", "r1"], cols=cols)
    heads = re.findall(r'scope="col">(\w+)<', shown.data)
    assert {head[0] for head in heads} == {across} and len(heads) <= players.MAX_COLUMNS
    labels = re.findall(r'aria-label="(\w+), (\w+)"', shown.data)
    assert sorted(labels) == sorted(clips)
    levels = [np.abs(sound).max() for sound, _ in sounds(shown)]
    assert [level < 0.4 for level in levels] == [row == "r0" for row, _ in labels]


def test_grid_refuses_too_many_and_stray_cells(wave):
    with pytest.raises(ValueError, match="7 rows x 7 columns: at most 40"):
        players.grid({}, RATE, rows=range(7), cols=range(7))
    with pytest.raises(ValueError, match=r"\('c', 'x'\)"):
        players.grid({("c", "x"): wave}, RATE, rows="ab", cols="x")


@pytest.mark.parametrize("bad", [np.zeros((2, 100)), np.zeros(0), np.full(100, np.nan)])
def test_refuses_what_is_no_mono_wave(bad):
    with pytest.raises(ValueError, match="one channel"):
        one(bad)


def test_refuses_unknown_codec_and_peak(wave):
    with pytest.raises(ValueError, match="'flac', 'mp3'"):
        players.encode(wave, RATE, codec="ogg")
    with pytest.raises(ValueError, match="peak=2"):
        one(wave, peak=2)
