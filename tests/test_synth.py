"""Embedded synthetic corpus: determinism, ranges, ground truth, and whether its classes can be told apart."""

import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import stft

from foleylib.corpora.sources import DCASE_PROMPTS
from foleylib.corpora.synth import captions
from foleylib.corpora.synth import render as synth
from foleylib.corpora.synth.dsp import Board, biquad, wavetable
from foleylib.datasets.manifest import facts


def render(label, index=0, *, seed=0, rate=16000, seconds=1.28, ambience=1.0):
    return synth.render(label, seed=seed, index=index, rate=rate, seconds=seconds, ambience=ambience)


def active_level(wave, info, rate):
    """RMS inside the events over the RMS of the whole clip."""
    inside = np.zeros(wave.size, bool)
    for event in info["events"]:
        inside[int(event["onset"] * rate) : int(event["offset"] * rate) + 1] = True
    return np.sqrt(np.mean(wave[inside] ** 2)) / np.sqrt(np.mean(wave**2))


def assert_sound(wave, info, rate, seconds):
    assert wave.dtype == np.float32 and wave.shape == (round(seconds * rate),)
    assert np.isfinite(wave).all()
    assert 0.1 <= np.abs(wave).max() <= 0.95
    assert abs(wave.mean(dtype=np.float64)) < 1e-6
    assert info["events"]
    onsets = [event["onset"] for event in info["events"]]
    assert onsets == sorted(onsets) and onsets[0] <= 0.3
    assert all(0 <= event["onset"] < event["offset"] <= seconds + 1 / rate for event in info["events"])
    assert all(type(value) in (float, str) for value in info["parameters"].values())


def test_names():
    assert synth.FOLEY == tuple(DCASE_PROMPTS)
    assert synth.BROAD[:7] == synth.FOLEY and len(set(synth.BROAD)) == len(synth.BROAD) >= 20


@pytest.mark.parametrize("label", synth.BROAD)
def test_clips_are_sound_and_events_carry_the_energy(label):
    for index in range(8):
        wave, info = render(label, index)
        assert_sound(wave, info, 16000, 1.28)
        assert active_level(wave, info, 16000) > 0.95


@pytest.mark.parametrize("label", synth.BROAD)
def test_same_arguments_same_clip_and_others_differ(label):
    first, info = render(label, 3)
    again, info_again = render(label, 3)
    assert np.array_equal(first, again) and info == info_again
    for other in (render(label, 4), render(label, 3, seed=1)):
        assert not np.array_equal(first, other[0]) and info["parameters"] != other[1]["parameters"]


@pytest.mark.parametrize("label", synth.BROAD)
def test_parameters_and_events_do_not_depend_on_the_rate(label):
    low, info_low = render(label, 5, rate=8000)
    high, info_high = render(label, 5, rate=44100)
    assert info_low["parameters"] == info_high["parameters"]
    for a, b in zip(info_low["events"], info_high["events"], strict=True):
        assert a["onset"] == b["onset"] and a["offset"] == pytest.approx(b["offset"], abs=3e-4)
    assert_sound(low, info_low, 8000, 1.28)
    assert_sound(high, info_high, 44100, 1.28)


@settings(deadline=None, max_examples=40)
@given(
    label=st.sampled_from(synth.BROAD),
    index=st.integers(0, 10**6),
    seed=st.integers(0, 2**32),
    rate=st.sampled_from((8000, 16000, 22050, 24000, 32000, 48000)),
    seconds=st.floats(0.5, 2.5),
    ambience=st.floats(0.0, 1.0),
)
def test_any_clip_is_sound(label, index, seed, rate, seconds, ambience):
    wave, info = render(label, index, seed=seed, rate=rate, seconds=seconds, ambience=ambience)
    assert_sound(wave, info, rate, seconds)


@pytest.mark.parametrize("label", synth.BROAD)
def test_ten_seconds(label):
    wave, info = render(label, seconds=10)
    assert_sound(wave, info, 16000, 10)


def test_no_ambience_is_dry_and_nearly_silent_between_events():
    wave, info = render("ClockTick", ambience=0.0)
    silent = wave[int((info["events"][0]["offset"] + 0.02) * 16000) : int(info["events"][1]["onset"] * 16000)]
    assert silent.size and np.sqrt(np.mean(silent**2)) < 2e-3 * np.abs(wave).max()


@pytest.mark.parametrize("label", ["GunShot", "Rain", "Keyboard", "GlassBreak"])
def test_bright_sounds_reach_past_the_nyquist_frequency_of_lower_rates(label):
    wave, _ = render(label, rate=48000, ambience=0.0)
    power = np.abs(np.fft.rfft(wave)) ** 2
    f = np.fft.rfftfreq(wave.size, 1 / 48000)
    assert power[f > 12000].sum() / power.sum() > 1e-4


