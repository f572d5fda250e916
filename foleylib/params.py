"""The settings of every stage: read from params.yaml alone, typed and validated (`params_schema`).

``python -m foleylib.params smoke`` writes the differences of params/smoke.yaml onto params.yaml, comments kept.
"""

import hashlib
import json
import sys
from pathlib import Path

from pydantic import BaseModel, ValidationError

from foleylib import paths
from foleylib.params_base import Section
from foleylib.params_foley import FoleyCommon, FoleyVariant, Run
from foleylib.params_schema import Params, Sampling

__all__ = [
    "FoleyCommon",
    "FoleyVariant",
    "Params",
    "Run",
    "Sampling",
    "apply_profile",
    "fingerprint",
    "load",
    "parse",
    "table",
]


def load(path: Path | None = None) -> Params:
    """Read and validate params.yaml.

    Raises
    ------
    ValueError
        with one line per problem: the key's path, what is wrong and what is allowed
    """
    import yaml

    path = path or paths.PARAMS
    with open(path, encoding="utf8") as file:
        return parse(yaml.safe_load(file), str(path))


def parse(settings: dict, name: str = "params.yaml") -> Params:
    """Validate a nested dict of settings; see `load`."""
    try:
        return Params.model_validate(settings)
    except ValidationError as error:
        lines = [_sentence(e) for e in error.errors()]
    raise ValueError(f"{name} cannot be used:\n" + "\n".join(f"- {line}" for line in lines))


def _sentence(error: dict) -> str:
    where = ".".join(str(p) for p in error["loc"]) or "(whole file)"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; allowed here: {', '.join(_allowed(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {error['msg'].removeprefix('Value error, ')} (got {error['input']!r:.60})"


def _allowed(loc: tuple) -> list[str]:
    """The keys of the section at `loc`, found by walking the models' annotations."""
    kind = Params
    for key in loc:
        if getattr(kind, "__origin__", None) is dict:  # the key is a name of the user's: a corpus, a variant, a run
            kind = kind.__args__[1]
        elif isinstance(kind, type) and issubclass(kind, Section) and key in kind.model_fields:
            kind = kind.model_fields[key].annotation
    return sorted(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Section) else []


def fingerprint(*parts) -> str:
    """Sixteen hex digits that change with any of `parts` (sections, dicts, strings, numbers)."""
    plain = [p.model_dump(mode="json") if isinstance(p, BaseModel) else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def table(section: BaseModel):
    """A section as a two-column table for the top of a notebook [columns: setting, value]."""
    import pandas as pd

    rows = list(_leaves(section.model_dump(), ""))
    return pd.DataFrame(rows, columns=["setting", "value"]).set_index("setting")


def _leaves(node, prefix):
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(node)


def apply_profile(name: str, *, params: Path | None = None) -> None:
    """Write the differences of params/`name`.yaml onto params.yaml, keeping its comments and order."""
    from ruamel.yaml import YAML

    target = params or paths.PARAMS
    profile = target.parent / "params" / f"{name}.yaml"
    if not profile.exists():
        known = ", ".join(sorted(p.stem for p in profile.parent.glob("*.yaml")))
        raise ValueError(f"there is no profile '{name}'; params/ holds: {known}")
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    settings = yaml.load(target)
    _merge(settings, yaml.load(profile) or {}, "")
    parse(settings, f"params.yaml with profile '{name}'")
    with open(target, "w", encoding="utf8") as file:
        yaml.dump(settings, file)


def _merge(base, changes, where: str) -> None:
    """Take over `changes`, key by key; a section is replaced whole by `replace: true` in it, entries go by `remove: [key]`."""
    for key in changes.pop("remove", []):
        base.pop(key, None)  # gone already where the profile is applied again
    for key, value in changes.items():
        here = f"{where}.{key}" if where else key
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not value.pop("replace", False):
            _merge(base[key], value, here)
        else:
            base[key] = value


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: ./run python -m foleylib.params PROFILE   (a file of params/, such as smoke)")
    try:
        apply_profile(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
