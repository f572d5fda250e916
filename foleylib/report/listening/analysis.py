"""Which systems differ: the ANOVA and post-hoc tests of *latent-clap-loss*, Section V-C.

The listener is the unit: the ratings that a listener (an id) gave to the clips of one system and class are averaged
first. Who rated what tells three designs apart. In "one class" systems are repeated measures; in "mixed" each listener
rated one class (system within, class between listeners), as in the paper; in "within" each rated all classes.

The Greenhouse-Geisser factor and Mauchly's test are computed here, from the covariance of the systems within classes:
`pingouin.mixed_anova` takes both from a one-way analysis that ignores the classes, and its corrected p-value with them.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from foleylib.report.listening.ratings import MEASURES

ALPHA = 0.05


def _listener_means(ratings: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean rating of each listener for each system and class [columns: participant, class, run, value]."""
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r}: give one of {list(MEASURES)}")
    if ratings.run.nunique() < 2:
        raise ValueError(f"ratings has runs {sorted(set(ratings.run))}: a comparison needs two or more")
    groups = ratings.groupby(["participant", "class", "run"], as_index=False)[measure].mean()
    return groups.rename(columns={measure: "value"})


def _design(means: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """ "one class", "mixed" or "within", and the means as a table [index: participant and class, columns: run]."""
    classes, per_listener = means["class"].nunique(), means.groupby("participant")["class"].nunique()
    if not (per_listener == 1).all() and not (per_listener == classes).all():
        rated = f"from {per_listener.min()} to {per_listener.max()} of {classes} classes"
        needs = "the analysis needs one class each or all classes each; leave out the others"
        raise ValueError(f"listeners rated {rated}: {needs}")
    wide = means.pivot(index=["participant", "class"], columns="run", values="value")
    fewest = wide.dropna().groupby("class").size().min()
    if wide.isna().to_numpy().any() or fewest < 2:
        raise ValueError(f"{fewest} listeners rated all systems of a class: every class needs two, every listener all")
    return "one class" if classes == 1 else "mixed" if (per_listener == 1).all() else "within", wide


def sphericity(wide: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Greenhouse-Geisser factor and Mauchly's test, from the covariance pooled within groups.

    `wide` [shape=(N, k)] has a row a listener and a column a system, `groups` [shape=(N,)] the class that each rated.
    Returns eps in [1 / (k - 1), 1], W in [0, 1] and p of "spherical"; 1, 1, 1 where k = 2.
    """
    wide, groups = np.asarray(wide, dtype=np.float64), np.asarray(groups)
    k, names = wide.shape[1], np.unique(groups)
    freedom = len(wide) - len(names)
    if k < 3:
        return {"eps": 1.0, "W": 1.0, "p": 1.0}
    if freedom < k - 1:
        raise ValueError(f"{len(wide)} listeners in {len(names)} groups: {k} systems need {k - 1 + len(names)} or more")
    residuals = np.concatenate([wide[groups == g] - wide[groups == g].mean(axis=0) for g in names])
    contrasts = np.linalg.eigh(np.eye(k) - 1 / k)[1][:, 1:]  # (k, k - 1), orthonormal and each of sum 0
    covariance = contrasts.T @ (residuals.T @ residuals / freedom) @ contrasts
    trace = np.trace(covariance)
    if not trace > 0:
        raise ValueError("listeners do not differ in how they rate the systems: there is no variance to test against")
    eps = trace**2 / ((k - 1) * (covariance**2).sum())
    w = float(np.clip(np.linalg.det(covariance) / (trace / (k - 1)) ** (k - 1), 0, 1))
    scale = freedom - (2 * (k - 1) ** 2 + (k - 1) + 2) / (6 * (k - 1))
    chi2 = -scale * np.log(w) if w > 0 else np.inf
    return {"eps": float(eps), "W": w, "p": float(stats.chi2.sf(chi2, k * (k - 1) / 2 - 1))}


def anova(ratings: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Does the system matter: analysis of variance over listeners, corrected for missing sphericity.

    Takes ratings as `read_results` returns them, and "quality" or "relevance". Returns a row for each effect ("system",
    and with several classes "class" and "system x class") with df1, df2, F, p, eta2_p, W, p_sphericity, eps, the same
    corrected by Greenhouse and Geisser (df1_gg, df2_gg, p_gg), design, simulated, and `report`: the line of a paper,
    corrected where Mauchly's test has p < .05.
    """
    means = _listener_means(ratings, measure)
    design, wide = _design(means)
    effects = _effects(means, design)
    by_listener = wide if design != "within" else wide.groupby("participant").mean()
    groups = np.zeros(len(by_listener)) if design == "within" else by_listener.index.get_level_values("class")
    shape = sphericity(by_listener, groups)
    inside = ["system"] if design == "within" else [e for e in effects.index if e != "class"]
    effects.loc[inside, ["W", "p_sphericity", "eps"]] = shape["W"], shape["p"], shape["eps"]
    effects["eps"] = effects.eps.fillna(1.0)
    effects["df1_gg"], effects["df2_gg"] = effects.df1 * effects.eps, effects.df2 * effects.eps
    effects["p_gg"] = stats.f.sf(effects.F, effects.df1_gg, effects.df2_gg)
    effects["report"] = [_report(row) for row in effects.itertuples()]
    return effects.assign(design=design, simulated=bool(ratings.simulated.any()))


def _effects(means: pd.DataFrame, design: str) -> pd.DataFrame:
    """The analysis of variance [index: effect; columns: df1, df2, F, p, eta2_p, W, p_sphericity, eps]."""
    import pingouin

    what = {"data": means, "dv": "value", "subject": "participant", "correction": False, "effsize": "np2"}
    if design == "mixed":
        table = pingouin.mixed_anova(**what, within="run", between="class")
    elif design == "within":
        table = pingouin.rm_anova(**what, within=["run", "class"])
    else:
        table = pingouin.rm_anova(**what, within="run", detailed=True)
        table = table.assign(ddof1=table.DF.iloc[0], ddof2=table.DF.iloc[1]).iloc[:1]
    columns = {"ddof1": "df1", "ddof2": "df2", "DF1": "df1", "DF2": "df2", "p_unc": "p", "np2": "eta2_p"}
    names = {"run": "system", "Interaction": "system x class", "run * class": "system x class"}
    table = table.rename(columns=columns).assign(effect=table.Source.replace(names)).set_index("effect")
    order = [name for name in ("system", "class", "system x class") if name in table.index]
    table = table.loc[order].assign(eps=table.get("eps") if design == "within" else np.nan)
    wanted = ["df1", "df2", "F", "p", "eta2_p", "W", "p_sphericity", "eps"]
    return table.reindex(columns=wanted).astype(np.float64)


def _report(row) -> str:
    """F(1.9, 509.6) = 115.3, p < .001, partial η² = .30."""
    corrected = row.eps < 1 and not row.p_sphericity >= ALPHA  # where Mauchly was not tested, the safer side
    df1, df2, p = (row.df1_gg, row.df2_gg, row.p_gg) if corrected else (row.df1, row.df2, row.p)
    chance = "p < .001" if p < 0.001 else "p = " + f"{p:.3f}".removeprefix("0")
    return f"F({df1:.2g}, {df2:.4g}) = {row.F:.1f}, {chance}, partial η² = " + f"{row.eta2_p:.2f}".removeprefix("0")


def pairwise(ratings: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Which systems differ: paired t-tests over listeners, Bonferroni-corrected, with a row for each pair of runs.

    The difference is mean(a) - mean(b) over n listeners (in rating points); cohen_d divides it by the root mean square
    of the two standard deviations over listeners.
    """
    _, wide = _design(_listener_means(ratings, measure))
    wide = wide.groupby("participant").mean()  # over the classes of a listener
    pairs, rows = list(combinations(wide, 2)), []
    for a, b in pairs:
        test, difference = stats.ttest_rel(wide[a], wide[b]), wide[a].mean() - wide[b].mean()
        p, spread = test.pvalue, np.sqrt((wide[a].var() + wide[b].var()) / 2)
        rows.append(
            (a, b, len(wide), difference, test.statistic, test.df, p, min(1, p * len(pairs)), difference / spread)
        )
    columns = ["a", "b", "n", "difference", "t", "df", "p", "p_bonferroni", "cohen_d"]
    return pd.DataFrame(rows, columns=columns).assign(simulated=bool(ratings.simulated.any()))
