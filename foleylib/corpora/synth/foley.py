"""Sound models of the seven DCASE 2023 Task 7 classes; each draws its parameters and plays events on a `Board`."""

import numpy as np

from foleylib.corpora.synth.dsp import Board, arch, contour, swell


def dog_bark(board: Board) -> None:
    """Glottal-like bursts whose pitch arches while the formants open, with breath noise."""
    pitch, size = board.log_uniform("pitch", 220, 750), board.uniform("mouth", 0.8, 1.3)
    breath, length = board.uniform("breath", 0.1, 0.5), board.uniform("length", 0.11, 0.24)
    tilt, count = board.uniform("tilt", 0.5, 1.0), board.choice("count", (1, 2, 2, 3))
    for onset in board.onsets(length + board.uniform("gap", 0.1, 0.35), count=count, room=0.2):
        t = board.time(board.near(length))
        u = t / t[-1]
        f0 = board.near(pitch) * (0.75 + 0.45 * np.sin(np.pi * u**0.7) - 0.15 * u)
        source = board.harmonics(f0, np.arange(1, 33) ** -tilt) + breath * board.white(t.size)
        closed = board.resonances(source, ((450 * size, 4, 1.0), (1100 * size, 5, 0.7), (2500 * size, 6, 0.4)))
        opened = board.resonances(source, ((900 * size, 4, 1.2), (1700 * size, 5, 0.9), (3100 * size, 6, 0.5)))
        mouth = np.sin(np.pi * u)
        sound = ((1 - mouth) * closed + mouth * opened) * arch(t, 0.012, 0.6 * t[-1])
        board.play(onset, sound, board.near(1.0, 0.15))


SURFACES = {  # thump frequency (Hz), thump level, scrape band (Hz), scrape decay (s), crunch grains per step
    "wood": (130, 1.0, (500, 2600), 0.012, 0),
    "concrete": (90, 0.6, (1200, 6000), 0.008, 0),
    "gravel": (80, 0.5, (1500, 9000), 0.030, 60),
    "grass": (70, 0.5, (900, 5000), 0.040, 20),
}


def footstep(board: Board) -> None:
    """Heel and toe impacts at a walking or jogging rate over a surface."""
    surface = board.choice("surface", tuple(SURFACES))
    pace, roll = board.uniform("period", 0.36, 0.62), board.uniform("heel_to_toe", 0.05, 0.12)
    weight, scrape, toe = board.near(1.0, 0.2), board.uniform("scrape", 0.5, 1.2), board.uniform("toe", 0.35, 0.7)
    for onset in board.onsets(pace, jitter=0.05, room=0.2):
        step = np.zeros(round((roll + 0.25) * board.rate))
        for delay, gain, tune in ((0.0, 1.0, 1.0), (board.near(roll, 0.05), board.near(toe), 1.4)):
            blow = _sole(board, surface, tune, weight, scrape)
            first = int(delay * board.rate)
            step[first : first + blow.size] += gain * blow[: step.size - first]
        board.play(onset, step, board.near(1.0, 0.12))


def _sole(board: Board, surface: str, tune: float, weight: float, scrape: float) -> np.ndarray:
    """One blow of a heel or toe: thump modes, a brush of noise and, on loose ground, crunching grains."""
    thump, level, (low, high), decay, grains = SURFACES[surface]
    f, t = board.near(thump * tune), board.time(0.18)
    body = board.modes(((f, 0.025, 2.0 * level * weight), (2.3 * f, 0.015, level), (4.1 * f, 0.009, 0.5)), 0.18)
    noise = scrape * board.white(t.size) * swell(t, 0.002 + 0.15 * decay, decay)
    times, gains = board.draw.exponential(0.03, grains), board.draw.normal(0, 1.2, grains)
    return body + board.band(noise + board.sparks(times, gains, t.size), low, high)


