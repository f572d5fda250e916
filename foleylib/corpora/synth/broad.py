"""Sound models of the classes beyond Foley that make the broad pre-training corpus; see `foley`."""

import numpy as np

from foleylib.corpora.synth.dsp import Board, arch, contour, swell


def bell(board: Board) -> None:
    """Struck inharmonic partials of a church, hand or table bell."""
    pitch, ring = board.log_uniform("pitch", 280, 1500), board.log_uniform("ring", 0.25, 1.5)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.52, 3.01, 4.1, 5.4])
    gains, decays = board.draw.uniform(0.3, 1.0, 9) / ratios**0.3, ring / ratios**0.6
    partials = [(pitch * r * board.near(1.0, 0.004), d, g) for r, d, g in zip(ratios, decays, gains, strict=True)]
    strike = board.modes(partials, min(10 * ring, board.seconds))
    t = board.time(0.02)
    strike[: t.size] += 0.8 * board.band(board.white(t.size), 1500) * swell(t, 0.0003, 0.004)
    for onset in board.onsets(board.uniform("period", 0.35, 1.5), jitter=0.04, room=0.3):
        board.play(onset, strike, board.near(1.0, 0.15))


def siren(board: Board) -> None:
    """Horn harmonics on a wailing, yelping or two-tone pitch."""
    kind = board.choice("kind", ("wail", "yelp", "two_tone"))
    low, span = board.uniform("lowest", 450, 750), board.uniform("span", 1.5, 2.3)
    period = board.uniform("period", *{"wail": (1.6, 4.0), "yelp": (0.22, 0.45), "two_tone": (0.7, 1.2)}[kind])
    t, start = board.time(), board.uniform("phase", 0.0, 1.0)
    cycle = np.sin(2 * np.pi * (t / period + start))
    shape = 0.5 + 0.5 * (np.tanh(25 * cycle) if kind == "two_tone" else cycle)
    span = 1.34 if kind == "two_tone" else span
    horn = board.harmonics(low * span**shape, np.arange(1, 16) ** -board.uniform("tilt", 0.6, 1.1))
    peaks = ((board.uniform("horn", 800, 1600), 1.5, 1.5), (2800, 2.0, 0.8))
    board.play(0.0, 0.4 * horn + board.resonances(horn, peaks))


def birdsong(board: Board) -> None:
    """Phrases of whistled syllables that sweep, trill or warble."""
    pitch, bend = board.log_uniform("pitch", 2000, 3300), board.uniform("bend", 0.1, 0.35)
    length, trill = board.uniform("syllable", 0.05, 0.16), board.uniform("trill", 15, 45)
    depth = board.choice("trill_depth", (0.0, 0.0, 0.06, 0.1))
    shape = board.draw.uniform(-1, 1, 4)
    for onset in board.onsets(length + board.uniform("gap", 0.02, 0.15), jitter=0.15, room=0.08):
        t = board.time(board.near(length, 0.2))
        f = board.near(pitch, 0.06) * (1 + bend * contour(t, shape) + depth * np.sin(2 * np.pi * trill * t))
        sound = board.harmonics(f, (1.0, 0.12, 0.03)) * arch(t, 0.25 * t[-1], 0.4 * t[-1])
        board.play(onset, sound, board.near(1.0, 0.3))
        if board.draw.random() < 0.3:
            shape = board.draw.uniform(-1, 1, 4)


def thunder(board: Board) -> None:
    """Rolling low-passed noise in several claps, with a crackle at its start."""
    cutoff, roll = board.log_uniform("cutoff", 90, 260), board.uniform("roll", 0.5, 2.0)
    crackle, t = board.log_uniform("crackle", 0.02, 0.3), board.time()
    rumble = board.band(board.band(board.white(t.size), 25, cutoff), None, 2 * cutoff)
    envelope = np.zeros(t.size)
    onsets = board.onsets(board.uniform("clap_gap", 0.15, 0.5), jitter=0.4, count=8)
    for i, onset in enumerate(onsets):
        late = np.maximum(t - onset, 0.0)
        envelope += board.near(0.9**i, 0.4) * swell(late, 0.04, 0.25 * roll)
    sparks = board.band(board.white(t.size), 300, 2500) * np.maximum(board.coloured(t.size, 1), 0) ** 2 * envelope
    sound = rumble / np.sqrt(np.mean(rumble**2)) * envelope + 0.3 * crackle * sparks
    board.play(onsets[0], sound[int(onsets[0] * board.rate) :])


