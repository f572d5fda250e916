"""The paper notebooks run again as they ran in the graph; cells marked NBVAL_CHECK_OUTPUT give the same output."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from workspace import run

from foleylib.commands.site import PAPERS


def nbval(workspace, report):
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=120",
        "-p",
        "no:cacheprovider",
        "--noconftest",
    ]
    return run(workspace, sys.executable, "-m", "pytest", *options, "-q", "-c", "/dev/null", str(report))


@pytest.fixture(scope="module")
def checks(smoke):
    """What nbval will say of each paper's report; two are checked at a time."""
    pool = ThreadPoolExecutor(2)
    yield {paper: pool.submit(nbval, smoke, smoke / "reports" / f"{paper}.ipynb") for paper in PAPERS}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("paper", PAPERS)
def test_paper_notebook_gives_the_same_tables_again(smoke, checks, paper):
    report = smoke / "reports" / f"{paper}.ipynb"
    cells = [cell for cell in json.loads(report.read_text())["cells"] if cell["cell_type"] == "code"]
    marked = [cell for cell in cells if "NBVAL_CHECK_OUTPUT" in "".join(cell["source"])]
    assert marked and all(cell["outputs"] for cell in marked)
    assert re.search(rf"{len(cells)} passed", checks[paper].result())


def test_a_number_that_differs_is_seen(smoke, tmp_path):
    """The comparison is one: with another number in the stored table it fails."""
    report = smoke / "reports" / f"{PAPERS[0]}.ipynb"
    notebook = json.loads(report.read_text())
    tables = [c for c in notebook["cells"] if "NBVAL_CHECK_OUTPUT" in "".join(c["source"])]
    (plain,) = (out["data"]["text/plain"] for out in tables[0]["outputs"] if "data" in out)
    tables[0]["outputs"][-1]["data"]["text/plain"] = re.sub(r"\d\.\d", "7.7", "".join(plain), count=1)
    changed = tmp_path / "changed.ipynb"
    changed.write_text(json.dumps(notebook))
    with pytest.raises(pytest.fail.Exception, match="1 failed"):
        nbval(smoke, changed)