def test_harmonics_leave_out_what_would_alias():
    board = Board(8000, 1.0, np.random.default_rng(0), np.random.default_rng(1))
    tone = board.harmonics(np.full(8000, 1000.0), np.ones(20))
    power = np.abs(np.fft.rfft(tone * np.hanning(8000))) ** 2
    peaks = np.flatnonzero(power > 1e-6 * power.max())  # bins of 1 Hz
    assert set(np.unique(np.round(peaks / 1000))) == {1, 2, 3} and np.abs(peaks % 1000 - 500).min() > 490


def test_wavetable_equals_the_sine_series():
    cycles, weights = np.linspace(0, 7, 500), np.array([1.0, 0.5, 0.25])
    expected = sum(w * np.sin(2 * np.pi * k * cycles) for k, w in enumerate(weights, start=1))
    assert np.allclose(wavetable(weights, cycles), expected, atol=1e-5)


def test_biquad_gains():
    def gain(section, f):
        z = np.exp(-2j * np.pi * f / 16000 * np.arange(3))
        return abs(section[:3] @ z / (section[3:] @ z))

    assert gain(biquad("peak", 1000, 5, 16000), 1000) == pytest.approx(1)
    assert gain(biquad("low", 1000, 0.7071, 16000), 1000) == pytest.approx(0.7071, abs=1e-4)
    assert gain(biquad("low", 1000, 0.7071, 16000), 0) == pytest.approx(1)
    assert gain(biquad("high", 1000, 0.7071, 16000), 8000) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"label": "Cow"}, "unknown label 'Cow'.*DogBark.*Frog"),
        ({"rate": 4000}, "rate=4000"),
        ({"seconds": 0.1}, "seconds=0.1"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"ambience": 1.5}, "ambience=1.5"),
    ],
)
def test_errors_name_what_is_wrong(change, match):
    with pytest.raises(ValueError, match=match):
        synth.render(**({"label": "Rain", "seed": 0, "index": 0, "rate": 16000, "seconds": 1.0} | change))


def described(label, index=0, draw=0):
    _, info = synth.render(label, seed=3, index=index, rate=16000, seconds=1.28)
    return captions.caption(label, info, np.random.default_rng([index, draw])), info


def test_every_class_has_texts():
    assert tuple(captions._texts()) == (captions.EVERY, *synth.BROAD)
    for label in synth.BROAD:
        assert captions.prompt(label) == captions.prompt(label).lower().strip()
    assert captions.prompt("Keyboard") == "someone using keyboard"


@pytest.mark.parametrize("label", synth.BROAD)
def test_captions_are_sentences_on_this_clip(label):
    said = {described(label, index, draw)[0] for index in range(12) for draw in range(4)}
    assert len(said) > 36  # two clips, or two draws of one, are hardly ever told in the same words
    for text in said:
        assert not re.search(r"[{}]|  |,,|, *$|\ba [aeiou]", text), text
        assert 3 <= len(text.split()) <= 26, text
    assert described(label)[0] == described(label)[0]


@pytest.mark.parametrize("label", synth.BROAD)
def test_every_slot_and_value_has_its_words(label):
    """All that the sound model can draw is said, by every sentence, and each slot depends on a parameter that is there."""
    texts = captions._texts()
    words = texts[captions.EVERY]["words"] | texts[label]["words"]
    slots = {slot for sentence in texts[label]["captions"] for slot in re.findall(r"\{(\w+)\}", sentence)}
    assert set(texts[label]["words"]) <= slots <= set(words)
    for index in range(40):
        known = facts(described(label, index)[1])
        for slot in slots | set(captions.SURROUNDINGS):
            assert isinstance(captions._word(words[slot], known, np.random.default_rng(0)), str)


def test_captions_say_what_was_drawn():
    info = {
        "events": [{}, {}],
        "parameters": {"pitch": 260.0, "breath": 0.45, "length": 0.2, "room_level": 0.5, "room_decay": 0.5}
        | {"distance": 0.9, "background_snr": 22.0, "ambience": 1.0},
        "change": -20.0,
    }
    said = " / ".join(captions.caption("DogBark", info, np.random.default_rng(draw)) for draw in range(60))
    for words in ("big", "large", "twice", "two barks", "hoarse", "far away", "in a large hall", "then silence"):
        assert words in said
    for words in ("small", "once", "three", "clear", "close by", "outdoors", "louder"):
        assert words not in said


