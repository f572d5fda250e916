"""YAML files of settings: what cannot be read is told with its line, and a key that stands twice is refused."""

from pathlib import Path

import yaml


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML lets the last of two equal keys win without a word."""

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    first = seen[key.value].line + 1
                    problem = f"the key '{key.value}' stands in line {first} already: take one of them out"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen[key.value] = key.start_mark
        return super().construct_mapping(node, deep)


def read_yaml(path: Path):
    """What a YAML file holds; a ValueError tells file, line and column of what cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8; save the file in that encoding") from None
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path}: there is no such file; give the path of a file of settings") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ValueError(f"{path}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}") from None
    except yaml.YAMLError as error:  # a character that no YAML file may hold
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
