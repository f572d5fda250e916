"""The layout: layers of the library, notebooks without logic, a dvc.yaml that names what its stages run."""

import ast
import json
import re
import shlex
from itertools import pairwise

import pytest
import yaml

from foleylib.paths import ROOT

# From the ground up: a module imports from its own layer and from those before it.
LAYERS = [
    ("runtime", "paths"),
    ("params",),
    ("audio",),
    ("evaluation",),
    ("train",),
    ("datasets",),
    ("corpora",),
    ("diffusion",),
    ("networks",),
    ("sampling",),
    ("stages",),
    ("papers",),
    ("commands",),
]
WHOLE_SETTINGS = {
    "stages",
    "papers",
    "commands",
}  # the layers that know params.settings and paths; params itself reads its file
KIT = "foleylib/report/listening"  # makes the pages of the listening test, the outs of its stage
NO_NUMBERS = (
    "params",
    "paths",
    "report",
)  # never a dependency of a stage: values of params.yaml are tracked themselves
PARAMETER_OPTIONS = {"-p", "--parameters", "-r", "--parameters_raw"}
NOTEBOOK = re.compile(r"(?<!\S)notebooks/[^\s'\"]+\.ipynb")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted(path for path in (ROOT / "foleylib").rglob("*.py") if path.name != "__init__.py")
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())


def code_cells(notebook):
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def tree_of(cell):
    """Syntax tree of a code cell."""
    return ast.parse("".join(cell["source"]))


def parameters_of(notebook):
    """Name -> value of the cell tagged "parameters"; a value that is no literal is an error."""
    tagged = [cell for cell in code_cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1, f"{notebook.name} has {len(tagged)} cells tagged 'parameters': give it one"
    values = {}
    for node in tree_of(tagged[0]).body:
        assert isinstance(node, ast.Assign | ast.AnnAssign), f"{notebook.name}: parameters are assignments"
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        try:
            values[target.id] = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"{notebook.name}: {target.id} is not a literal, papermill cannot replace it") from None
    return values


def imports_of(tree):
    """Modules of foleylib that a tree imports, wherever it does: {"audio.mel", "runtime.progress", ...}."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("foleylib.") for name in names if name.startswith("foleylib.")}


def file_of(name, library):
    """The file of module `name` ("audio.mel"), or of the module of which it is an attribute; None of a package."""
    parts = name.split(".")
    files = (library.joinpath(*parts[:end]).with_suffix(".py") for end in range(len(parts), 0, -1))
    return next((file for file in files if file.is_file()), None)


def needed_files(names, library):
    """Files behind modules and behind all they import in turn, without those that change no number."""
    needed, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        file = file_of(name, library)
        if file is not None and file not in needed and name.split(".")[0] not in NO_NUMBERS:
            needed.add(file)
            waiting += imports_of(ast.parse(file.read_text(encoding="utf8")))
    return needed


def stages_of(root):
    """Stages of dvc.yaml as DVC expands them: {name: (command, dependencies)}."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return {stage.name: (stage.cmd, {dep.def_path for dep in stage.deps}) for stage in repo.index.stages}


def unknown_parameters(stages, root):
    """Sentences on parameters that a stage passes and its notebook does not have (papermill only warns)."""
    problems = []
    for stage, (command, _) in stages.items():
        passed = {value for option, value in pairwise(shlex.split(command)) if option in PARAMETER_OPTIONS}
        for path in NOTEBOOK.findall(command):
            unknown = passed - parameters_of(root / path).keys()
            problems += [f"{stage} passes '{name}', which {path} does not have" for name in sorted(unknown)]
    return problems


def undeclared_dependencies(stages, root):
    """Sentences on notebooks and modules that a stage runs and dvc.yaml does not list among its deps."""
    problems = []
    for stage, (command, deps) in stages.items():
        notebooks = {root / path for path in NOTEBOOK.findall(command)}
        names = {name for notebook in notebooks for cell in code_cells(notebook) for name in imports_of(tree_of(cell))}
        needed = {f.relative_to(root).as_posix() for f in notebooks | needed_files(names, root / "foleylib")}
        missing = sorted(n for n in needed if not any(n == d or n.startswith(f"{d}/") for d in deps))
        problems += [f"{stage} runs {name}, which is not among its deps" for name in missing]
    return problems


def needless_dependencies(stages, root):
    """Sentences on modules among the deps of a stage that it does not run: an edit would rerun it for nothing."""
    problems = []
    for stage, (command, deps) in stages.items():
        notebooks = [root / path for path in NOTEBOOK.findall(command)]
        names = {name for notebook in notebooks for cell in code_cells(notebook) for name in imports_of(tree_of(cell))}
        needed = {f.relative_to(root).as_posix() for f in needed_files(names, root / "foleylib")}
        modules = [dep for dep in deps if dep.startswith("foleylib/") and dep != KIT and not dep.endswith(".csv")]
        needless = sorted(d for d in modules if not any(n == d or n.startswith(f"{d}/") for n in needed))
        problems += [f"{stage} does not run {name}, which is among its deps" for name in needless]
    return problems


