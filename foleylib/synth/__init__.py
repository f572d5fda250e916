"""The embedded synthetic corpus: procedural sounds, deterministic in (label, seed, index), at any rate to 48 kHz.

The seven classes are those of DCASE 2023 Task 7 (Choi et al., "Foley sound synthesis at the DCASE 2023 challenge").
"""

import zlib

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from foleylib.synth import broad, foley
from foleylib.synth.dsp import Board
from foleylib.synth.text import TEXTS

MODELS = {**foley.MODELS, **broad.MODELS}
FOLEY = tuple(foley.MODELS)
BROAD = tuple(MODELS)


def render(label, *, seed, index, rate, seconds, ambience=1.0):
    """Synthesise one clip of a class.

    Parameters
    ----------
    label : str
        One of `BROAD`.
    seed, index : int >= 0
        Corpus seed and number of the clip in its class. With the label they fix every parameter and event time.
    rate : int, in [8000, 48000]
        Sampling rate (Hz). Only the noise samples depend on it; partials stay below 0.46 of it.
    seconds : float, in [0.5, 10]
        Length of the clip.
    ambience : float, in [0, 1]
        Variety of room, distance and background: 0 is dry, close and nearly silent behind.

    Returns
    -------
    wave : np.ndarray [shape=(round(seconds * rate),)], float32
        Without DC; the peak is in [0.1, 0.95].
    info : dict
        "events": [{"onset", "offset"}] in s within the clip, by onset; "parameters": {name: float, int or str}.

    Raises
    ------
    ValueError
        If the label is unknown or an argument is out of range.
    """
    check(label, rate, seconds, ambience)
    streams = np.random.SeedSequence([seed, zlib.crc32(label.encode()), index]).spawn(3)
    draw, space, noise = (np.random.default_rng(s) for s in streams)
    board = Board(rate=rate, seconds=seconds, draw=draw, noise=noise)
    MODELS[label](board)
    board.events.sort(key=lambda event: event["onset"])
    board.draw = space  # its own stream: the space does not depend on how much the model drew
    wave = place(board, ambience)
    return wave.astype(np.float32), {"events": board.events, "parameters": board.parameters}


def place(board, ambience):
    """Put the dry sound of a board in a room, at a distance, over a background, at a level [shape=(T,)]."""
    decay, wet = board.log_uniform("room_decay", 0.08, 0.6), ambience * board.uniform("room_level", 0.0, 0.5)
    distance = ambience * board.uniform("distance", 0.0, 1.0)
    snr = 60 - ambience * (60 - board.uniform("background_snr", 20, 45))
    colour, level = board.choice("background", ("pink", "brown")), board.uniform("level", 0.5, 0.95)
    board.parameters["ambience"] = float(ambience)
    response = room(board, decay, wet)
    n = next_fast_len(board.wave.size + response.size, real=True)
    f = np.arange(n // 2 + 1) * (board.rate / n)
    air = 1 / np.sqrt(1 + (f / (20000 * 0.15**distance)) ** 4) if distance > 0 else 1.0
    spectrum = rfft(board.wave, n) * rfft(response, n) * air * f**2 / (f**2 + 25**2)
    active = max(sum(e["offset"] - e["onset"] for e in board.events), 0.1)
    power = np.sum(board.wave**2) / (board.rate * min(active, board.seconds))
    spectrum += board.coloured_spectrum(n, 1 if colour == "pink" else 2) * (np.sqrt(power) * 10 ** (-snr / 20))
    wave = irfft(spectrum, n)[: board.wave.size]
    wave -= wave.mean()
    return wave * (max(0.12, level * (1 - 0.75 * distance)) / np.abs(wave).max())


def room(board, decay, wet):
    """Direct sound, early echoes and exponentially decaying noise (60 dB in `decay` s) [shape=(taps,)]."""
    t = board.time(max(0.05, 0.8 * decay))
    tail = board.band(board.white(t.size), 150, 5000) * np.exp(-6.9 * t / decay)
    delays, gains = board.draw.uniform(0.004, 0.04, 5), board.draw.uniform(-1.0, 1.0, 5)
    response = wet * (tail / np.sqrt(np.sum(tail**2)) + 0.5 * board.sparks(delays, gains, t.size, scaled=False))
    response[0] += 1.0
    return response


def check(label, rate, seconds, ambience):
    """Raise a ValueError that names the argument out of range."""
    if label not in MODELS:
        raise ValueError(f"unknown label {label!r}: use one of {', '.join(BROAD)}")
    if not 8000 <= rate <= 48000:
        raise ValueError(f"rate={rate} Hz is outside [8000, 48000]: render inside it and resample")
    if not 0.5 <= seconds <= 10:
        raise ValueError(f"seconds={seconds} is outside [0.5, 10]: render inside it, then cut or repeat")
    if not 0 <= ambience <= 1:
        raise ValueError(f"ambience={ambience} is outside [0, 1]")


def captions(label):
    """Several natural captions of a class; ValueError if the label is unknown."""
    check(label, 16000, 1.0, 0.0)
    return TEXTS[label][1]


def prompt(label):
    """The plain prompt of a class, as in text-driven Foley generation; ValueError if the label is unknown."""
    check(label, 16000, 1.0, 0.0)
    return TEXTS[label][0]
