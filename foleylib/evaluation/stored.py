"""Reference sets of which only mean and covariance are stored: our files, fadtk's, and those of DCASE 2023 Task 7."""

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foleylib.evaluation.embeddings import Evaluated
from foleylib.evaluation.frechet import Gaussian, check_statistics, gaussian
from foleylib.evaluation.statistics import pool

CHALLENGE_FILE = "gt_embedding.pkl"  # in a folder for each class, as the challenge's evaluator has them
CHALLENGE_CONVENTION = "fad_dcase"
FLOATS, INTEGERS = 2, 3  # fields of tensorflow.train.Feature


def save(path: str | Path, found: Mapping[str, Evaluated], sha256: Mapping[str, str]) -> Path:
    """Write the statistics of a set by each evaluator: NAME.mu (D,), NAME.sigma (D, D), NAME.n, NAME.sha256 in an .npz."""
    arrays = {}
    for name, evaluated in found.items():
        rows = pool(evaluated.windows)[0]
        mean, cov = gaussian(rows)
        arrays |= {f"{name}.mu": mean, f"{name}.sigma": cov, f"{name}.n": len(rows), f"{name}.sha256": sha256[name]}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def read(path: str | Path, evaluators: Mapping) -> dict[str, Gaussian]:
    """Stored statistics for each evaluator (an `embedders.Embedder`), by name.

    An .npz has "NAME.mu" and "NAME.sigma" for each (fadtk writes "NAME.cov"), or of one evaluator plain "mu" and "sigma",
    and beside them, where they are known, "n" and the "sha256" of the weights, which must be the evaluator's. A .pkl is
    one of the challenge's, for `fad_dcase` alone.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        others = [name for name, evaluator in evaluators.items() if evaluator.name != CHALLENGE_CONVENTION]
        if others:
            raise ValueError(f"{path}: the challenge's statistics are of {CHALLENGE_CONVENTION}, not of {others}")
        return dict.fromkeys(evaluators, read_challenge(path))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not an .npz of statistics ({error}); store it again") from error
    return {name: _of(path, arrays, name, evaluators) for name in evaluators}


def _of(path: Path, arrays: dict[str, np.ndarray], name: str, evaluators: Mapping) -> Gaussian:
    prefix = "" if "mu" in arrays and len(evaluators) == 1 else f"{name}."
    part = {key: arrays.get(prefix + key) for key in ("mu", "n", "sha256")}
    cov = arrays.get(f"{prefix}sigma", arrays.get(f"{prefix}cov"))
    if part["mu"] is None or cov is None:
        raise ValueError(f"{path}: no {prefix}mu with {prefix}sigma for {name}; it holds {', '.join(sorted(arrays))}")
    if part["sha256"] is not None and str(part["sha256"]) != evaluators[name].sha256:
        raise ValueError(f"{path}: the statistics of {name} are of weights {part['sha256']}, not of those given")
    return _checked(path, part["mu"], cov, part["n"])


def _checked(path: Path, mean: np.ndarray, cov: np.ndarray, n: np.ndarray | int | None) -> Gaussian:
    """Statistics that a set of clips can have, else an error that names the file."""
    kinds = {"mean": mean, "covariance": cov} | ({} if n is None else {"number of clips": n})
    if wrong := [
        f"{what} of {np.asarray(v).dtype}" for what, v in kinds.items() if np.asarray(v).dtype.kind not in "fiu"
    ]:
        raise ValueError(f"{path}: {', '.join(wrong)}: real numbers are wanted; store it again")
    mean, cov = (np.asarray(values, dtype=np.float64) for values in (mean, cov))
    if n is not None and (np.ndim(n) or not np.isfinite(n) or n < 2 or n % 1):
        raise ValueError(
            f"{path}: the number of clips is {np.asarray(n).tolist()}: one whole number of 2 or more; store it again"
        )
    check_statistics(str(path), mean, cov)
    return Gaussian(mean, (cov + cov.T) / 2, None if n is None else int(n))


def challenge(folder: str | Path) -> dict[str, Gaussian]:
    """The challenge's published reference by class: `<class>/gt_embedding.pkl`; none is an empty dict."""
    files = sorted(Path(folder).glob(f"*/{CHALLENGE_FILE}"))
    return {file.parent.name: read_challenge(file) for file in files}


def read_challenge(path: str | Path) -> Gaussian:
    """Mean and covariance of the VGGish windows of a class, as the challenge's evaluator pickled them.

    The file is a dict of four `tensorflow.train.Feature`: mu, sigma, embedding_length, embedding_count. Neither TensorFlow
    nor anything else that the pickle may name is imported or run.
    """
    try:
        features = _Features(io.BytesIO(Path(path).read_bytes())).load()
        values = {name: _values(feature.serialized) for name, feature in features.items()}
        mean, size = values["mu"], int(values["embedding_length"][0])
        cov, n = values["sigma"].reshape(size, size), int(values["embedding_count"][0])
    except (
        pickle.UnpicklingError,
        EOFError,
        OSError,
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
    ) as e:
        raise ValueError(f"{path}: not the challenge's statistics ({e!r}); fetch {CHALLENGE_FILE} again") from e
    return _checked(Path(path), mean, cov, n)


class _Feature:
    """Stands for `tensorflow.train.Feature`: keeps the message that a pickle holds of it."""

    def __setstate__(self, state: dict) -> None:
        self.serialized = state["serialized"]


class _Features(pickle.Unpickler):
    """Reads a pickle of such messages and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> type:
        if name != "Feature" or not module.endswith("feature_pb2"):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Feature


def _values(message: bytes) -> np.ndarray:
    """The floats or integers of a serialized Feature: a list in a field, whose field 1 holds its values packed."""
    kind, body = _field(message)
    number, packed = _field(body)
    if number != 1 or kind not in (FLOATS, INTEGERS):
        raise ValueError(f"a Feature with field {kind}.{number}")
    if kind == FLOATS:
        return np.frombuffer(packed, "<f4").astype(np.float64)
    values = []
    while packed:
        value, packed = _varint(packed)
        values.append(value)
    return np.array(values)


def _field(message: bytes) -> tuple[int, bytes]:
    """Number and content of the first field of a message, which has a length before it."""
    tag, rest = _varint(message)
    length, rest = _varint(rest)
    if tag & 7 != 2 or length > len(rest):
        raise ValueError("a message that is cut short or laid out otherwise")
    return tag >> 3, rest[:length]


def _varint(data: bytes) -> tuple[int, bytes]:
    """An integer of seven bits a byte, the least first, and what follows it."""
    value = 0
    for i, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, data[i + 1 :]
    raise ValueError("an integer without an end")
