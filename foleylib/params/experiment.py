"""Settings are checked before DVC starts: it deletes the outputs of a stage before the stage can refuse its settings."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from foleylib import paths
from foleylib.params.read import read_yaml
from foleylib.params.settings import parse

NAME = "params.yaml"


def check(arguments: Sequence[str]) -> None:
    """Check params.yaml as a command of DVC would use it, with what `dvc exp run -S` sets; of a sweep, every experiment.

    What DVC refuses itself, before it touches anything, is left to it.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    told = parser.parse_known_args(arguments)[0].set_param
    if not told:
        parse(read_yaml(paths.PARAMS), NAME)
        return
    for overrides in _experiments(told):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copy(paths.PARAMS, Path(folder, NAME)))
            if not _applied(copy, overrides):
                return
            parse(read_yaml(copy), f"{NAME} with {' '.join(overrides)}")


def _experiments(told: list[str]) -> Iterator[list[str]]:
    """The overrides of params.yaml in each experiment of a sweep, or in the only one."""
    from dvc.exceptions import DvcException
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import get_hydra_sweeps
    from hydra.errors import HydraException

    try:
        for experiment in get_hydra_sweeps(to_path_overrides(told)):
            yield list(experiment.get(NAME, []))
    except (DvcException, HydraException):
        return


def _applied(file: Path, overrides: list[str]) -> bool:
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides
    from omegaconf.errors import OmegaConfBaseException

    try:
        apply_overrides(file, overrides)
    except (DvcException, OmegaConfBaseException):
        return False
    return True
