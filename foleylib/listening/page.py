"""The kit of a listening test: blinded pages that need no network, and the key that stays with the experimenter.

Layout of the folder
--------------------
surveys/survey-*.html    what participants get: sounds, classes and random tokens, nothing on runs or files
key.csv                  token -> run, class, clip and level, and the rating that each attention check asks for

Sounds are FLAC by default: every browser plays it, and a codec's own artefacts would be rated along with the system's.
A token is a digest of the sound it stands for, so that ratings of an earlier kit cannot be read with a later key.
"""

import base64
import hashlib
import html
import json
import re
import zlib
from pathlib import Path

import numpy as np

from foleylib import listen, tables

TEMPLATE = Path(__file__).with_name("page.html")
LOUDNESS = -26.0  # dB re full scale, the nominal level of ITU-T P.56, far enough below 0 for a gun shot's crest
PEAK, MAX_GAIN = 0.95, 40.0  # full scale; dB
FRAME, ACTIVE = 0.05, 20.0  # seconds; dB below the loudest frame
KEY = ["kit", "survey", "token", "kind", "run", "class", "clip", "rating",
       "before_db", "gain_db", "after_db", "limited"]  # fmt: skip


def choose(sounds, *, clips_per_class, seed):
    """Draw as many clips of each class from every run, at random without replacement.

    Parameters
    ----------
    sounds : dict of run -> (manifest, waves)
        as `foleylib.runs.load` returns them: a DataFrame with columns id and label, and waves [shape=(N, T)]
    clips_per_class : int > 0
    seed : int >= 0

    Returns
    -------
    pandas.DataFrame [columns: run, class, clip, wave]
        for `build`

    Raises
    ------
    ValueError
        if the runs differ in their classes, or one has fewer clips of a class than asked for
    """
    import pandas

    sets = {run: frozenset(manifest.label) for run, (manifest, _) in sounds.items()}
    if len(set(sets.values())) != 1:
        raise ValueError(f"sounds differ in their classes: { {run: sorted(s) for run, s in sets.items()} }; equal them")
    rows = []
    for run, (manifest, waves) in sounds.items():
        for label in sorted(sets[run]):
            places = np.flatnonzero(manifest.label.to_numpy() == label)
            if not 0 < clips_per_class <= len(places):
                raise ValueError(
                    f"clips_per_class={clips_per_class}: '{run}' has {len(places)} clips of '{label}'; ask for fewer"
                )
            rng = np.random.default_rng([seed, zlib.crc32(run.encode()), zlib.crc32(label.encode())])
            drawn = sorted(rng.choice(places, clips_per_class, replace=False))
            rows += [(run, label, str(manifest.id.iloc[i]), np.asarray(waves[i])) for i in drawn]
    return pandas.DataFrame(rows, columns=["run", "class", "clip", "wave"])


def active_level(wave, rate):
    """RMS level of the active part of a wave (in dB re full scale; -inf for silence).

    The wave is cut into frames of 50 ms; active are those at most 20 dB below the loudest. Pauses and tails, which
    some classes are mostly made of, thus do not make a clip count as soft.
    """
    wave = np.asarray(wave, dtype=np.float64)
    size = max(1, min(len(wave), round(FRAME * rate)))
    frames = wave[: len(wave) // size * size].reshape(-1, size)  # (frames, size)
    power = (frames**2).mean(axis=1)
    if not power.max() > 0:
        return -np.inf
    return float(10 * np.log10(power[power >= power.max() * 10 ** (-ACTIVE / 10)].mean()))


def match_loudness(wave, rate, *, target=LOUDNESS):
    """Bring a clip to a common loudness, with a gain alone: no compression, no clipping.

    The measure is `active_level`, which unlike ITU-R BS.1770 has no frequency weighting and no 400 ms blocks, so that
    single knocks shorter than a block have a level too. Where the gain would take the peak above 0.95, or amplify by
    more than 40 dB, it is cut to that limit and the clip stays softer than the others; silence is left as it is.

    Parameters
    ----------
    wave : [shape=(T,)] in [-1, 1]
    rate : int > 0, in Hz
    target : float
        in dB re full scale

    Returns
    -------
    wave : np.ndarray [shape=(T,), float32]
    levels : dict
        before_db, gain_db, after_db, and limited: whether the target was not reached
    """
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"wave of shape {wave.shape}: give finite samples of one channel, (T,)")
    before = active_level(wave, rate)
    if before == -np.inf:
        return wave, {"before_db": before, "gain_db": 0.0, "after_db": before, "limited": True}
    wanted = target - before
    gain = min(wanted, 20 * np.log10(PEAK / np.abs(wave).max()), MAX_GAIN)
    levels = {"before_db": before, "gain_db": float(gain), "after_db": before + float(gain)}
    return wave * np.float32(10 ** (gain / 20)), levels | {"limited": bool(gain < wanted)}


