"""The kit of a listening test: blinded pages that need no network, and the key that stays with the experimenter.

surveys/survey-*.html    what participants get: sounds, classes and random tokens, nothing on runs or files
key.csv                  token -> run, class, clip and level, and the rating that each attention check asks for

As in Section V-C of *latent-clap-loss*, each clip is rated for audio quality and class relevance from 0 to 10. Sounds
are FLAC: a codec's artefacts would be rated along with the system's. A token is a digest of the sound it stands for, so
that ratings of an earlier kit cannot be read with a later key.
"""

import hashlib
import html
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib.report.players import MIME, data_url, encode, mono
from foleylib.report.style import class_label
from foleylib.runtime import write_csv

TEMPLATE = Path(__file__).with_name("page.html")
LOUDNESS = -26.0  # dB re full scale, the nominal level of ITU-T P.56, far enough below 0 for a gun shot's crest
PEAK, MAX_GAIN = 0.95, 40.0  # full scale; dB
FRAME, ACTIVE = 0.05, 20.0  # seconds; dB below the loudest frame
CLIP = ["run", "class", "clip"]
KEY = ["kit", "survey", "token", "kind", *CLIP, "rating", "before_db", "gain_db", "after_db", "limited"]


def choose(sounds: dict[str, tuple[pd.DataFrame, np.ndarray]], *, clips_per_class: int, seed: int) -> pd.DataFrame:
    """Draw as many clips of each class from every run, at random without replacement, for `build`.

    `sounds` are (manifest with id and label, waves [shape=(N, T)]) by run. Returns run, class, clip and wave.
    """
    sets = {run: sorted(set(manifest.label)) for run, (manifest, _) in sounds.items()}
    if len(set(map(tuple, sets.values()))) != 1:
        raise ValueError(f"sounds differ in their classes: {sets}; equal them")
    if any("" in labels for labels in sets.values()):
        raise ValueError("sounds have no classes, and listeners rate how well a clip fits its class: take the test out")
    rows = []
    for run, (manifest, waves) in sounds.items():
        for label in sets[run]:
            of_class = np.flatnonzero(manifest.label == label)
            if not 0 < clips_per_class <= len(of_class):
                has = f"'{run}' has {len(of_class)} clips of '{label}'"
                raise ValueError(f"clips_per_class={clips_per_class}: {has}; ask for fewer")
            rng = np.random.default_rng([seed, zlib.crc32(run.encode()), zlib.crc32(label.encode())])
            drawn = sorted(rng.choice(of_class, clips_per_class, replace=False))
            rows += [(run, label, str(manifest.id.iloc[i]), np.asarray(waves[i])) for i in drawn]
    return pd.DataFrame(rows, columns=[*CLIP, "wave"])


def active_level(wave: np.ndarray, rate: int) -> float:
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


def match_loudness(wave: np.ndarray, rate: int, *, target: float = LOUDNESS) -> tuple[np.ndarray, dict]:
    """Bring a wave [shape=(T,)] to a loudness (in dB re full scale) with a gain alone: no compression, no clipping.

    The measure is `active_level`, which unlike ITU-R BS.1770 has no frequency weighting and no 400 ms blocks, so that
    single knocks shorter than a block have a level too. Where the gain would take the peak above 0.95, or amplify by
    more than 40 dB, it is cut to that limit and the clip stays softer than the others; silence is left as it is.
    Returns the wave, and a dict of before_db, gain_db, after_db and limited: whether the target was not reached.
    """
    wave = mono(wave)
    before = active_level(wave, rate)
    if before == -np.inf:
        return wave, {"before_db": before, "gain_db": 0.0, "after_db": before, "limited": True}
    wanted = target - before
    gain = float(min(wanted, 20 * np.log10(PEAK / np.abs(wave).max()), MAX_GAIN))
    levels = {"before_db": before, "gain_db": gain, "after_db": before + gain, "limited": gain < wanted}
    return wave * np.float32(10 ** (gain / 20)), levels


