"""The site: every report as a page, and in a real browser without network it shows, plays and asks nobody for anything."""

import re
import shutil

import nbformat
import pytest

from foleylib import paths
from foleylib.commands.main import main
from foleylib.commands.site import PAPERS, site
from foleylib.paths import ROOT

REPORTS = ["14_evaluate", "13_sample_ldm"]
PLAYED = """async audio => {
    audio.muted = true;  // a browser plays no other sound that nobody clicked on
    audio.play();
    for (let waited = 0; waited < 100 && !(audio.currentTime > 0); waited++) await new Promise(r => setTimeout(r, 50));
    const moved = audio.currentTime; audio.pause(); return moved;
}"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site of the committed pages of papers, and of two stages."""
    reports = tmp_path_factory.mktemp("reports")
    for name in (*PAPERS, *REPORTS):
        shutil.copy(ROOT / "reports" / f"{name}.ipynb", reports)
    return site(tmp_path_factory.mktemp("out") / "site", reports).parent


def test_every_report_has_a_page_and_nothing_is_loaded_from_elsewhere(built):
    assert {path.name for path in built.iterdir()} == {
        "index.html",
        "site.css",
        *(f"{n}.html" for n in (*PAPERS, *REPORTS)),
    }
    for page in built.glob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]{1,40})', text)
        assert loaded and all(what.startswith("data:") or what == "site.css" for what in loaded), page.name
        links = [to for to in re.findall(r'<a href="([^"]+)"', text) if not to.startswith(("#", "http"))]
        assert all((built / to.partition("#")[0]).is_file() for to in links), page.name


def test_the_first_page_has_papers_findings_figures_and_sounds(built):
    text = (built / "index.html").read_text()
    for name in PAPERS:
        title = nbformat.read(ROOT / "reports" / f"{name}.ipynb", 4).cells[0].source.splitlines()[0].lstrip("# ")
        assert re.sub("&#x27;|&#39;", "'", text).count(title) >= 1 and f"{name}.html" in text
    assert text.count('class="card"') == 6 and text.count("<audio") >= 7 and "KAD" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_pages_fit_play_and_report_no_error(built, browser, width, scheme):
    page = browser.new_page(offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    for name in ("index", "paper_latent_clap", "14_evaluate"):
        page.goto((built / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not page.locator(".code_cell .input").first.is_visible()
    page.get_by_label("show the code").check()
    assert page.locator(".code_cell .input").first.is_visible()
    assert problems == [] and {url.split(":")[0] for url in requests} <= {"file", "data"}
    page.close()


@pytest.mark.parametrize("name", ["index", "paper_text_foley", "paper_src_gaudio", "13_sample_ldm"])
def test_every_player_plays(built, browser, name):
    page = browser.new_page(offline=True)
    page.goto((built / f"{name}.html").as_uri())
    players = page.locator("audio")
    assert players.count() >= 7
    assert all(player.evaluate(PLAYED) > 0 for player in players.all())
    page.close()


def test_what_is_no_site_is_kept(built, tmp_path, capsys):
    kept = tmp_path / "mine" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("x")
    assert main(["site", "-o", str(kept.parent), "--reports", str(ROOT / "reports")]) == 1
    assert "is there already and holds more than a site, or none" in capsys.readouterr().err and kept.exists()
    assert main(["site", "-o", str(tmp_path / "new"), "--reports", str(tmp_path / "mine")]) == 1
    assert "no executed notebooks there; run ./run dvc repro first" in capsys.readouterr().err
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "x.ipynb").write_text("{")
    assert main(["site", "-o", str(tmp_path / "new"), "--reports", str(broken)]) == 1
    assert "x.ipynb: no notebook" in capsys.readouterr().err and not (tmp_path / "new").exists()


def spoil_with_own_file(root, built):
    shutil.copytree(built, root / "out")
    (root / "out" / "thesis.txt").write_text("x")


def spoil_with_own_page(root, built):
    (root / "out").mkdir()
    (root / "out" / "index.html").write_text("<h1>My page</h1>")


def spoil_with_own_folder(root, built):
    shutil.copytree(built, root / "out")
    (root / "out" / "photos").mkdir()


def spoil_with_link(root, built):
    shutil.copytree(built, root / "there")
    (root / "out").symlink_to(root / "there")


def spoil_with_file(root, built):
    (root / "out").write_text("x")


@pytest.mark.parametrize("spoil", [value for name, value in list(globals().items()) if name.startswith("spoil_")])
def test_no_folder_but_a_site_is_replaced(built, tmp_path, spoil):
    reports = tmp_path / "reports"
    reports.mkdir()
    shutil.copy(ROOT / "reports" / "combined.ipynb", reports)
    spoil(tmp_path, built)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match="out is there already and holds more than a site, or none; give another folder"
    ):
        site(tmp_path / "out", reports)
    with pytest.raises(ValueError, match="reports is there already and holds more than a site"):
        site(reports, reports)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_an_earlier_site_is_replaced(built, tmp_path):
    reports = tmp_path / "reports"
    reports.mkdir()
    shutil.copy(ROOT / "reports" / "combined.ipynb", reports)
    shutil.copytree(built, tmp_path / "out")
    site(tmp_path / "out", reports)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["combined.html", "index.html", "site.css"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x", b"[]", "x.ipynb: no notebook"),
        ("x", b"\xff\xfe", "x.ipynb: no notebook"),
        ("index", b"{}", "index.ipynb: the first page of the site has that name; give it another"),
    ],
)
def test_a_report_that_makes_no_page(tmp_path, name, content, said):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / f"{name}.ipynb").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        site(tmp_path / "out", tmp_path / "reports")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "summary.csv: cannot be read as a CSV .it is empty.; run ./run dvc repro evaluate again"),
        ("run,value\nldm,1\n", "summary.csv: has no column paper, table"),
        ("paper,table,run,class,metric,embedder,seed,value\n,,ldm,all\n", "rows have other than the 8 fields"),
        ("paper,table,run,class,metric,embedder,seed,value\n,,x,average,kad,judge,0,1\n", "has none of the runs real,"),
    ],
)
def test_results_that_cannot_be_read(tmp_path, monkeypatch, content, said):
    (tmp_path / "reports").mkdir()
    shutil.copy(ROOT / "reports" / "combined.ipynb", tmp_path / "reports")
    (tmp_path / "summary.csv").write_text(content)
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match=said):
        site(tmp_path / "out", tmp_path / "reports")
    assert not (tmp_path / "out").exists()