def wind(board: Board) -> None:
    """Gusts: a slowly wandering resonance in noise, with a faint whistle."""
    centre, swing, t = board.log_uniform("centre", 220, 700), board.uniform("swing", 0.2, 0.6), board.time()
    gust = contour(t, board.draw.uniform(0.0, 1.0, 3 + int(2 * board.seconds)))
    white = board.white(t.size)
    low, high = (
        board.resonances(white, ((centre * shift, 1.6, 1.0), (2.1 * centre * shift, 3.0, 0.3)))
        for shift in (1 - swing / 2, 1 + swing)
    )
    body = (1 - gust) * low + gust * high
    whistle, level = board.uniform("whistle", 900, 1500), board.uniform("whistle_level", 0.2, 1.2)
    tone = board.resonances(white, ((whistle, 25, level),))
    board.play(0.0, (0.45 + gust) * body + gust**2 * tone)


def clock_tick(board: Board) -> None:
    """Regular ticks and tocks of a small hard case."""
    tick, skew = board.log_uniform("tick", 2000, 3400), board.uniform("tock_ratio", 0.75, 0.95)
    ring, case = board.log_uniform("ring", 0.005, 0.015), board.uniform("case", 500, 1100)
    for i, onset in enumerate(board.onsets(board.uniform("period", 0.18, 0.5), jitter=0.004, room=0.05)):
        f = tick * (skew if i % 2 else 1.0)
        partials = ((f, ring, 1.0), (1.57 * f, ring / 2, 0.7), (2.21 * f, ring / 3, 0.5), (case, 0.012, 0.25))
        sound = board.modes(partials, 0.08)
        echo = int(0.012 * board.rate)
        sound[echo:] += 0.4 * sound[:-echo]
        board.play(onset, sound)


def door_knock(board: Board) -> None:
    """Bouts of quick knuckle blows on a hollow panel."""
    panel, hollow = board.log_uniform("panel", 170, 380), board.uniform("hollow", 0.018, 0.045)
    period, blows = board.uniform("period", 0.14, 0.24), board.choice("blows", (3, 4, 5))
    ratios = board.draw.uniform(0.95, 1.05, 5) * (1.0, 1.6, 2.4, 3.3, 4.7)
    pause = board.uniform("pause", 0.5, 0.9)
    for bout in board.onsets(blows * period + pause, room=0.3):
        for i in range(blows):
            onset = bout + i * board.near(period, 0.03)
            if onset < board.seconds - 0.05:
                partials = [(panel * r, hollow / r**0.7, 1 / r) for r in ratios]
                sound = board.modes(partials, 0.25)
                t = board.time(0.02)
                sound[: t.size] += 0.5 * board.band(board.white(t.size), 500, 2500) * swell(t, 0.0004, 0.003)
                board.play(onset, sound, board.near(1.0, 0.12))


def water_drip(board: Board) -> None:
    """Single drops: a small impact, then a bubble whose pitch rises as it decays."""
    pitch, rise = board.log_uniform("pitch", 550, 1700), board.uniform("rise", 0.3, 1.0)
    ring = board.uniform("ring", 0.02, 0.05)
    for onset in board.onsets(board.uniform("period", 0.25, 0.7), jitter=0.1, room=0.1):
        t, f0 = board.time(8 * ring), board.near(pitch, 0.12)
        f = f0 * (1 + rise * np.minimum(t / (4 * ring), 1.0))
        bubble = board.harmonics(f, (1.0, 0.08)) * swell(np.maximum(t - 0.012, 0), 0.002, ring)
        plop = board.band(board.white(t.size), 1500, 6000) * swell(t, 0.0004, 0.003)
        board.play(onset, bubble + 0.3 * plop, board.near(1.0, 0.2))


def clapping(board: Board) -> None:
    """One to four people clapping, each with their own hands and tempo."""
    people, tempo = board.choice("people", (1, 2, 3, 4)), board.uniform("period", 0.2, 0.36)
    for _ in range(people):
        palm, cup = board.near(1250, 0.25), board.draw.uniform(1.5, 4.0)
        decay = board.draw.uniform(0.007, 0.014)
        for onset in board.onsets(board.near(tempo, 0.1), jitter=0.05, room=0.05):
            t = board.time(0.1)
            f, white = board.near(palm, 0.05), board.white(t.size)
            sound = board.resonances(white, ((f, cup, 1.0), (2.3 * f, 2.0, 0.4))) + 0.12 * board.band(white, 600)
            board.play(onset, sound * swell(t, 0.0006, decay), board.near(1.0, 0.2))


def cricket(board: Board) -> None:
    """Chirps of a few fast pulses on a steady high carrier."""
    carrier, pulses = board.uniform("carrier", 2700, 3550), board.choice("pulses", (3, 4, 5))
    pulse, rest = 1 / board.uniform("pulses_per_second", 28, 55), board.uniform("rest", 0.08, 0.4)
    t = board.time(pulses * pulse)
    gate = np.sin(np.pi * np.minimum((t / pulse % 1.0) / 0.75, 1.0)) ** 1.5
    chirp = board.harmonics(np.full(t.size, carrier), (1.0, 0.15, 0.05)) * gate * contour(t, (0.5, 0.9, 1.0, 1.0))
    for onset in board.onsets(pulses * pulse + rest, jitter=0.04, room=0.05):
        board.play(onset, chirp, board.near(1.0, 0.08))


