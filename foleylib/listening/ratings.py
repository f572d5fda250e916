"""Files of ratings that participants send back, checked against the key of the kit and joined with it."""

import numpy as np

MEASURES = ("quality", "relevance")
COLUMNS = ["kit", "survey", "participant", "token", "order", *MEASURES, "plays", "seconds", "attention"]
TEXT = {name: str for name in ("kit", "survey", "participant", "token", "attention", "clip", "class", "run")}
SIMULATED = "simulated-"  # participants of simulations, in tests: never listeners
JOINED = ["survey", "participant", "class", "run", "clip", *MEASURES, "order", "plays", "seconds", "simulated"]


def read_key(path):
    """The key that `build` wrote, as it returned it.

    Raises
    ------
    ValueError
        if the file is no key
    """
    import pandas

    from foleylib.listening.page import KEY

    key = pandas.read_csv(path, dtype=TEXT | {"rating": "Int64", "limited": "boolean"})
    lacking = [column for column in KEY if column not in key.columns]
    if lacking:
        raise ValueError(f"{path} has no column {lacking}: give the key.csv that the kit was built with")
    return key


def read_results(files, key):
    """Ratings of all participants, with the run and class of each clip.

    Participants who missed an attention check are left out; their "survey/participant" is in `attrs["left_out"]`.

    Parameters
    ----------
    files : iterable of paths
        as the pages save them, one a participant and survey
    key : pandas.DataFrame or path
        of the kit, see `build`. An id is one person in all surveys: give different people different ids

    Returns
    -------
    pandas.DataFrame [columns: survey, participant, class, run, clip, quality, relevance, order, plays, seconds,
    simulated]
        one row a participant and clip, without the attention checks; `simulated` marks participants whose id begins
        with "simulated-"

    Raises
    ------
    ValueError
        naming the file, if it is not of this kit, is incomplete, holds a rating that is not a whole number from 0 to
        10, or repeats a participant of the same survey; or if there is no file, or none of an attentive participant
    """
    import pandas

    files = list(files)
    if not files:
        raise ValueError("files is empty: give the ratings-*.csv files that participants sent back")
    key = key if isinstance(key, pandas.DataFrame) else read_key(key)
    parts, whose, left_out = [], {}, []
    for path in files:
        frame = _read(path, key)
        who = f"{frame.survey.iloc[0]}/{frame.participant.iloc[0]}"
        if who in whose:
            raise ValueError(f"{path} and {whose[who]} both hold participant {who}: keep one of the files")
        whose[who] = path
        if _attentive(frame, path):
            parts.append(frame)
        else:
            left_out.append(who)
    if not parts:
        raise ValueError(f"all {len(left_out)} participants missed an attention check: nothing is left to analyse")
    ratings = pandas.concat(parts, ignore_index=True)
    ratings = ratings[ratings.kind == "clip"].astype(dict.fromkeys(MEASURES, float))
    ratings["simulated"] = ratings.participant.str.startswith(SIMULATED)
    ratings = ratings[JOINED].reset_index(drop=True)
    ratings.attrs["left_out"] = left_out
    return ratings


def _read(path, key):
    """One participant's file joined with the key, checks included."""
    import pandas

    frame = pandas.read_csv(path, dtype=TEXT)
    lacking = [column for column in COLUMNS if column not in frame.columns]
    if lacking or not len(frame):
        raise ValueError(f"{path} has {len(frame)} rows and no column {lacking}: give a file that a survey page saved")
    for column in ("kit", "survey", "participant"):
        if frame[column].nunique(dropna=False) != 1 or frame[column].isna().any():
            raise ValueError(
                f"{path} has {column} {frame[column].unique().tolist()}: a file holds one, ask for it again"
            )
    if frame.kit.iloc[0] != key.kit.iloc[0]:
        raise ValueError(f"{path} is of kit {frame.kit.iloc[0]}, the key of {key.kit.iloc[0]}: give that kit's key.csv")
    wanted = key[key.survey == frame.survey.iloc[0]]
    strange, missing = set(frame.token) - set(wanted.token), set(wanted.token) - set(frame.token)
    if strange or missing or frame.token.duplicated().any():
        counts = f"{len(strange)} tokens that the key does not have, {len(missing)} of the key's missing"
        raise ValueError(
            f"{path} does not fit survey {frame.survey.iloc[0]!r}: {counts}, or a token twice; get it anew"
        )
    _check_ratings(path, frame)
    return frame.merge(wanted.drop(columns=["kit", "survey"]), on="token", validate="one_to_one")


def _check_ratings(path, frame):
    import pandas

    for measure in MEASURES:
        values = pandas.to_numeric(frame[measure], errors="coerce").to_numpy(dtype=np.float64)
        wrong = frame[measure][~np.isin(values, np.arange(11))]
        if len(wrong):
            raise ValueError(f"{path}: {measure} {wrong.iloc[0]!r} is no whole number from 0 to 10; ask for it again")


def _attentive(frame, path):
    """Whether both ratings of every check are those asked for; the file's own word must agree with them."""
    checks = frame[frame.kind == "check"]
    passed = all((checks[measure].astype(int) == checks.rating.astype(int)).all() for measure in MEASURES)
    if set(frame.attention) != {"passed" if passed else "failed"}:
        raise ValueError(
            f"{path} says attention {frame.attention.unique().tolist()}, its ratings do not: it was edited"
        )
    return passed
