"""The embedded synthetic corpus: procedural sounds, deterministic in (label, seed, index), at any rate to 48 kHz.

The seven classes are those of DCASE 2023 Task 7 (Choi et al., "Foley sound synthesis at the DCASE 2023 challenge").
A further class is a sound model in `broad` with its row of `MODELS` there, and its entry in texts.yaml.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from foleylib.corpora.synth import broad, foley
from foleylib.corpora.synth.dsp import Board

MODELS = {**foley.MODELS, **broad.MODELS}
FOLEY = tuple(foley.MODELS)
BROAD = tuple(MODELS)
SHORTEST = 0.5  # s, of a sound


def render(
    label: str,
    *,
    seed: int,
    index: int,
    rate: int,
    seconds: float,
    ambience: float = 1.0,
) -> tuple[np.ndarray, dict]:
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
        "events": [{"onset", "offset"}] in s within the clip, by onset; "parameters": {name: float, int or str};
        "change": how many dB the last third is louder than the first.
    """
    _check_label(label)
    ranges = {"rate": (rate, 8000, 48000), "seconds": (seconds, SHORTEST, 10), "ambience": (ambience, 0, 1)}
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise ValueError(
                f"{name}={value} is outside [{low}, {high}]; render inside it, then resample, cut or repeat"
            )
    streams = np.random.SeedSequence([seed, zlib.crc32(label.encode()), index]).spawn(3)
    draw, space, noise = (np.random.default_rng(s) for s in streams)
    board = Board(rate=rate, seconds=seconds, draw=draw, noise=noise)
    MODELS[label](board)
    board.events.sort(key=lambda event: event["onset"])
    board.draw = space  # its own stream: the space does not depend on how much the model drew
    wave = _in_space(board, ambience)
    first, _, last = (float(np.mean(part**2)) for part in np.array_split(wave, 3))
    change = 10 * float(np.log10((last + 1e-10) / (first + 1e-10)))
    return wave.astype(np.float32), {"events": board.events, "parameters": board.parameters, "change": change}


def render_scene(
    classes: Sequence[str],
    *,
    seed: int,
    index: int,
    rate: int,
    seconds: float,
    ambience: float = 1.0,
    backwards: bool = False,
    count: tuple[int, int] = (2, 3),
    weights: Sequence[float] | None = None,
) -> tuple[np.ndarray, list[dict]]:
    """Synthesise sounds of different classes one after another, each at most half covered by the next.

    Parameters are those of `render`; `classes` are those to draw from, by (seed, index): evenly, or the first sound in
    proportion to `weights`, the next ones to those of the classes left. `count` is the least and most number of sounds.
    `backwards` has the very same sounds in the opposite order.

    Returns
    -------
    wave : np.ndarray [shape=(round(seconds * rate),), float32]
    parts : what `render` tells of each sound, in order, with its "label" and the "onset" of its clip in s
    """
    draw = np.random.default_rng([seed, zlib.crc32(b"scene"), index])
    least, most = count
    number = int(draw.integers(least, most + 1))
    if weights is None:
        chosen = draw.permutation(len(classes))[:number]
    else:
        chosen = draw.choice(len(classes), number, replace=False, p=np.divide(weights, np.sum(weights)))
    labels = [classes[i] for i in chosen]
    length = min(seconds, max(SHORTEST, 1.2 * seconds / number))
    sounds, fade = [], round(0.01 * rate)
    for label in labels:
        part, info = render(label, seed=seed, index=index, rate=rate, seconds=length, ambience=ambience)
        part = part * draw.uniform(0.4, 1.0)
        part[:fade] *= np.linspace(0, 1, fade)
        part[-fade:] *= np.linspace(1, 0, fade)
        sounds.append((part, {**info, "label": label}))

    wave, parts = np.zeros(round(seconds * rate)), []
    for onset, (part, info) in zip(np.linspace(0, seconds - length, number), sounds[::-1] if backwards else sounds):
        first = min(round(onset * rate), wave.size - part.size)
        wave[first : first + part.size] += part
        parts.append({**info, "onset": float(onset)})
    return (wave * min(1.0, 0.95 / np.abs(wave).max())).astype(np.float32), parts


def _in_space(board: Board, ambience: float) -> np.ndarray:
    """The dry sound of a board in a room, at a distance, over a background, at a level [shape=(T,)]."""
    decay, wet = board.log_uniform("room_decay", 0.08, 0.6), ambience * board.uniform("room_level", 0.0, 0.5)
    distance = ambience * board.uniform("distance", 0.0, 1.0)
    snr = 60 - ambience * (60 - board.uniform("background_snr", 20, 45))
    colour, level = board.choice("background", ("pink", "brown")), board.uniform("level", 0.5, 0.95)
    board.parameters["ambience"] = float(ambience)

    # The room, and what the air takes from the high frequencies; nothing below 25 Hz.
    response = _room(board, decay, wet)
    n = next_fast_len(board.wave.size + response.size, real=True)
    f = np.arange(n // 2 + 1) * (board.rate / n)
    air = 1 / np.sqrt(1 + (f / (20000 * 0.15**distance)) ** 4) if distance > 0 else 1.0
    spectrum = rfft(board.wave, n) * rfft(response, n) * air * f**2 / (f**2 + 25**2)

    # The background, `snr` dB below the mean power of the events.
    active = max(sum(e["offset"] - e["onset"] for e in board.events), 0.1)
    power = np.sum(board.wave**2) / (board.rate * min(active, board.seconds))
    spectrum += board.coloured_spectrum(n, 1 if colour == "pink" else 2) * (np.sqrt(power) * 10 ** (-snr / 20))
    wave = irfft(spectrum, n)[: board.wave.size]
    wave -= wave.mean()
    return wave * (max(0.12, level * (1 - 0.75 * distance)) / np.abs(wave).max())


def _room(board: Board, decay: float, wet: float) -> np.ndarray:
    """Direct sound, early echoes and exponentially decaying noise (60 dB in `decay` s) [shape=(taps,)]."""
    t = board.time(max(0.05, 0.8 * decay))
    tail = board.band(board.white(t.size), 150, 5000) * np.exp(-6.9 * t / decay)
    delays, gains = board.draw.uniform(0.004, 0.04, 5), board.draw.uniform(-1.0, 1.0, 5)
    response = wet * (tail / np.sqrt(np.sum(tail**2)) + 0.5 * board.sparks(delays, gains, t.size, scaled=False))
    response[0] += 1.0
    return response


def _check_label(label: str) -> None:
    if label not in MODELS:
        raise ValueError(f"unknown label {label!r}: use one of {', '.join(BROAD)}")