def helicopter(board: Board) -> None:
    """Blade slap: low thuds and swishes repeating at the blade rate, with a turbine whine."""
    blades, t = board.uniform("blade_rate", 10, 19), board.time()
    sharp, whine = board.uniform("sharpness", 3, 9), board.uniform("whine", 0.02, 0.12)
    speed = blades * contour(t, 1 + 0.02 * board.draw.standard_normal(4))
    phase = np.pi * np.cumsum(speed) / board.rate + board.draw.uniform(0, np.pi)
    slap = np.abs(np.cos(phase)) ** (2 * sharp)
    white = board.white(t.size)
    thud = board.band(white, 50, board.uniform("thud", 180, 350)) * slap
    swish = board.band(white, 500, board.uniform("swish", 1800, 4000)) * (0.15 + slap)
    turbine = board.harmonics(board.uniform("turbine", 600, 1300) * speed / blades, (1.0, 0.5, 0.3))
    board.play(0.0, 4 * thud + board.uniform("swish_level", 0.3, 0.9) * swish + 0.5 * whine * turbine)


def glass_break(board: Board) -> None:
    """A burst, then shards ringing at many high frequencies with thinning density."""
    bright, spread = board.log_uniform("brightness", 1800, 3200), board.uniform("spread", 0.1, 0.3)
    count = int(board.uniform("shards", 35, 80))
    for onset in board.onsets(board.uniform("gap", 1.5, 3.0), room=0.4):
        t = board.time(0.9)
        sound = 1.5 * board.band(board.white(t.size), 1000) * swell(t, 0.0005, board.draw.uniform(0.012, 0.035))
        times = np.minimum(board.draw.exponential(spread, count), 0.7)
        tones = np.exp(board.draw.uniform(np.log(bright), np.log(3.2 * bright), count))
        rings, gains = board.draw.uniform(0.008, 0.04, count), board.draw.uniform(0.15, 0.9, count)
        for time, tone, ring, gain in zip(times, tones, rings, gains * np.exp(-times / 0.4), strict=True):
            first, shard = int(time * board.rate), board.modes(((tone, ring, gain),), 0.18)
            sound[first : first + shard.size] += shard[: t.size - first]
        board.play(onset, sound)


def saw(board: Board) -> None:
    """Strokes back and forth: teeth grating at a rate that follows the stroke speed."""
    stroke, teeth = board.uniform("stroke", 0.2, 0.42), board.uniform("teeth_per_second", 120, 320)
    wood, back = board.uniform("wood", 1100, 2200), board.uniform("back_level", 0.4, 0.9)
    for i, onset in enumerate(board.onsets(stroke, jitter=0.05)):
        t = board.time(0.85 * stroke)
        speed = np.abs(np.sin(np.pi * t / t[-1])) ** 0.6
        grate = board.harmonics(teeth * (0.35 + speed) * board.near(1.0, 0.04), np.arange(1, 17) ** -0.3)
        rasp = board.white(t.size) * np.maximum(grate, 0.0)
        sound = board.resonances(0.4 * grate + rasp, ((wood, 2, 1.0), (2.1 * wood, 2, 0.8), (350, 2, 0.15)))
        board.play(onset, sound * speed, back if i % 2 else 1.0)


def frog(board: Board) -> None:
    """Croaks: a pulse train ringing a throat resonance."""
    pulses, throat = board.uniform("pulses_per_second", 32, 75), board.log_uniform("throat", 450, 1100)
    length, rest = board.uniform("length", 0.18, 0.42), board.uniform("rest", 0.1, 0.4)
    for onset in board.onsets(length + rest, jitter=0.08, room=0.12):
        t = board.time(board.near(length))
        beats = np.arange(0.002, t[-1], 1 / board.near(pulses, 0.04))
        train = board.sparks(beats, np.ones(beats.size), t.size)
        f = board.near(throat, 0.05)
        sound = board.resonances(train, ((f, 9, 1.0), (2.6 * f, 10, 0.6), (4.4 * f, 8, 0.15)))
        board.play(onset, sound * contour(t, (0.3, 0.8, 1.0, 1.0, 0.0)), board.near(1.0, 0.1))


MODELS = {
    "Bell": bell,
    "Siren": siren,
    "Birdsong": birdsong,
    "Thunder": thunder,
    "Wind": wind,
    "ClockTick": clock_tick,
    "DoorKnock": door_knock,
    "WaterDrip": water_drip,
    "Clapping": clapping,
    "Cricket": cricket,
    "Helicopter": helicopter,
    "GlassBreak": glass_break,
    "Saw": saw,
    "Frog": frog,
}
