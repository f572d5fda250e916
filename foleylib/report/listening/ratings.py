"""Files of ratings that participants send back, checked against the key of the kit and joined with it."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib.report.listening.page import KEY

MEASURES = {"quality": "audio_quality", "relevance": "class_relevance"}  # what the page calls them -> the metric
COLUMNS = ["kit", "survey", "participant", "token", "order", *MEASURES, "plays", "seconds", "attention"]
JOINED = ["survey", "participant", "class", "run", "clip", *MEASURES, "order", "plays", "seconds", "simulated"]
TEXT = dict.fromkeys(["kit", "survey", "participant", "token", "attention", "clip", "class", "run"], str)
PARTICIPANT = re.compile(r"[A-Za-z0-9_.-]{1,40}")  # what the page lets an id be
LISTED = 20  # offenders that a message names
SIMULATED = "simulated-"  # participants of simulations, in tests: never listeners


def read_key(path: Path) -> pd.DataFrame:
    """The key that `page.build` wrote, as it returned it."""
    key = _table(path, TEXT | {"rating": "Int64", "limited": "boolean"})
    lacking = [column for column in KEY if column not in key.columns]
    if lacking:
        raise ValueError(f"{path} has no column {lacking}: give the key.csv that the kit was built with")
    return key


def read_results(files: Iterable[Path], key: pd.DataFrame | Path) -> pd.DataFrame:
    """Ratings of all participants, with the run and class of each clip: a row each, without the attention checks.

    `files` are as the pages save them, one a participant and survey, an id being one person in all surveys. A file that
    is not of this kit, is incomplete or was edited is an error that names it. Participants who missed an attention
    check are left out; their "survey/participant" is in `attrs["left_out"]`. `simulated` marks those of simulations.
    """
    key = key if isinstance(key, pd.DataFrame) else read_key(key)
    parts, whose, spelt, left_out = [], {}, {}, []
    for path in files:
        frame = _read(path, key)
        name = frame.participant.iloc[0]
        if (known := spelt.setdefault(name.casefold(), name)) != name:
            raise ValueError(f"{path}: participant {name!r} is {known!r} in another file; write one of them in both")
        who = f"{frame.survey.iloc[0]}/{frame.participant.iloc[0]}"
        if who in whose:
            raise ValueError(f"{path} and {whose[who]} both hold participant {who}: keep one of the files")
        whose[who] = path
        if _attentive(frame, path):
            parts.append(frame[frame.kind == "clip"])
        else:
            left_out.append(who)
    if not whose:
        raise ValueError("files is empty: give the ratings-*.csv files that participants sent back")
    if not parts:
        raise ValueError(f"all {len(left_out)} participants missed an attention check: nothing is left to analyse")
    ratings = pd.concat(parts, ignore_index=True).astype(dict.fromkeys(MEASURES, float))
    ratings = ratings.assign(simulated=ratings.participant.str.startswith(SIMULATED))[JOINED]
    ratings.attrs["left_out"] = left_out
    return ratings


def _read(path: Path, key: pd.DataFrame) -> pd.DataFrame:
    """One participant's file joined with the key, checks included."""
    frame = _table(path, TEXT)
    lacking = [column for column in COLUMNS if column not in frame.columns]
    if lacking or not len(frame):
        raise ValueError(f"{path} has {len(frame)} rows and no column {lacking}: give a file that a survey page saved")
    for column in ("kit", "survey", "participant"):
        values = frame[column].unique().tolist()
        if len(values) != 1 or pd.isna(values[0]):
            raise ValueError(f"{path} has {column} {values}: a file holds one, ask for it again")
    if not PARTICIPANT.fullmatch(name := frame.participant.iloc[0]):
        raise ValueError(f"{path}: participant {name[:40]!r} is no id that a page gives; ask which one it was")
    if frame.kit.iloc[0] != key.kit.iloc[0]:
        raise ValueError(f"{path} is of kit {frame.kit.iloc[0]}, the key of {key.kit.iloc[0]}: give that kit's key.csv")
    wanted = key[key.survey == frame.survey.iloc[0]]
    strange, missing = set(frame.token) - set(wanted.token), set(wanted.token) - set(frame.token)
    if strange or missing or frame.token.duplicated().any():
        counts = f"{len(strange)} tokens that the key does not have, {len(missing)} of the key's missing"
        survey = f"survey {frame.survey.iloc[0]!r}"
        raise ValueError(f"{path} does not fit {survey}: {counts}, or a token twice; get it anew")
    for measure in MEASURES:
        wrong = frame[measure][~pd.to_numeric(frame[measure], errors="coerce").isin(np.arange(11))]
        if len(wrong):
            raise ValueError(f"{path}: {measure} {_listed(wrong)} is no whole number from 0 to 10; ask for it again")
    frame = frame.merge(wanted.drop(columns=["kit", "survey"]), on="token", validate="one_to_one")
    _check_course(frame, path)
    return frame


def _table(path: Path, types: dict) -> pd.DataFrame:
    """A CSV file; one that is none, or in another encoding, is an error that names it."""
    try:
        return pd.read_csv(path, dtype=types)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is no UTF-8; save it as the page did, without a spreadsheet"
        ) from None
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a CSV ({' '.join(str(error).split())}); get it anew") from None


def _check_course(frame: pd.DataFrame, path: Path) -> None:
    """Refuse what no page writes: items out of order, a clip that was rated unheard, seconds that are none."""
    numbers = {name: pd.to_numeric(frame[name], errors="coerce") for name in ("order", "plays", "seconds")}
    expected = {
        "order": (
            ~numbers["order"].isin(range(1, len(frame) + 1)) | numbers["order"].duplicated(),
            "no place of its own",
        ),
        "plays": ((numbers["plays"] % 1 != 0) | (numbers["plays"] < (frame.kind == "clip")), "no number of plays"),
        "seconds": (~np.isfinite(numbers["seconds"]) | (numbers["seconds"] < 0), "no time"),
    }
    for name, (wrong, what) in expected.items():
        if wrong.any():
            raise ValueError(f"{path}: {name} {_listed(frame[name][wrong])} is {what}; it was edited, ask for it again")


def _listed(values: pd.Series) -> str:
    """Values in the order of the file, the first of many with the count of the rest."""
    told = ", ".join(repr(value) for value in values[:LISTED])
    return told if len(values) <= LISTED else f"{told} and {len(values) - LISTED} more"


def _attentive(frame: pd.DataFrame, path: Path) -> bool:
    """Whether both ratings of every check are those asked for; the file's own word must agree with them."""
    checks = frame[frame.kind == "check"]
    passed = all((checks[measure].astype(int) == checks.rating.astype(int)).all() for measure in MEASURES)
    if set(frame.attention) != {"passed" if passed else "failed"}:
        says = f"{path} says attention {frame.attention.unique().tolist()}"
        raise ValueError(f"{says}, its ratings do not: it was edited")
    return passed
