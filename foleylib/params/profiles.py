"""Profiles: files of params/ that hold what differs from params.yaml."""

from pathlib import Path

from foleylib import paths
from foleylib.params.read import read_yaml
from foleylib.params.settings import parse


def apply(name: str, *, params: Path | None = None) -> None:
    """Write the differences of params/`name`.yaml onto params.yaml, keeping its comments and order."""
    from ruamel.yaml import YAML

    target = params or paths.PARAMS
    profile = target.parent / "params" / f"{name}.yaml"
    if not profile.exists():
        known = ", ".join(sorted(p.stem for p in profile.parent.glob("*.yaml")))
        raise ValueError(f"there is no profile '{name}'; params/ holds: {known}")
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    for file in (target, profile):
        read_yaml(file)  # its sentence, where a file cannot be read
    settings = yaml.load(target)
    merge(settings, yaml.load(profile) or {})
    parse(settings, f"params.yaml with profile '{name}'")
    with open(target, "w", encoding="utf8") as file:
        yaml.dump(settings, file)


def merge(base, changes) -> None:
    """Take over `changes`, key by key; `replace: true` in a section replaces it whole, `remove: [key]` drops entries."""
    for key in changes.pop("remove", []):
        base.pop(key, None)  # gone already where the profile is applied again
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not value.pop("replace", False):
            merge(base[key], value)
        else:
            base[key] = value
