"""Drawing board and band-limited signal primitives of the embedded synthetic corpus.

Two random streams are kept apart: `draw` fixes every parameter and event time and never sees the rate, `noise` fills in
the samples. White noise and impulses are scaled so that their energy per Hz is the same at every rate.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.fft import irfft, next_fast_len
from scipy.signal import lfilter, sosfilt

REFERENCE_RATE = 16000
CEILING = 0.46  # highest partial or filter edge, as a fraction of the rate


@dataclass
class Board:
    """One clip while it is drawn: its wave, its events and the parameters drawn for it."""

    rate: int
    seconds: float
    draw: np.random.Generator
    noise: np.random.Generator
    events: list = field(default_factory=list)
    parameters: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wave = np.zeros(max(1, round(self.seconds * self.rate)))

    def uniform(self, name: str, low: float, high: float) -> float:
        self.parameters[name] = float(self.draw.uniform(low, high))
        return self.parameters[name]

    def log_uniform(self, name: str, low: float, high: float) -> float:
        self.parameters[name] = float(np.exp(self.draw.uniform(np.log(low), np.log(high))))
        return self.parameters[name]

    def choice(self, name: str, options):
        value = options[int(self.draw.integers(len(options)))]
        self.parameters[name] = value if isinstance(value, str) else float(value)
        return value

    def near(self, value: float, spread: float = 0.08) -> float:
        """`value` with a log-normal deviation, for the differences between the events of one clip."""
        return float(value * np.exp(spread * self.draw.standard_normal()))

    def onsets(
        self, period: float, *, jitter: float = 0.08, count: int | None = None, room: float = 0.1
    ) -> list[float]:
        """Event times (s): the first early in the clip, the last at least `room` s before its end."""
        start = float(self.draw.uniform(0.0, min(0.25, 0.2 * self.seconds)))
        times = [start]
        while count is None or len(times) < count:
            times.append(times[-1] + max(0.02, self.near(period, jitter)))
            if times[-1] > self.seconds - room:
                return times[:-1]
        return times

    def play(self, onset: float, sound: np.ndarray, gain: float = 1.0, *, event: bool = True) -> None:
        """Mix `sound` [shape=(n,)] in at `onset` s, cut at the end of the clip, and note the event."""
        first = min(int(onset * self.rate), self.wave.size - 1)
        part = sound[: self.wave.size - first]
        self.wave[first : first + part.size] += gain * part
        if event:
            offset = min(onset + sound.size / self.rate, self.wave.size / self.rate)
            self.events.append({"onset": float(onset), "offset": float(offset)})

    def time(self, seconds: float | None = None) -> np.ndarray:
        """Sample times (s) of a sound of `seconds`, by default of the whole clip."""
        size = self.wave.size if seconds is None else max(2, round(seconds * self.rate))
        return np.arange(size) / self.rate

    def white(self, size: int) -> np.ndarray:
        return self.noise.standard_normal(size, dtype=np.float32) * float(np.sqrt(self.rate / REFERENCE_RATE))

    def coloured(self, size: int, exponent: float) -> np.ndarray:
        """Gaussian noise with spectrum f**-exponent above 30 Hz and unit RMS (1: pink, 2: brown)."""
        n = next_fast_len(size, real=True)
        return irfft(self.coloured_spectrum(n, exponent), n)[:size]

    def coloured_spectrum(self, n: int, exponent: float) -> np.ndarray:
        """`scipy.fft.rfft` of `n` samples of such noise."""
        f = np.maximum(np.arange(n // 2 + 1) * (self.rate / n), 30.0)
        pairs = self.noise.standard_normal((f.size, 2), dtype=np.float32) * (f ** (-exponent / 2))[:, None]
        pairs[0] = 0.0
        return pairs.view(complex)[:, 0] * (n / np.sqrt(2 * np.sum(pairs**2)))

    def band(self, wave: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
        """Second-order high-pass at `low` Hz then low-pass at `high` Hz; an edge above the ceiling is left out."""
        sections = [] if low is None else [biquad("high", min(low, 0.4 * self.rate), 0.707, self.rate)]
        if high is not None and high < CEILING * self.rate:
            sections.append(biquad("low", high, 0.707, self.rate))
        return sosfilt(np.array(sections), wave) if sections else wave

    def resonances(self, wave: np.ndarray, peaks) -> np.ndarray:
        """Parallel band-passes; `peaks` is a sequence of (frequency in Hz, Q, gain)."""
        out = np.zeros_like(wave)
        for frequency, q, gain in peaks:
            if frequency < CEILING * self.rate:
                section = biquad("peak", frequency, q, self.rate)
                out += gain * lfilter(section[:3], section[3:], wave)
        return out

    def modes(self, partials, seconds: float) -> np.ndarray:
        """Sum of damped sinusoids; `partials` is a sequence of (frequency in Hz, time constant in s, gain)."""
        out = np.zeros(max(2, round(seconds * self.rate)))
        for frequency, tau, gain in partials:
            if frequency < CEILING * self.rate:
                n = min(out.size, 2 + int(6.9 * tau * self.rate))
                omega, radius = 2 * np.pi * frequency / self.rate, np.exp(-1 / (tau * self.rate))
                impulse = np.zeros(n)
                impulse[0] = gain * np.sin(omega)
                out[:n] += lfilter([1.0], [1.0, -2 * radius * np.cos(omega), radius**2], impulse)
        return out

    def harmonics(self, frequency: np.ndarray, weights) -> np.ndarray:
        """Harmonic series on a moving `frequency` [shape=(n,), Hz]; partials fade out below the Nyquist frequency."""
        cycles = np.cumsum(frequency) / self.rate
        safe = min(len(weights), int(0.42 * self.rate / frequency.max()))  # partials that never need fading
        out = wavetable(weights[:safe], cycles)
        for k in range(safe + 1, len(weights) + 1):
            fade = np.clip((CEILING - k * frequency / self.rate) / 0.04, 0.0, 1.0)
            if not fade.any():
                break
            out += weights[k - 1] * fade * np.sin(2 * np.pi * k * cycles)
        return out

    def sparks(self, times, gains, size: int, *, scaled: bool = True) -> np.ndarray:
        """Impulses of `gains` at `times` (s), as an excitation (`scaled` with the rate) or as filter taps."""
        wave = np.zeros(size)
        index = (np.asarray(times) * self.rate).astype(int)
        inside = index < size
        np.add.at(wave, index[inside], np.asarray(gains)[inside] * (self.rate / REFERENCE_RATE if scaled else 1.0))
        return wave


def biquad(kind: str, frequency: float, q: float, rate: int) -> np.ndarray:
    """Second-order section [b0, b1, b2, 1, a1, a2] by the bilinear transform; "peak" has unit gain at its centre."""
    omega = 2 * math.pi * frequency / rate
    cosine, alpha = math.cos(omega), math.sin(omega) / (2 * q)
    if kind == "peak":
        b = (alpha, 0.0, -alpha)
    else:
        sign = -1 if kind == "high" else 1
        b = ((1 - sign * cosine) / 2, sign * (1 - sign * cosine), (1 - sign * cosine) / 2)
    return np.array([*b, 1 + alpha, -2 * cosine, 1 - alpha]) / (1 + alpha)


def wavetable(weights, cycles: np.ndarray) -> np.ndarray:
    """Sine series of up to 128 `weights` read at `cycles` [shape=(n,)] from a table, by linear interpolation."""
    spectrum = np.zeros(4097, dtype=complex)
    spectrum[1 : len(weights) + 1] = -4096j * np.asarray(weights)
    table = irfft(spectrum, 8192)
    position = (cycles % 1.0) * 8192
    index = position.astype(int)
    fraction = position - index
    return (1 - fraction) * table[index & 8191] + fraction * table[(index + 1) & 8191]


def swell(time: np.ndarray, attack: float, decay: float) -> np.ndarray:
    """Exponential rise with time constant `attack` (s), then exponential fall with time constant `decay` (s)."""
    return (1 - np.exp(-time / attack)) * np.exp(-time / decay)


def arch(time: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Unit plateau with raised-cosine ends of `attack` and `release` s."""
    ends = np.minimum(time / attack, (time[-1] - time) / release)
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(ends, 0.0, 1.0))


def contour(time: np.ndarray, values) -> np.ndarray:
    """Piecewise-linear curve through equally spaced `values` over the span of `time`."""
    return np.interp(time, np.linspace(time[0], time[-1], len(values)), values)