@pytest.mark.parametrize("index", range(6))
def test_scenes_are_sounds_in_turn(index):
    options = {"seed": 2, "rate": 16000, "seconds": 1.28}
    wave, parts = synth.render_scene(synth.BROAD, index=index, **options)
    again, _ = synth.render_scene(synth.BROAD, index=index, **options)
    assert np.array_equal(wave, again) and wave.shape == (20480,) and wave.dtype == np.float32
    assert 0.05 < np.abs(wave).max() <= 0.95 + 1e-6
    assert len(parts) in (2, 3) and len({part["label"] for part in parts}) == len(parts)
    onsets = [part["onset"] for part in parts]
    assert onsets[0] == 0 and onsets == sorted(onsets)
    said = captions.scene_caption(parts, np.random.default_rng(index))
    assert len(re.findall(", then |, followed by |, after that ", said)) == len(parts) - 1


def test_scenes_draw_from_the_classes_given():
    labels = [
        tuple(
            p["label"] for p in synth.render_scene(("Rain", "Bell", "Saw"), seed=0, index=i, rate=8000, seconds=1.0)[1]
        )
        for i in range(20)
    ]
    assert set().union(*labels) == {"Rain", "Bell", "Saw"} and len(set(labels)) > 6


def drawn(classes, n, **options):
    """Labels of the sounds of n scenes."""
    how = {"seed": 0, "rate": 8000, "seconds": 0.64} | options
    return [[p["label"] for p in synth.render_scene(classes, index=i, **how)[1]] for i in range(n)]


def test_scenes_of_before_are_the_same():
    """Drawn by the code before scenes had weights, a count and several captions: they are part of the bundle's corpus."""
    _, parts = synth.render_scene(synth.BROAD, seed=2, index=1, rate=16000, seconds=1.28)
    rng = np.random.default_rng([2, 1, zlib.crc32(b"scene")])
    assert drawn(synth.BROAD, 3, seed=2) == [["Helicopter", "Keyboard"], ["GunShot", "Helicopter"], ["Saw", "Frog"]]
    assert captions.scene_caption(parts, rng) == (
        "a pair of shots of a gun with a long tail, then a helicopter flies, whining, its fast blades cracking"
    )


def test_weights_are_the_frequencies_of_the_first_sounds():
    first = [labels[0] for labels in drawn(synth.FOLEY, 600, count=(1, 2), weights=[4, 2, 1, 1, 0, 0, 0])]
    shares = np.array([first.count(label) for label in synth.FOLEY]) / 600
    expected = np.array([4, 2, 1, 1, 0, 0, 0]) / 8
    assert (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 600) + 1e-9).all()


def test_a_scene_has_as_many_sounds_as_asked_for():
    assert {len(labels) for labels in drawn(synth.FOLEY, 40, count=(1, 3))} == {1, 2, 3}
    wave, (part,) = synth.render_scene(["Bell"], seed=0, index=0, rate=8000, seconds=1.0, count=(1, 1))
    assert wave.size == 8000 and part["onset"] == 0
    assert np.abs(wave[6000:]).max() > 0  # one sound lasts as long as the clip


@pytest.mark.parametrize("index", range(4))
def test_several_captions_are_different_wordings_of_one_scene(index):
    _, parts = synth.render_scene(synth.BROAD, seed=2, index=index, rate=8000, seconds=0.64, count=(1, 3))
    said = captions.scene_captions(parts, np.random.default_rng(index), 5)
    assert len(set(said)) == 5 and said[0] == captions.scene_caption(parts, np.random.default_rng(index))
    assert said[:2] == captions.scene_captions(parts, np.random.default_rng(index), 2)
    with pytest.raises(ValueError, match=r"wordings of .* are found, not 100000; ask for fewer captions"):
        captions.scene_captions(parts, np.random.default_rng(index), 100_000)


def features(wave):
    """Mean and deviation over time of 32 log band energies, and the deviation of their differences [shape=(96,)]."""
    power = np.abs(stft(wave, nperseg=512, noverlap=352)[2]) ** 2
    edges = np.unique(np.geomspace(2, 257, 33).astype(int))
    bands = np.log(np.add.reduceat(power, edges[:-1], axis=0) + 1e-9)
    return np.concatenate([bands.mean(1), bands.std(1), np.diff(bands, axis=1).std(1)])


def test_foley_classes_can_be_told_apart():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.array([[features(render(label, i)[0]) for i in range(30)] for label in synth.FOLEY])  # (7, 30, 96)
    y = np.arange(7).repeat(20), np.arange(7).repeat(10)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    model.fit(x[:, :20].reshape(140, -1), y[0])
    assert model.score(x[:, 20:].reshape(70, -1), y[1]) > 0.85
