"""Listening test: a blinded kit of self-contained pages, and the analysis of the ratings that come back.

As in Section V-C of *latent-clap-loss*: one survey a class, audio quality and class relevance from 0 to 10, a mixed
ANOVA (system within, class between listeners), Bonferroni-corrected paired t-tests, and the layout of Table II.
"""

from foleylib.listening.analysis import anova, pairwise, sphericity
from foleylib.listening.page import active_level, build, choose, match_loudness
from foleylib.listening.ratings import read_key, read_results
from foleylib.listening.report import describe, loudness_figure, means, table_two

__all__ = [
    "active_level",
    "anova",
    "build",
    "choose",
    "describe",
    "loudness_figure",
    "match_loudness",
    "means",
    "pairwise",
    "read_key",
    "read_results",
    "sphericity",
    "table_two",
]
