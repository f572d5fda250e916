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
    folder = target.parent / "params"
    known = sorted(profile.stem for profile in folder.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"there is no profile '{name}'; params/ holds: {', '.join(known)}")
    profile = folder / f"{name}.yaml"
    for file in (target, profile):
        if not isinstance(read_yaml(file), dict):
            raise ValueError(f"{file}: no settings there; write sections of params.yaml, as they are to be")  # noqa: TRY004
    with modify_yaml(target) as settings:  # writes at the end, and not where an error comes first
        # Plain lists and mappings, which DVC writes line by line; numbers stay as the profile writes them.
        merge(settings, to_omegaconf(YAML().load(profile)), f"params/{name}.yaml: ")
        parse(settings, f"params.yaml with profile '{name}'")


def merge(base, changes, where: str = "") -> None:
    """Take over `changes`, key by key; `replace: true` in a section replaces it whole, `remove: [key]` drops entries.

    `where` begins the sentence of a ValueError: the file, and the section with its dot.
    """
    gone = changes.pop("remove", [])
    if not isinstance(gone, list) or not all(isinstance(key, str) for key in gone):
        raise ValueError(f"{where}remove is {gone!r}; give a list with the names of the entries that go")
    for key in gone:
        base.pop(key, None)  # gone already where the profile is applied again
    for key, value in changes.items():
        whole = value.pop("replace", False) if isinstance(value, dict) else True
        if not isinstance(whole, bool):
            sentence = f"{where}{key}.replace is {whole!r}; give true, or leave it out to change single entries"
            raise ValueError(sentence)  # noqa: TRY004
        if not whole and isinstance(base.get(key), dict):
            merge(base[key], value, f"{where}{key}.")
            base[key] = base[key] or {}  # the writer cannot set the comments of a section that lost its last entry
        else:
            base[key] = value
