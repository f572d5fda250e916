"""Texts of synthetic clips: the plain prompt of a class, and captions that say what was drawn for this clip."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from foleylib.datasets.manifest import facts

SURROUNDINGS = ("distance", "space", "background", "course")  # slots of every clip, said after the sentence
EVERY = "Every clip"
TRIES = 1000  # draws of a sentence, to find as many different ones as are asked for


@cache
def _texts() -> dict[str, dict]:
    return yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf8"))


def prompt(label: str) -> str:
    """The plain prompt of a class, as in text-driven Foley generation."""
    return _texts()[label]["prompt"]


def caption(label: str, info: dict, rng: np.random.Generator, *, surroundings: bool = True) -> str:
    """A sentence on one clip: material, size or pitch, count and pace of its sound, then distance, room and course.

    Parameters
    ----------
    label : str
        a class of texts.yaml
    info : dict
        "events", "parameters" and "change", as `render.render` returns them
    rng : numpy.random.Generator
        picks the sentence, the words and which surroundings are said: another draw is another caption of the same clip
    surroundings : bool
        whether distance, room and course are said
    """
    known, texts = facts(info), _texts()
    words = texts[EVERY]["words"] | texts[label]["words"]
    sentences = texts[label]["captions"]
    said = re.sub(
        r"\{(\w+)\}",
        lambda slot: _word(words[slot[1]], known, rng),
        sentences[rng.integers(len(sentences))],
    )
    further = [text for slot in SURROUNDINGS if (text := _word(words[slot], known, rng))]
    count = min(len(further), int(rng.integers(1, 4))) if surroundings else 0
    for i in sorted(rng.permutation(len(further))[:count]):
        said += f", {further[i]}"
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(said.split()))


def scene_captions(parts: list[dict], rng: np.random.Generator, count: int) -> list[str]:
    """`count` different sentences on one scene, the first that of `scene_caption`."""
    said = [scene_caption(parts, rng)]
    for _ in range(TRIES):
        if len(said) >= count:
            return said[:count]
        said += [text for text in [scene_caption(parts, rng)] if text not in said]
    raise ValueError(f"{len(said)} wordings of {said[0]!r} are found, not {count}; ask for fewer captions")


def scene_caption(parts: list[dict], rng: np.random.Generator) -> str:
    """A sentence on sounds that follow each other, as `render.render_scene` tells of them; of one alone it says more."""
    said = [caption(part["label"], part, rng, surroundings=len(parts) == 1) for part in parts]
    links = (", then ", ", followed by ", ", after that ")
    return said[0] + "".join(links[rng.integers(len(links))] + text for text in said[1:])


def _word(spec: dict, known: dict, rng: np.random.Generator) -> str:
    """One of the words that `spec`, {parameter: {limit or value: words}}, has for a clip."""
    ((parameter, options),) = spec.items()
    value = known[parameter]
    key = value if isinstance(value, str) else next(limit for limit in options if value < limit)
    return options[key][rng.integers(len(options[key]))]