def build(
    out: Path,
    clips: pd.DataFrame,
    *,
    rate: int,
    seed: int,
    title: str = "Listening test",
    by_class: bool = True,
    checks: int = 1,
    loudness: float = LOUDNESS,
) -> pd.DataFrame:
    """Write the pages of a blinded listening test and its key, which is returned; an earlier kit's pages are removed.

    `clips` have run, class, clip and wave, as of `choose`. `seed` is of the tokens and the attention checks: the order
    of presentation depends on the participant's id. `title` is shown to participants: keep it free of names of systems.
    There is one survey a class (`by_class`) or one of all, each with `checks` items that ask for a given rating. In the
    key `limited` marks clips that did not reach the `loudness` (see `match_loudness`).
    """
    key, pages = [], {}
    for survey, part in _surveys(clips, by_class).items():
        entries = [*_sounds(part, survey, rate, seed, loudness), *_checks(survey, seed, checks)]
        key += [{"survey": survey, "token": item["token"]} | row for row, item in entries]
        pages[survey] = sorted((item for _, item in entries), key=lambda item: item["token"])  # the order tells no run
    kit = hashlib.sha256("".join(sorted(row["token"] for row in key)).encode()).hexdigest()[:12]
    _write_pages(Path(out) / "surveys", pages, kit, title)
    frame = pd.DataFrame(key).assign(kit=kit).reindex(columns=KEY)
    frame = frame.astype({"rating": "Int64", "limited": "boolean"})  # checks have no level, clips no wanted rating
    write_csv(frame, Path(out) / "key.csv")
    return frame


def _surveys(clips: pd.DataFrame, by_class: bool) -> dict[str, pd.DataFrame]:
    """The clips of each survey by its name; every survey has every run."""
    lacking = [column for column in (*CLIP, "wave") if column not in clips.columns]
    if lacking or not len(clips):
        has = f"clips has {len(clips)} rows and no column {lacking}"
        raise ValueError(f"{has}: give run, class, clip and wave, see choose")
    twice = clips[clips.duplicated(CLIP)]
    if len(twice):
        raise ValueError(f"clips holds {twice['clip'].iloc[0]!r} of run {twice.run.iloc[0]!r} twice; drop one")
    names = clips["class"].map(lambda label: re.sub("[^a-z0-9]+", "-", str(label).lower()).strip("-"))
    if by_class and names.nunique() < clips["class"].nunique():
        raise ValueError(f"class names {sorted(clips['class'].unique())} differ only in signs; rename them")
    parts = dict(list(clips.groupby(names))) if by_class else {"all": clips}
    for name, part in parts.items():
        absent = sorted(set(clips.run) - set(part.run))
        if absent:
            raise ValueError(f"survey '{name}' has no clip of {absent}: every survey compares all runs; add clips")
    return parts


def _token(*parts) -> str:
    return "t" + hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:12]


def _sounds(part: pd.DataFrame, survey: str, rate: int, seed: int, loudness: float) -> Iterator[tuple[dict, dict]]:
    """A row of the key and an item of the page for each clip of a survey."""
    for run, label, clip, wave in zip(part.run, part["class"], part["clip"], part.wave):
        wave, levels = match_loudness(wave, rate, target=loudness)
        sound = encode(wave, rate, codec="flac")
        token = _token(seed, survey, run, label, clip, hashlib.sha256(sound).hexdigest())
        row = {"kind": "clip", "run": run, "class": label, "clip": clip} | levels
        yield row, {"token": token, "text": class_label(label), "src": data_url(sound, MIME["flac"])}


def _checks(survey: str, seed: int, count: int) -> Iterator[tuple[dict, dict]]:
    """A row of the key and an item of the page for each attention check; the ratings they ask for differ."""
    if not 0 <= count <= 9:
        raise ValueError(f"checks={count}: give 0 to 9 attention checks a survey")
    rng = np.random.default_rng([seed, zlib.crc32(survey.encode())])
    for rating in map(int, rng.permutation(np.arange(1, 10))[:count]):
        text = f"No sound this time. To show that you are reading, set both ratings to {rating}."
        item = {"token": _token(seed, survey, "check", rating), "text": text, "rating": rating}
        yield {"kind": "check", "rating": rating}, item


def _write_pages(folder: Path, pages: dict[str, list[dict]], kit: str, title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("survey-*.html"):  # its tokens are in no key any more
        stale.unlink()
    template = TEMPLATE.read_text(encoding="utf8").replace("__TITLE__", html.escape(title))
    for survey, items in pages.items():
        data = json.dumps({"kit": kit, "survey": survey, "items": items}).replace("<", "\\u003c")
        (folder / f"survey-{survey}.html").write_text(template.replace("__KIT__", data), encoding="utf8")
