"""What the notebooks of the combined model show of results on disk."""

from foleylib.papers import src_gaudio_pages
from foleylib.params.runs import Display

SCORES = src_gaudio_pages.SCORES
DISPLAY = {
    "full": Display("All parts", "#0173b2"),
    "no_tuning": Display("Without the tuning layer", "#029e73"),
    "no_lclap": Display("Without the latent CLAP loss", "#cc78bc"),
    "no_retrieval": Display("Without retrieval", "#d55e00"),
    "no_rate": Display("Without the sampling rate", "#de8f05"),
    "none": Display("None of them", "#777777"),
    "real": src_gaudio_pages.DISPLAY["real"],
    "codec": src_gaudio_pages.DISPLAY["codec"],
}
PAIRS = [("full", name) for name in ("no_tuning", "no_lclap", "no_retrieval", "no_rate", "none")]
