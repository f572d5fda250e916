"""Where things are, whatever the working folder is. Set FOLEYLIB_ROOT to work in another copy of the repository."""

import os
from pathlib import Path

ROOT = Path(os.environ.get("FOLEYLIB_ROOT", Path(__file__).resolve().parents[1]))
PARAMS = ROOT / "params.yaml"
BUNDLED = ROOT / "data" / "bundled"
CLIPS = ROOT / "data" / "clips"
FEATURES = ROOT / "data" / "features"
SAMPLES = ROOT / "data" / "samples"
HEARD = ROOT / "data" / "heard"
MODELS = ROOT / "models"
FOUNDATION = MODELS / "foundation"
RESULTS = ROOT / "results"
SCRATCH = ROOT / "scratch"
