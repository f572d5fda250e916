"""Which systems differ: the ANOVA and post-hoc tests of *latent-clap-loss*, Section V-C.

Conventions
-----------
The listener is the unit. A listener's ratings of the clips of one system (and class) are averaged first; intervals and
tests are over listeners (an id is one person in all surveys), in float64. Who rated what tells three designs apart:

one class        one-way repeated measures
mixed            each listener rated one class: system within, class between listeners, as in the paper
within           each listener rated all classes: system and class within listeners

The Greenhouse-Geisser factor and Mauchly's test are computed here, from the covariance of the systems within classes:
`pingouin.mixed_anova` takes both from a one-way analysis that ignores the classes, and its corrected p-value with them.
"""

import numpy as np
from scipy import stats

from foleylib.listening.ratings import MEASURES

ALPHA = 0.05


def _listener_means(ratings, measure):
    """Mean rating of each listener for each system and class [columns: participant, class, run, value]."""
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r}: give one of {list(MEASURES)}")
    if ratings.run.nunique() < 2:
        raise ValueError(f"ratings has runs {sorted(set(ratings.run))}: a comparison needs two or more")
    groups = ratings.groupby(["participant", "class", "run"], as_index=False)[measure].mean()
    return groups.rename(columns={measure: "value"})


def _design(means):
    """ "one class", "mixed" or "within", and the means as a table [index: participant (and class), columns: run]."""
    classes, per_listener = means["class"].nunique(), means.groupby("participant")["class"].nunique()
    if not (per_listener == 1).all() and not (per_listener == classes).all():
        raise ValueError(
            f"listeners rated from {per_listener.min()} to {per_listener.max()} of {classes} classes: the analysis "
            "needs one class each or all classes each; leave out the others"
        )
    design = "one class" if classes == 1 else "mixed" if (per_listener == 1).all() else "within"
    wide = means.pivot(index=["participant", "class"], columns="run", values="value")
    fewest = wide.dropna().groupby("class").size().min()
    if wide.isna().to_numpy().any() or fewest < 2:
        raise ValueError(f"{fewest} listeners rated all systems of a class: every class needs two, every listener all")
    return design, wide


def sphericity(wide, groups):
    """Greenhouse-Geisser factor and Mauchly's test, from the covariance pooled within groups.

    Parameters
    ----------
    wide : array_like [shape=(N, k)]
        one row a listener, one column a system
    groups : array_like [shape=(N,)]
        class that each listener rated

    Returns
    -------
    dict
        eps in [1 / (k - 1), 1], W in [0, 1] and p of "spherical"; 1, 1, 1 where k = 2
    """
    wide, groups = np.asarray(wide, dtype=np.float64), np.asarray(groups)
    k, names = wide.shape[1], np.unique(groups)
    freedom = len(wide) - len(names)
    if k < 3:
        return {"eps": 1.0, "W": 1.0, "p": 1.0}
    if freedom < k - 1:
        raise ValueError(f"{len(wide)} listeners in {len(names)} groups: {k} systems need {k - 1 + len(names)} or more")
    residuals = np.concatenate([wide[groups == g] - wide[groups == g].mean(axis=0) for g in names])
    centred = np.eye(k) - 1 / k
    contrasts = np.linalg.eigh(centred)[1][:, 1:]  # (k, k - 1), orthonormal and each of sum 0
    covariance = contrasts.T @ (residuals.T @ residuals / freedom) @ contrasts
    trace = np.trace(covariance)
    if not trace > 0:
        raise ValueError("listeners do not differ in how they rate the systems: there is no variance to test against")
    eps = trace**2 / ((k - 1) * (covariance**2).sum())
    w = float(np.clip(np.linalg.det(covariance) / (trace / (k - 1)) ** (k - 1), 0, 1))
    scale = freedom - (2 * (k - 1) ** 2 + (k - 1) + 2) / (6 * (k - 1))
    chi2 = -scale * np.log(w) if w > 0 else np.inf
    return {"eps": float(eps), "W": w, "p": float(stats.chi2.sf(chi2, k * (k - 1) / 2 - 1))}