def build(out, clips, *, rate, seed, title="Listening test", by_class=True, checks=1, loudness=LOUDNESS, codec="flac"):
    """Write the pages of a blinded listening test and its key.

    Parameters
    ----------
    out : str or Path
        folder to make; pages of an earlier kit in it are removed
    clips : pandas.DataFrame [columns: run, class, clip, wave]
        each wave [shape=(T,)] in [-1, 1]; see `choose`
    rate : int > 0, in Hz
    seed : int >= 0
        of the tokens and the attention checks. The order of presentation depends on the participant's id
    title : str
        shown to participants: keep it free of the systems' names
    by_class : bool
        one survey a class, as in *latent-clap-loss*, Section V-C, or all classes in one
    checks : int >= 0
        attention checks in each survey: items that ask for a given rating
    loudness : float, in dB re full scale
        see `match_loudness`
    codec : "flac" or "ogg"

    Returns
    -------
    pandas.DataFrame
        the key as in `out`/key.csv, one row per token; `limited` marks clips that did not reach the loudness

    Raises
    ------
    ValueError
        if a column lacks, a clip occurs twice, or a survey lacks a run
    """
    surveys = _surveys(clips, by_class)
    key, pages = [], {}
    for name, part in surveys.items():
        rows, items = _sounds(part, name, rate, seed, loudness, codec)
        asked = _checks(name, seed, checks)
        key += rows + [row for row, _ in asked]
        pages[name] = items + [item for _, item in asked]
    kit = hashlib.sha256("".join(sorted(row["token"] for row in key)).encode()).hexdigest()[:12]
    return _write(Path(out), [row | {"kit": kit} for row in key], pages, kit, title)


def _surveys(clips, by_class):
    """Parts of the clips by name of their survey, each with every run."""
    lacking = [column for column in ("run", "class", "clip", "wave") if column not in clips.columns]
    if lacking or not len(clips):
        raise ValueError(
            f"clips has {len(clips)} rows and no column {lacking}: give run, class, clip and wave, see choose"
        )
    twice = clips[clips.duplicated(["run", "class", "clip"])]
    if len(twice):
        raise ValueError(f"clips holds {twice['clip'].iloc[0]!r} of run {twice.run.iloc[0]!r} twice; drop one")
    parts = {"all": clips} if not by_class else {_slug(label): part for label, part in clips.groupby("class")}
    if by_class and len(parts) < clips["class"].nunique():
        raise ValueError(f"class names {sorted(clips['class'].unique())} differ only in signs; rename them")
    for name, part in parts.items():
        absent = sorted(set(clips.run) - set(part.run))
        if absent:
            raise ValueError(f"survey '{name}' has no clip of {absent}: every survey compares all runs; add clips")
    return parts


def _slug(label):
    return re.sub("[^a-z0-9]+", "-", str(label).lower()).strip("-")


def _token(*parts):
    return "t" + hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


def _sounds(part, survey, rate, seed, loudness, codec):
    """Rows of the key and items of the page for the clips of one survey."""
    rows, items = [], []
    for run, label, clip, wave in zip(part.run, part["class"], part["clip"], part.wave):
        wave, levels = match_loudness(wave, rate, target=loudness)
        sound = listen.encode(wave, rate, codec=codec)
        token = _token(seed, survey, run, label, clip, hashlib.sha256(sound).hexdigest())
        src = f"data:{listen.CODECS[codec][2]};base64,{base64.b64encode(sound).decode('ascii')}"
        items.append({"token": token, "text": tables.CLASSES.get(label, label), "src": src})
        what = {"survey": survey, "token": token, "kind": "clip", "run": run, "class": label, "clip": clip}
        rows.append(what | levels)
    return rows, items


def _checks(survey, seed, count):
    """Attention checks of one survey as (row of the key, item of the page); the ratings they ask for differ."""
    if not 0 <= count <= 9:
        raise ValueError(f"checks={count}: give 0 to 9 attention checks a survey")
    rng = np.random.default_rng([seed, zlib.crc32(survey.encode())])
    asked = []
    for rating in map(int, rng.permutation(np.arange(1, 10))[:count]):
        token = _token(seed, survey, "check", rating)
        text = f"No sound this time. To show that you are reading, set both ratings to {rating}."
        row = {"survey": survey, "token": token, "kind": "check", "rating": rating}
        asked.append((row, {"token": token, "text": text, "rating": rating}))
    return asked


def _write(out, key, pages, kit, title):
    import pandas

    folder, template = out / "surveys", TEMPLATE.read_text(encoding="utf8")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("survey-*.html"):  # its tokens are in no key any more
        stale.unlink()
    for survey, items in pages.items():
        # Sorted by token: the place in the file tells nothing about the run.
        data = {"kit": kit, "survey": survey, "items": sorted(items, key=lambda item: item["token"])}
        text = json.dumps(data).replace("<", "\\u003c")
        page = template.replace("__TITLE__", html.escape(title)).replace("__KIT__", text)
        (folder / f"survey-{survey}.html").write_text(page, encoding="utf8")
    frame = pandas.DataFrame(key).reindex(columns=KEY)
    frame = frame.astype({"rating": "Int64", "limited": "boolean"})  # checks have no level, clips no wanted rating
    tables.write(frame, out / "key.csv")
    return frame
