"""What a run may be used for: the licences of the clips and of the weights that it was made from."""

import re
from collections.abc import Sequence
from pathlib import Path

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.params.settings import Params
from foleylib.stages.cards import UNKNOWN, behind, of_weights, provenance_of

# Licences of published evaluators, as their pages on the Hugging Face Hub and Zenodo state them.
EVALUATORS = {
    "cnn10": "CC BY 4.0",
    "cnn14": "CC BY 4.0",
    "cnn14_16k": "CC BY 4.0",
    "fad_16k": "Apache-2.0",
    "fad_dcase": "Apache-2.0",
    "laion_clap": "Apache-2.0",
}
# What a licence says: words that forbid commercial use, which count first, and licences that permit it.
FORBIDS = re.compile(r"\bnc\b|non-?commercial|\bresearch\b|\bacademic\b|\buploaders\b", re.IGNORECASE)
PERMITS = re.compile(r"^cc0|\bcc[- ]by(-sa)?(?![-\w])|/licenses/by(-sa)?/|public ?domain|^apache|^mit\b", re.IGNORECASE)


def of_run(run: str, cfg: Params) -> list[dict[str, str]]:
    """The licences behind a row's clips: [{"part", "licence"}], a row for each licence of a part.

    A part is "clips of CORPUS" or "weights of PART". Weights that were trained here have the licences of the clips that
    they learned from, published ones their own. What a run is scored with makes no clip and does not count.
    """
    corpus, rows = cfg.sampling.corpus, []
    recorded = cfg.controls[run].source not in ("noise", "silence") if run in cfg.controls else cfg.system_of(run)
    if recorded:
        rows += [_row(f"clips of {corpus}", licence) for licence in manifests.licences(paths.CLIPS / corpus)]
    for folder in _weights_of(run, cfg):
        rows += [_row(f"weights of {folder.name}", licence) for licence in of_weights(provenance_of(folder))]
    return rows


def _row(part: str, licence: str) -> dict[str, str]:
    return {"part": part, "licence": licence or UNKNOWN}


def _weights_of(run: str, cfg: Params) -> list[Path]:
    """Folders of the weights that a row's clips hang on."""
    is_control = run in cfg.controls
    options = cfg.sampling if is_control else cfg.sampling_of(run)
    decoder = ["vae", "vocoder"] if options.vocoder == "hifigan" else ["vae"]
    if is_control:
        return [paths.FOUNDATION / part for part in decoder if cfg.controls[run].decoded]
    name = cfg.system_of(run)
    if name is None:
        return [paths.FOUNDATION / part for part in ("clap", Path(cfg.source_run(run).clips.made_from).name, *decoder)]
    return behind(cfg.systems[name], decoder)


def sentence(rows: Sequence[dict[str, str]]) -> str:
    """What clips made from such parts may be used for, in one sentence."""
    forbid = [row for row in rows if FORBIDS.search(row["licence"])]
    if forbid:
        return f"May not be used commercially: made from {_listed(forbid)}."
    other = [row for row in rows if not PERMITS.search(row["licence"])]
    if other:
        return f"May be used commercially only where it is known that these allow it: {_listed(other)}."
    return "Nothing that it was made from forbids commercial use" + (f": {_listed(rows)}." if rows else ".")


def _listed(rows: Sequence[dict[str, str]]) -> str:
    """Parts by licence: "weights of clap, vae (CC BY 4.0); clips of foley (CC0-1.0)"."""
    parts = {}
    for row in rows:
        kind, name = row["part"].split(" of ")
        parts.setdefault((row["licence"], kind), {})[name] = None
    return "; ".join(f"{kind} of {', '.join(names)} ({licence})" for (licence, kind), names in parts.items())


def on_card(run: str, cfg: Params) -> dict:
    """What a run's card says of licences: {"made_from", "scored_with", "use"}."""
    rows = of_run(run, cfg)
    scored = {name: EVALUATORS[cfg.evaluators[name].kind] for name in cfg.evaluate.further}
    return {"made_from": rows, "scored_with": scored, "use": sentence(rows)}


def uses(cards: dict[str, dict]) -> dict[str, list[str]]:
    """What the clips of rows may be used for, from the cards of the rows by name: sentence -> rows."""
    told = {}
    for run, card in cards.items():
        told.setdefault(card["licences"]["use"], []).append(run)
    return told
