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
EXAMPLES = ROOT / "data" / "examples"
CONTROLS = ROOT / "data" / "controls"
EMBEDDINGS = ROOT / "data" / "embeddings"
MODELS = ROOT / "models"
PUBLISHED = MODELS / "published"
FOUNDATION = MODELS / "foundation"
SYSTEMS = MODELS / "systems"
LATENT_CLAP = MODELS / "latent_clap"
JUDGE = MODELS / "judge"
DETECTOR = MODELS / "detector"
RE_AUDIOLDM = MODELS / "re_audioldm"
SRC_GAUDIO = MODELS / "src_gaudio"
VOCODERS = MODELS / "vocoders"
RESULTS = ROOT / "results"
SCRATCH = ROOT / "scratch"


def vocoder_of(name: str) -> Path:
    """The HiFi-GAN of an entry of `src_gaudio.vocoders`; the name of its folder is also that of the bundled part."""
    return VOCODERS / f"vocoder_{name}"


def clips_of(run: str) -> Path:
    """The clips of a row: data/samples/`run`, or data/controls/`run` of a control."""
    return CONTROLS / run if (CONTROLS / run).is_dir() else SAMPLES / run
