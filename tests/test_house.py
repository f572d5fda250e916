"""House rules: stripped notebooks that hold no logic, short modules, and a dvc.yaml that tells the whole truth."""

import ast
import json
import re
import shlex
from itertools import pairwise

import pytest
import yaml

from foleylib.paths import ROOT

MAX_LINES = 300
# They change no number, nor do their parts (plots_style): never a dependency of a stage.
PRESENTATION = {"plots", "tables", "listen", "paths", "params", "progress"}
PARAMETER_OPTIONS = {"-p", "--parameters", "-r", "--parameters_raw"}
YAML_OPTIONS = {"-y", "--parameters_yaml"}
NOTEBOOK = re.compile(r"(?<!\S)notebooks/[^\s'\"]+\.ipynb")
MODULE = re.compile(r"-m\s+foleylib\.([\w.]+)")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted((ROOT / "foleylib").rglob("*.py"))
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())


def cells_of(notebook, kind="code"):
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def tree_of(cell):
    """Syntax tree of a code cell, IPython's own lines (%magic, !command) left out; None for a cell magic."""
    source = "".join(cell["source"])
    if source.lstrip().startswith("%%"):
        return None
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))


def parameters_of(notebook):
    """Names in the parameters cell and their values; ValueError if there is not exactly one such cell of literals."""
    tagged = [cell for cell in cells_of(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{notebook.name} has {len(tagged)} cells tagged 'parameters'; it needs one")
    values = {}
    for line in tree_of(tagged[0]).body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        if not isinstance(line, ast.Assign | ast.AnnAssign) or not all(isinstance(t, ast.Name) for t in targets):
            raise ValueError(f"{notebook.name}: its parameters cell does more than assign names: {ast.unparse(line)}")
        try:
            values |= {target.id: ast.literal_eval(line.value) for target in targets}
        except ValueError:
            raise ValueError(
                f"{notebook.name}: not a literal, papermill cannot update it: {ast.unparse(line)}"
            ) from None
    return values


def imports_in(tree):
    """Modules of foleylib that a tree imports, wherever it does: {"mel", "corpora", ...}."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("foleylib.") for name in found if name.startswith("foleylib.")}


def file_of(name, library):
    """The file that holds module `name` ("mel", "synth.dsp"), or the module of which it is an attribute; None if none."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = library.joinpath(*parts[:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def needed_modules(names, library):
    """Files behind module `names` and behind all they import in turn, without presentation."""
    needed, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        file = file_of(name, library)
        if file is None or file in needed or re.split("[._]", name)[0] in PRESENTATION:
            continue
        needed.add(file)
        waiting += imports_in(ast.parse(file.read_text(encoding="utf8")))
    return needed


def stages_of(root):
    """Stages of dvc.yaml as DVC expands them (vars, foreach, matrix): {name: (commands, dependencies)}."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return {
            stage.name: (
                [stage.cmd] if isinstance(stage.cmd, str) else list(stage.cmd or []),
                {dep.def_path for dep in stage.deps},
            )
            for stage in repo.index.stages
        }


def passed_parameters(command):
    """Names that a papermill command sets by -p, -r or -y."""
    words, names = shlex.split(command), set()
    for option, value in pairwise(words):
        if option in PARAMETER_OPTIONS:
            names.add(value)
        elif option in YAML_OPTIONS:
            names |= set(yaml.safe_load(value))
    return names


def unknown_parameters(stages, root):
    """Sentences on parameters that a stage passes and its notebook does not have (papermill only warns)."""
    problems = []
    for stage, (commands, _) in stages.items():
        for command in commands:
            for path in NOTEBOOK.findall(command):
                unknown = passed_parameters(command) - parameters_of(root / path).keys()
                problems += [f"{stage} passes '{name}', which {path} does not have" for name in sorted(unknown)]
    return problems


def undeclared_dependencies(stages, root):
    """Sentences on notebooks and foleylib modules that a stage runs and dvc.yaml does not list among its deps."""
    problems = []
    for stage, (commands, deps) in stages.items():
        text = "\n".join(commands)
        notebooks = {root / path for path in NOTEBOOK.findall(text)}
        names = set(MODULE.findall(text))
        for notebook in notebooks:
            names |= set().union(*(imports_in(tree) for tree in map(tree_of, cells_of(notebook)) if tree))
        needed = {f.relative_to(root).as_posix() for f in notebooks | needed_modules(names, root / "foleylib")}
        missing = sorted(n for n in needed if not any(n == d or n.startswith(d.rstrip("/") + "/") for d in deps))
        problems += [f"{stage} runs {name}, which is not among its deps" for name in missing]
    return problems


@pytest.fixture(scope="module")
def stages():
    if not (ROOT / "dvc.yaml").is_file():
        pytest.skip("there is no dvc.yaml")
    return stages_of(ROOT)


@each_notebook
def test_notebook_source_is_stripped(notebook):
    ran = [
        i for i, cell in enumerate(cells_of(notebook)) if cell.get("outputs") or cell.get("execution_count") is not None
    ]
    assert not ran, f"code cells {ran} hold outputs or counts; run: ./run nbstripout --keep-id {notebook.name}"


@each_notebook
def test_notebook_has_parameters_that_are_literals(notebook):
    assert parameters_of(notebook) is not None


@each_notebook
def test_notebook_defines_nothing(notebook):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    trees = [tree for tree in map(tree_of, cells_of(notebook)) if tree]
    defined = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    assert not defined, f"{defined} belong in foleylib, where they are tested"


@each_module
def test_module_is_short(module):
    lines = len(module.read_text(encoding="utf8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: part it by what it does"


def test_stages_pass_parameters_that_their_notebooks_have(stages):
    assert unknown_parameters(stages, ROOT) == []


def test_stages_declare_every_module_they_run(stages):
    assert undeclared_dependencies(stages, ROOT) == []


@pytest.fixture
def small_project(tmp_path):
    """A project of two modules, one notebook and a dvc.yaml with a foreach and a matrix stage."""
    from dvc.repo import Repo

    (tmp_path / "foleylib").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "foleylib" / "plots.py").write_text("from foleylib import never\n")
    (tmp_path / "foleylib" / "mel.py").write_text("X = 1\n")
    (tmp_path / "foleylib" / "vae.py").write_text("def f():\n    from foleylib.mel import X\n    return X\n")
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["run = 'a'\n", "seed: int = 0"]},
        {"cell_type": "code", "metadata": {}, "source": ["%matplotlib inline\n", "from foleylib import plots, vae"]},
    ]
    (tmp_path / "notebooks" / "01_a.ipynb").write_text(json.dumps({"cells": cells}))
    command = "papermill -k python3 notebooks/01_a.ipynb reports/01_a.ipynb -p run"
    deps = ["notebooks/01_a.ipynb", "foleylib/vae.py"]
    each = {"foreach": ["x", "y"], "do": {"cmd": f"{command} ${{item}}", "deps": [*deps, "foleylib/mel.py"]}}
    grid = {"matrix": {"k": [1, 2]}, "cmd": f"{command} a -p k ${{item.k}} -y '{{loud: true}}'", "deps": deps}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"each": each, "grid": grid}}))
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def test_unknown_parameters_are_found(small_project):
    problems = unknown_parameters(stages_of(small_project), small_project)
    assert problems == [
        f"grid@{k} passes '{name}', which notebooks/01_a.ipynb does not have" for k in (1, 2) for name in ("k", "loud")
    ]


def test_undeclared_modules_are_found_through_imports(small_project):
    problems = undeclared_dependencies(stages_of(small_project), small_project)
    assert problems == [f"grid@{k} runs foleylib/mel.py, which is not among its deps" for k in (1, 2)]


def test_computed_parameters_are_refused(small_project):
    notebook = small_project / "notebooks" / "01_a.ipynb"
    notebook.write_text(notebook.read_text().replace("seed: int = 0", "seed = len(run)"))
    with pytest.raises(ValueError, match="not a literal"):
        parameters_of(notebook)
