"""Stage corpora: data/clips/CORPUS, equal clips with a manifest."""

import pandas as pd

from foleylib import paths
from foleylib.corpora.prepare import prepare
from foleylib.params.settings import Params


def make(corpus: str, cfg: Params) -> pd.DataFrame:
    """Prepare data/clips/`corpus`; returns the manifest. A root that is no absolute path starts at the repository."""
    settings = cfg.entry("corpora", corpus)
    if settings.root is not None:
        settings = settings.model_copy(update={"root": str(paths.ROOT / settings.root)})
    return prepare(corpus, settings, paths.CLIPS / corpus)
