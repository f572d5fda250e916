"""Where things are, whatever the working folder is. Set FOLEYLIB_ROOT to work in another copy of the repository."""

import os
from pathlib import Path

ROOT = Path(os.environ.get("FOLEYLIB_ROOT", Path(__file__).resolve().parents[1]))
PARAMS = ROOT / "params.yaml"
BUNDLED = ROOT / "data" / "bundled"
CLIPS = ROOT / "data" / "clips"
FEATURES = ROOT / "data" / "features"
RETRIEVAL = ROOT / "data" / "retrieval"
TOKENS = ROOT / "data" / "tokens"
SAMPLES = ROOT / "data" / "samples"
CONTROLS = ROOT / "data" / "controls"
EMBEDDINGS = ROOT / "data" / "embeddings"
MODELS = ROOT / "models"
FOUNDATION = MODELS / "foundation"
SYSTEMS = MODELS / "systems"
LATENT_CLAP = MODELS / "latent_clap"
JUDGE = MODELS / "judge"
DETECTOR = MODELS / "detector"
RE_AUDIOLDM = MODELS / "re_audioldm"
RESULTS = ROOT / "results"
SCRATCH = ROOT / "scratch"


def clips_of(run: str) -> Path:
    """The clips of a row: data/samples/`run`, or data/controls/`run` of a control."""
    return CONTROLS / run if (CONTROLS / run).is_dir() else SAMPLES / run