def gun_shot(board: Board) -> None:
    """Broadband crack, low thump and a reverberant tail that darkens as it decays."""
    count, tail = board.choice("count", (1, 1, 1, 2)), board.log_uniform("tail", 0.12, 0.5)
    crack, thump = board.log_uniform("crack", 0.004, 0.014), board.uniform("thump", 55, 130)
    colour, echo = board.log_uniform("tail_cutoff", 900, 3500), board.uniform("echo", 0.06, 0.25)
    for onset in board.onsets(board.uniform("gap", 0.25, 0.7), count=count, room=0.3):
        t = board.time(min(5 * tail, board.seconds - onset))
        snap = board.band(board.white(t.size), 150) * swell(t, 0.0002, crack)
        boom = np.sin(2 * np.pi * (thump * t + 0.02 * thump * (1 - np.exp(-t / 0.02)))) * swell(t, 0.002, 0.06)
        noise = board.white(t.size)
        bright = board.band(noise, 80, 2.5 * colour) * swell(t, 0.001, tail / 4)
        dark = board.band(noise, 60, colour / 2) * swell(t, 0.004, tail)
        sound = 3.0 * snap + 1.2 * boom + 0.9 * bright + 0.9 * dark
        late = int(echo * board.rate)
        sound[late:] += 0.25 * board.band(sound[: t.size - late], 100, colour)
        board.play(onset, sound, board.near(1.0, 0.1))


KEYBOARDS = {  # click band (Hz), key resonance (Hz), desk thock (Hz), click decay (s)
    "mechanical": ((2500, 9000), 3400, 420, 0.0025),
    "membrane": ((1200, 5000), 1900, 260, 0.0045),
    "laptop": ((1800, 7000), 2600, 330, 0.0030),
}


def keyboard(board: Board) -> None:
    """Fast irregular typing: press and release clicks with key resonances, now and then a space bar."""
    (low, high), key, thock, decay = KEYBOARDS[board.choice("keyboard", tuple(KEYBOARDS))]
    tune, spacing = board.near(1.0, 0.12), 1 / board.uniform("keys_per_second", 6, 12)
    release, desk = board.uniform("release_level", 0.25, 0.6), board.uniform("desk", 0.2, 0.8)
    board.parameters["key_resonance"] = key * tune
    t = board.time(0.035)
    click = board.band(board.white(8 * t.size), low, high).reshape(8, -1) * swell(t, 0.0002, decay)
    for onset in board.onsets(spacing, jitter=0.4, room=0.05):
        wide = 0.7 if board.draw.random() < 0.12 else 1.0
        hold, f = board.draw.uniform(0.045, 0.1), board.near(key * tune * wide, 0.1)
        for delay, gain in ((0.0, 1.0), (hold, release)):
            ring = ((f, 0.006, 0.7), (1.62 * f, 0.004, 0.4), (board.near(thock * wide), 0.010, desk))
            loudness = gain * board.near(1.0, 0.25)
            board.play(onset + delay, board.modes(ring, 0.06), loudness, event=not delay)
            board.play(onset + delay, click[board.noise.integers(8)], loudness, event=False)


def motor_vehicle(board: Board) -> None:
    """Engine harmonics on a drifting firing rate over road noise, idling, accelerating or passing by."""
    motion = board.choice("motion", ("idle", "cruise", "accelerate", "pass"))
    firing = board.log_uniform("firing_rate", 28, 60 if motion == "idle" else 120)
    t = board.time()
    u = t / max(board.seconds, 1e-3)
    drift = contour(t, 1 + 0.03 * np.cumsum(board.draw.standard_normal(6)) / 2)
    gain = np.ones(t.size)
    if motion == "accelerate":
        drift = drift * (1 + board.uniform("speed_up", 0.2, 0.7) * u)
    if motion == "pass":
        nearest = board.uniform("nearest", 0.35, 0.65)
        drift = drift * (1 - board.uniform("doppler", 0.03, 0.1) * np.tanh((u - nearest) * 8))
        gain = 0.3 + 0.7 / (1 + ((u - nearest) / 0.2) ** 2)
    k = np.arange(1, 41)
    muffler, lope = board.uniform("muffler", 180, 500), board.uniform("lope", 0.1, 0.45)
    weights = board.draw.uniform(0.5, 1.0, 40) / (1 + (k * firing / muffler) ** 1.6)
    phase = 2 * np.pi * np.cumsum(firing * drift) / board.rate
    engine = board.harmonics(firing * drift, weights) * (1 + lope * np.sin(phase / 2))
    road = board.band(board.white(t.size), 60, board.log_uniform("road_cutoff", 250, 900))
    intake = board.band(board.white(t.size), 600, 3500) * (1 + np.sin(phase)) * board.uniform("intake", 0.02, 0.08)
    board.play(0.0, gain * (engine + board.uniform("road", 0.3, 1.2) * road + intake))