def anova(ratings, measure):
    """Does the system matter: analysis of variance over listeners, corrected for missing sphericity.

    Parameters
    ----------
    ratings : pandas.DataFrame
        see `read_results`
    measure : "quality" or "relevance"

    Returns
    -------
    pandas.DataFrame [index: effect; columns: df1, df2, F, p, eta2_p, W, p_sphericity, eps, df1_gg, df2_gg, p_gg,
    report, design, simulated]
        effects are "system", "class" and "system x class", the last two only with several classes. The columns in gg
        are Greenhouse-Geisser's; `report` is the line of a paper, with these where Mauchly's test finds p < .05

    Raises
    ------
    ValueError
        if the measure is unknown, there are fewer than two systems or listeners, or the listeners rated differing sets
        of classes
    """
    means = _listener_means(ratings, measure)
    design, wide = _design(means)
    found = _effects(means, design)
    by_listener = wide if design != "within" else wide.groupby("participant").mean()
    groups = np.zeros(len(by_listener)) if design == "within" else by_listener.index.get_level_values("class")
    shape = sphericity(by_listener, groups)
    inside = ["system"] if design == "within" else [e for e in found.index if e != "class"]
    found.loc[inside, ["W", "p_sphericity", "eps"]] = shape["W"], shape["p"], shape["eps"]
    found["eps"] = found.eps.fillna(1.0)
    found["df1_gg"], found["df2_gg"] = found.df1 * found.eps, found.df2 * found.eps
    found["p_gg"] = stats.f.sf(found.F, found.df1_gg, found.df2_gg)
    found["report"] = [_report(row) for row in found.itertuples()]
    return found.assign(design=design, simulated=bool(ratings.simulated.any()))


def _effects(means, design):
    """The analysis of variance [index: effect; columns: df1, df2, F, p, eta2_p, W, p_sphericity, eps]."""
    import pingouin

    what = {"data": means, "dv": "value", "subject": "participant"}
    if design == "mixed":
        found = pingouin.mixed_anova(**what, within="run", between="class", correction=False, effsize="np2")
    elif design == "within":
        found = pingouin.rm_anova(**what, within=["run", "class"], correction=False, effsize="np2")
    else:
        found = pingouin.rm_anova(**what, within="run", correction=False, effsize="np2", detailed=True)
        found = found.assign(DF1=found.DF.iloc[0], DF2=found.DF.iloc[1]).iloc[:1]
    names = {"ddof1": "df1", "ddof2": "df2", "DF1": "df1", "DF2": "df2", "p_unc": "p", "np2": "eta2_p"}
    effects = {"run": "system", "Interaction": "system x class", "run * class": "system x class"}
    found = found.rename(columns=names).assign(effect=found.Source.replace(effects)).set_index("effect")
    order = [name for name in ("system", "class", "system x class") if name in found.index]
    columns = ["df1", "df2", "F", "p", "eta2_p", "W", "p_sphericity", "eps"]
    found = found.loc[order].assign(eps=found.get("eps") if design == "within" else np.nan)
    return found.reindex(columns=columns).astype(np.float64)


def _report(row):
    """F(1.9, 509.6) = 115.3, p < .001, partial η² = .30."""
    corrected = row.eps < 1 and not row.p_sphericity >= ALPHA  # where Mauchly was not tested, the safer side
    df1, df2, p = (row.df1_gg, row.df2_gg, row.p_gg) if corrected else (row.df1, row.df2, row.p)
    chance = "p < .001" if p < 0.001 else "p = " + f"{p:.3f}".removeprefix("0")
    return f"F({df1:.2g}, {df2:.4g}) = {row.F:.1f}, {chance}, partial η² = " + f"{row.eta2_p:.2f}".removeprefix("0")


def pairwise(ratings, measure):
    """Which systems differ: paired t-tests over listeners, Bonferroni-corrected.

    Returns
    -------
    pandas.DataFrame [columns: a, b, n, difference, t, df, p, p_bonferroni, cohen_d, simulated]
        difference is mean(a) - mean(b) over n listeners (in rating points); cohen_d divides it by the root mean square
        of the two standard deviations over listeners

    Raises
    ------
    ValueError
        as `anova`
    """
    import pingouin

    _, wide = _design(_listener_means(ratings, measure))
    wide = wide.groupby("participant").mean()  # over the classes of a listener
    long = wide.reset_index().melt(id_vars="participant", var_name="run", value_name="value")
    found = pingouin.pairwise_tests(long, dv="value", within="run", subject="participant", effsize="cohen")
    found = found.rename(columns={"A": "a", "B": "b", "T": "t", "dof": "df", "p_unc": "p", "cohen": "cohen_d"})
    found["p_bonferroni"] = np.minimum(1.0, found.p.astype(np.float64) * len(found))
    found["n"] = len(wide)
    found["difference"] = [wide[a].mean() - wide[b].mean() for a, b in zip(found.a, found.b)]
    columns = ["a", "b", "n", "difference", "t", "df", "p", "p_bonferroni", "cohen_d"]
    return found[columns].assign(simulated=bool(ratings.simulated.any()))
