"""What the reader sees of names: the name and colour of a run, the head of a class, the label of an axis."""

import re
import zlib
from collections.abc import Iterable, Mapping

from foleylib.evaluation.metrics import METRICS
from foleylib.params.runs import Display

OTHERS = ("#332288", "#44aa99", "#999933", "#882255", "#cc6677", "#117733", "#aa4499", "#88ccee")  # Tol's muted scheme
BLUE, RED, GREY = "#0173b2", "#d55e00", "#777777"  # of seaborn's colour-blind palette; grey for lines of reference
AXES = {
    "seconds": "Time per clip (s)",
    "seconds_per_clip": "Time per clip (s)",
    "label": "Class",
    "n": "Diffusion step n",
    "step": "Training step",
    "steps": "Sampling steps",
    "k": "Neighbours K",
    "caption": "Caption of the clip",
    "bucket": "Training sounds of the class",
    "rank": "Rank of the neighbour",
    "rate": "Sampling rate (kHz)",
    "lambda_lclap": "λ of the latent CLAP loss",
    "cosine": "Cosine similarity",
}
CLASSES = {  # heads that are not the class name in words
    "MovingMotorVehicle": "Motor vehicle",
    "Sneeze_Cough": "Sneeze, cough",
    "HiFi-GAN": "HiFi-GAN",
    "interference": "Sounds mixed in",
    "average": "Average",
    "std": "Std.",
    "all": "All clips",
}


Displays = Mapping[str, Display] | None  # by run, as `display()` of the settings returns them


def shown(run: str, display: Displays = None) -> Display:
    """Name and colour of a run; without one of them its key, in a colour that depends on it alone."""
    own = Display(str(run), OTHERS[zlib.crc32(str(run).encode()) % len(OTHERS)])
    given = (display or {}).get(run, own)
    return given if given.colour else Display(given.name, own.colour)


def colours(names: Iterable[str], display: Displays = None) -> dict[str, object]:
    """Colour by name: as `shown` where there is a run among the names, else (classes, say) by their order."""
    import seaborn

    names = list(dict.fromkeys(names))
    if any(name in (display or {}) for name in names):
        return {name: shown(name, display).colour for name in names}
    kind = "colorblind" if len(names) <= 10 else "husl"
    return dict(zip(names, seaborn.color_palette(kind, len(names))))


def metric_label(metric: str, embedder: str | None = None) -> str:
    """Label of a metric with the arrow to its better side, "FAD ↓" or "FAD (vggish) ↓"; unknown names as they are."""
    entry = METRICS.get(metric)
    arrow = {"lower": "↓", "higher": "↑"}[entry.better] if entry else ""
    label = entry.label if entry else str(metric)
    return " ".join(filter(None, (label, f"({embedder})" if embedder else "", arrow)))


def class_label(name: str) -> str:
    """A class name in words: DogBark is "Dog bark"."""
    words = re.sub("(?<=[a-z])[A-Z](?=[a-z])", lambda match: f" {match[0].lower()}", str(name)).replace("_", " ")
    return CLASSES.get(name, words)


def words(name: str, display: Displays = None) -> str:
    """What the reader sees of a column, a run, a metric or a class."""
    if name in (display or {}):
        return display[name].name
    return AXES.get(name) or (metric_label(name) if name in METRICS else class_label(name))