RAIN_SURFACES = {  # drop resonances (Hz, Q)
    "pavement": ((2400, 1.5), (4200, 1.5), (6500, 1.2)),
    "leaves": ((1400, 1.5), (2600, 1.5), (5000, 1.2)),
    "roof": ((900, 3.0), (1900, 3.0), (3600, 2.0)),
}


def rain(board: Board) -> None:
    """Poisson drops, each ringing a surface, over the shaped noise of the drops too far off to tell apart."""
    surface = board.choice("surface", tuple(RAIN_SURFACES))
    density = board.log_uniform("drops_per_second", 150, 1500)
    hiss, top = board.log_uniform("hiss", 0.15, 0.6), board.log_uniform("hiss_cutoff", 5000, 12000)
    t = board.time()
    drops = np.zeros(t.size)
    for frequency, q in RAIN_SURFACES[surface]:
        count = 3 + board.draw.poisson(density * board.seconds / 3)
        times, gains = board.draw.uniform(0, board.seconds, count), board.draw.lognormal(0.0, 0.8, count)
        drops += board.resonances(board.sparks(times, gains, t.size), ((board.near(frequency), q, 1.0),))
    noise = board.band(board.white(t.size), 700, top)
    weather = contour(t, np.exp(0.12 * board.draw.standard_normal(5)))
    board.play(0.0, weather * (drops / np.sqrt(np.mean(drops**2)) + 2 * hiss * noise / np.sqrt(np.mean(noise**2))))


def sneeze_cough(board: Board) -> None:
    """Noise bursts through vocal formants with a sharp onset and a short voiced tail; a sneeze hisses after an "ah"."""
    kind = board.choice("kind", ("cough", "cough", "sneeze"))
    pitch, tract = board.log_uniform("pitch", 95, 300), board.uniform("tract", 0.85, 1.25)
    length, voiced = board.uniform("length", 0.14, 0.3), board.uniform("voiced", 0.1, 0.5)
    count = board.choice("count", (1, 2, 2, 3)) if kind == "cough" else 1
    vowel = ((650 * tract, 5, 1.0), (1250 * tract, 6, 0.8), (2700 * tract, 6, 0.6), (3800 * tract, 5, 0.4))
    onsets = board.onsets(length + board.uniform("gap", 0.04, 0.25), count=count, room=0.2)
    board.parameters["act"] = f"{kind} {len(onsets)}"
    for i, onset in enumerate(onsets):
        if kind == "sneeze":
            onset += _inhale(board, onset, pitch, vowel)
        t = board.time(board.near(length) * (1.3 if kind == "sneeze" else 1.0))
        white = board.white(t.size)
        burst = board.band(white, 350) * swell(t, 0.0008, 0.012 if kind == "cough" else 0.05)
        throat = board.resonances(white, vowel) * swell(t, 0.004, 0.3 * t[-1])
        f0 = board.near(pitch) * (1.15 - 0.4 * t / t[-1])
        voice = board.resonances(board.harmonics(f0, np.arange(1, 31) ** -0.7), vowel) * swell(t, 0.03, 0.3 * t[-1])
        hiss = board.band(white, 2500) * swell(t, 0.01, 0.25 * t[-1]) * (0.6 if kind == "sneeze" else 0.1)
        sound = (1.2 * burst + 2.0 * throat + voiced * voice + hiss) * arch(t, 1e-4, 0.02)
        board.play(onset, sound, board.near(0.85**i, 0.1))


def _inhale(board: Board, onset: float, pitch: float, vowel) -> float:
    """The "ah" before a sneeze; returns how long it and the pause after it last (s)."""
    length = min(board.uniform("inhale", 0.1, 0.22), 0.25 * board.seconds)
    t = board.time(length)
    source = board.harmonics(pitch * (1 + 0.3 * t / t[-1]), np.arange(1, 31) ** -0.7) + 0.3 * board.white(t.size)
    board.play(onset, board.resonances(source, vowel) * arch(t, 0.05, 0.03), 0.2)
    return length + 0.03


MODELS = {
    "DogBark": dog_bark,
    "Footstep": footstep,
    "GunShot": gun_shot,
    "Keyboard": keyboard,
    "MovingMotorVehicle": motor_vehicle,
    "Rain": rain,
    "Sneeze_Cough": sneeze_cough,
}
