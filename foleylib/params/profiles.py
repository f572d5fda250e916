"""Profiles: files of params/ that hold what differs from params.yaml."""

from pathlib import Path

from foleylib import paths
from foleylib.params.read import read_yaml
from foleylib.params.settings import parse


def apply(name: str, *, params: Path | None = None) -> None:
    """Write the differences of params/`name`.yaml onto params.yaml, keeping its comments and order.

    The file is written as `dvc exp run -S` writes it, so that DVC changes nothing but the values that it is to change.
    """
    from dvc.utils.collections import to_omegaconf
    from dvc.utils.serialize import modify_yaml
    from ruamel.yaml import YAML

    target = params or paths.PARAMS
    profile = target.parent / "params" / f"{name}.yaml"
    if not profile.exists():
        known = ", ".join(sorted(p.stem for p in profile.parent.glob("*.yaml")))
        raise ValueError(f"there is no profile '{name}'; params/ holds: {known}")
    for file in (target, profile):
        read_yaml(file)  # its sentence, where a file cannot be read
    with modify_yaml(target) as settings:  # writes at the end, and not where an error comes first
        # Plain lists and mappings, which DVC writes line by line; numbers stay as the profile writes them.
        merge(settings, to_omegaconf(YAML().load(profile) or {}))
        parse(settings, f"params.yaml with profile '{name}'")


def merge(base, changes) -> None:
    """Take over `changes`, key by key; `replace: true` in a section replaces it whole, `remove: [key]` drops entries."""
    for key in changes.pop("remove", []):
        base.pop(key, None)  # gone already where the profile is applied again
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not value.pop("replace", False):
            merge(base[key], value)
            base[key] = base[key] or {}  # the writer cannot set the comments of a section that lost its last entry
        else:
            base[key] = value
