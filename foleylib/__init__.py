"""Foley and text-to-audio generation: corpora, models, training, sampling and evaluation behind the notebooks."""

import os
import warnings

# The hub's bars for local files and their complaint about ipywidgets would fill every executed notebook.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # AudioLDM's pipeline is called deprecated at every construction
warnings.filterwarnings("ignore", message="IProgress not found")