@pytest.fixture(scope="module")
def stages():
    return stages_of(ROOT)


@each_module
def test_imports_go_down_the_layers(module):
    layer_of = {name: i for i, names in enumerate(LAYERS) for name in names}
    layer_of["report"] = layer_of["commands"]  # the site shows tables as notebooks do
    own = module.relative_to(ROOT / "foleylib").with_suffix("").parts
    imported = imports_of(ast.parse(module.read_text(encoding="utf8")))
    if own[0] == "report":  # beside the layers: read by notebooks and the site alone
        assert not {name for name in imported if name.split(".")[0] in WHOLE_SETTINGS | {"paths"}}
        return
    upward = sorted(name for name in imported if layer_of.get(name.split(".")[0], len(LAYERS)) > layer_of[own[0]])
    assert not upward, f"{upward} are above {own[0]}, or report: pass in what is needed of them"
    if own[0] not in WHOLE_SETTINGS | {"params"}:
        whole = sorted(name for name in imported if re.match(r"paths\b|params\.(settings|profiles)\b", name))
        assert not whole, f"{whole}: only stages and papers see the whole settings and the paths"


def test_packages_load_no_module_unasked():
    filled = [p for p in (ROOT / "foleylib").glob("*/**/__init__.py") if p.read_text().strip()]
    assert not filled, "a package's __init__ stays empty, so that importing one file loads one file"


@each_notebook
def test_notebook_source_is_stripped(notebook):
    cells = enumerate(code_cells(notebook))
    ran = [i for i, cell in cells if cell.get("outputs") or cell.get("execution_count") is not None]
    assert not ran, f"code cells {ran} hold outputs or counts; run: ./run nbstripout --keep-id {notebook.name}"


@each_notebook
def test_notebook_has_parameters_that_are_literals(notebook):
    assert len(parameters_of(notebook)) <= 4


@each_notebook
def test_notebook_defines_nothing(notebook):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = [n.name for cell in code_cells(notebook) for n in ast.walk(tree_of(cell)) if isinstance(n, kinds)]
    assert not defined, f"{defined} belong in foleylib, where they are tested"


def test_stages_pass_parameters_that_their_notebooks_have(stages):
    assert unknown_parameters(stages, ROOT) == []


def test_stages_declare_every_module_they_run(stages):
    assert undeclared_dependencies(stages, ROOT) == []


def test_stages_declare_no_module_they_do_not_run(stages):
    assert needless_dependencies(stages, ROOT) == []


def test_no_stage_depends_on_what_changes_no_number(stages):
    deps = {dep for name, (_, deps) in stages.items() for dep in deps if (name, dep) != ("listening", KIT)}
    assert not [dep for dep in deps if re.match(r"foleylib/(report|params|paths)\b", dep)]


def test_the_graph_is_short():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 1380


@pytest.fixture
def small_project(tmp_path):
    """A project of three modules, one notebook and a dvc.yaml with a foreach stage."""
    from dvc.repo import Repo

    for folder in ("notebooks", "foleylib/report", "foleylib/audio", "foleylib/networks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "foleylib/report/plots.py").write_text("from foleylib import never\n")
    (tmp_path / "foleylib/audio/mel.py").write_text("X = 1\n")
    (tmp_path / "foleylib/networks/vae.py").write_text("def f():\n    from foleylib.audio.mel import X\n    return X\n")
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["run = 'a'\n", "seed: int = 0"]},
        {
            "cell_type": "code",
            "metadata": {},
            "source": ["from foleylib.networks import vae\n", "from foleylib.report import plots"],
        },
    ]
    (tmp_path / "notebooks/01_a.ipynb").write_text(json.dumps({"cells": cells}))
    command = "papermill -k python3 notebooks/01_a.ipynb reports/01_a.ipynb -p run ${item} -r size 3"
    deps = ["notebooks/01_a.ipynb", "foleylib/networks/vae.py", "foleylib/networks/clap.py"]
    each = {"foreach": ["x", "y"], "do": {"cmd": command, "deps": deps}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"each": each}}))
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def test_what_is_wrong_with_a_graph_is_told(small_project):
    stages = stages_of(small_project)
    problems = {
        unknown_parameters: "passes 'size', which notebooks/01_a.ipynb does not have",
        undeclared_dependencies: "runs foleylib/audio/mel.py, which is not among its deps",
        needless_dependencies: "does not run foleylib/networks/clap.py, which is among its deps",
    }
    for check, sentence in problems.items():
        assert check(stages, small_project) == [f"each@{k} {sentence}" for k in "xy"]


def test_computed_parameters_are_refused(small_project):
    notebook = small_project / "notebooks" / "01_a.ipynb"
    notebook.write_text(notebook.read_text().replace("seed: int = 0", "seed = len(run)"))
    with pytest.raises(ValueError, match="not a literal"):
        parameters_of(notebook)
