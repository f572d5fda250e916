"""Files of ratings that participants send back, checked against the key of the kit and joined with it."""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib.corpora.csv_file import checked
from foleylib.evaluation.remarks import LISTED, listed
from foleylib.report.listening.page import KEY

MEASURES = {"quality": "audio_quality", "relevance": "class_relevance"}  # what the page calls them -> the metric
COLUMNS = ["kit", "survey", "participant", "token", "order", *MEASURES, "plays", "seconds", "attention"]
JOINED = ["survey", "participant", "class", "run", "clip", *MEASURES, "order", "plays", "seconds", "simulated"]
TEXT = dict.fromkeys(["kit", "survey", "participant", "token", "attention", "clip", "class", "run"], str)
PARTICIPANT = re.compile(r"[A-Za-z0-9_.-]{1,40}")  # what the page lets an id be
MOST_PLAYS = 1000  # of a clip by one listener: more were not heard but written
SIMULATED = "simulated-"  # participants of simulations, in tests: never listeners


def read_key(path: Path) -> pd.DataFrame:
    """The key that `page.build` wrote, as it returned it."""
    types = TEXT | {"rating": "Int64", "limited": "boolean"}
    return _table(path, KEY, types, "give the key.csv that the kit was built with")


def read_results(files: Iterable[Path], key: pd.DataFrame | Path) -> pd.DataFrame:
    """Ratings of all participants, with the run and class of each clip: a row each, without the attention checks.

    `files` are as the pages save them, one a participant and survey, an id being one person in all surveys. Files that are
    not of this kit, are incomplete or were edited are an error that names them. Participants who missed an attention
    check are left out; their "survey/participant" is in `attrs["left_out"]`. `simulated` marks those of simulations.
    """
    key = key if isinstance(key, pd.DataFrame) else read_key(key)
    frames, problems = {}, []
    for path in files:
        try:
            frames[path] = _read(path, key)
        except ValueError as error:
            problems.append(str(error))
    problems += _repeated(frames)
    if problems:
        raise ValueError(problems[0] if len(problems) == 1 else _several(problems))
    if not frames:
        raise ValueError("files is empty: give the ratings-*.csv files that participants sent back")
    parts = [frame[frame.kind == "clip"] for frame in frames.values() if _passed(frame)]
    left_out = [_who(frame) for frame in frames.values() if not _passed(frame)]
    if not parts:
        raise ValueError(f"all {len(left_out)} participants missed an attention check: nothing is left to analyse")
    ratings = pd.concat(parts, ignore_index=True).astype(dict.fromkeys(MEASURES, float))
    ratings = ratings.assign(simulated=ratings.participant.str.startswith(SIMULATED))[JOINED]
    ratings.attrs["left_out"] = left_out
    return ratings


def _who(frame: pd.DataFrame) -> str:
    return f"{frame.survey.iloc[0]}/{frame.participant.iloc[0]}"


def _repeated(frames: dict[Path, pd.DataFrame]) -> list[str]:
    """What files of one listener there are beside those that may be: another spelling, a survey twice, a copy."""
    problems, spelt, whose, given = [], {}, {}, {}
    for path, frame in frames.items():
        name, who = frame.participant.iloc[0], _who(frame)
        course = tuple(frame.sort_values("token")[["token", "order", *MEASURES, "plays", "seconds"]].to_numpy().ravel())
        if (known := spelt.setdefault(name.casefold(), name)) != name:
            problems.append(f"{path}: participant {name!r} is {known!r} in another file; write one of them in both")
        elif (first := whose.setdefault(who, path)) != path:
            problems.append(f"{path} and {first} both hold participant {who}: keep one of the files")
        elif (first := given.setdefault(course, path)) != path:
            problems.append(
                f"{path} and {first} hold the same ratings, plays and times in one order: keep one of the files"
            )
    return problems


def _several(problems: list[str]) -> str:
    """A message of many, a line each."""
    told = problems[:LISTED] + ([f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else [])
    return "\n- ".join([f"{len(problems)} files of ratings cannot be used:", *told])


def _read(path: Path, key: pd.DataFrame) -> pd.DataFrame:
    """One participant's file joined with the key, checks included."""
    frame = _table(path, COLUMNS, TEXT, "give a file that a survey page saved, as it was saved")
    if not len(frame):
        raise ValueError(f"{path}: has a header alone; give a file that a survey page saved")
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
        wrong = frame[measure][~_numbers(frame[measure]).isin(np.arange(11))]
        if len(wrong):
            raise ValueError(
                f"{path}: {measure} {listed(map(repr, wrong))} is no whole number from 0 to 10; ask for it again"
            )
    frame = frame.merge(wanted.drop(columns=["kit", "survey"]), on="token", validate="one_to_one")
    _check_course(frame, path)
    _check_attention(frame, path)
    return frame


def _table(path: Path, columns: list[str], types: dict, remedy: str) -> pd.DataFrame:
    """A CSV file with these columns; in it "NA" is a text as others are."""
    text = checked(path, columns, remedy)
    try:
        return pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as a CSV ({' '.join(str(error).split())}); {remedy}") from None


def _numbers(values: pd.Series) -> pd.Series:
    """Values as numbers, NaN where they are none."""
    return pd.to_numeric(values.astype(str) if values.dtype == bool else values, errors="coerce")


def _check_course(frame: pd.DataFrame, path: Path) -> None:
    """Refuse what no page writes: items out of order, a clip that was rated unheard, seconds that are none."""
    numbers = {name: _numbers(frame[name]) for name in ("order", "plays", "seconds")}
    expected = {
        "order": (
            ~numbers["order"].isin(range(1, len(frame) + 1)) | numbers["order"].duplicated(),
            "no place of its own",
        ),
        "plays": (
            (numbers["plays"] % 1 != 0) | ~numbers["plays"].between(frame.kind == "clip", MOST_PLAYS),
            "no number of plays",
        ),
        "seconds": (~np.isfinite(numbers["seconds"]) | (numbers["seconds"] < 0), "no time"),
    }
    for name, (wrong, what) in expected.items():
        if wrong.any():
            raise ValueError(
                f"{path}: {name} {listed(map(repr, frame[name][wrong]))} is {what}; it was edited, ask for it again"
            )


def _passed(frame: pd.DataFrame) -> bool:
    """Whether both ratings of every check are those asked for."""
    checks = frame[frame.kind == "check"]
    return all((checks[measure].astype(int) == checks.rating.astype(int)).all() for measure in MEASURES)


def _check_attention(frame: pd.DataFrame, path: Path) -> None:
    """Refuse a file whose own word of the checks is not that of its ratings."""
    if set(frame.attention) != {"passed" if _passed(frame) else "failed"}:
        says = f"{path} says attention {listed(frame.attention.unique())}"
        raise ValueError(f"{says}, its ratings do not: it was edited, ask for it again")
