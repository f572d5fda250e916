"""The one reader of published weights: files of PyTorch or safetensors, read without running code in them."""

import argparse
import pickle
import re
from pathlib import Path, PosixPath

import numpy as np
import torch

# Kinds of numbers and texts whose arrays are let through beside tensors: published files hold the state of a sampler or
# a step count as numpy objects. An array of Python objects is none of them.
KINDS = "?bBhHiIlLqQefdSU"

# How a training script was called, as AudioMAE's files hold it: unpickling sets attributes of a namespace, no more.
ARGUMENTS = [argparse.Namespace, PosixPath]


def read(path: str | Path) -> dict:
    """The content of a weights file, on the CPU: a state dict, or a dictionary that has one beside other entries.

    Numpy's arrays and numbers and the arguments of a training script are let through beside tensors and Python's own types.

    Raises
    ------
    ValueError
        where the file is missing, damaged, or holds other objects; such a file could run code when opened, so it is not
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; fetch it or correct the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([*_numpy_names(), *ARGUMENTS]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        held = f"holds {named[1]}, which is no tensor" if named else "is no file of plain tensors"
        raise ValueError(
            f"{path}: {held}, and opening it could run code; if you trust its origin, save the weights alone, once: "
            f"torch.save(torch.load(PATH, weights_only=False)['state_dict'], NEW)"
        ) from error
    except Exception as error:  # a damaged file fails in many ways, according to where it breaks off
        raise ValueError(f"{path}: cannot be read as weights ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; give a file with a state dict")  # noqa: TRY004
    return content


def _numpy_names() -> list:
    """What numpy's arrays and numbers are unpickled by, under the names of its versions 1 and 2."""
    scalar, rebuild = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    names = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for core in ("core", "_core")
        for function in (scalar, rebuild)
    ]
    return [*names, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in KINDS}]
