"""`foleylib site`: the reports as a static site that opens from its files, without a network."""

import argparse
import html
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat

from foleylib import paths
from foleylib.commands import summary
from foleylib.commands.outputs import check_folder, place
from foleylib.params import settings
from foleylib.report import tables
from foleylib.runtime import progress

HELP = "the reports as a static site, with sound"
ABOUT = "The executed notebooks as a static site that opens from its files, without a network."
STYLE = Path(__file__).with_name("site.css")
PAPERS = [
    "paper_latent_clap",
    "paper_text_foley",
    "paper_transfer",
    "paper_re_audioldm",
    "paper_src_gaudio",
    "combined",
]
HEARD = "paper_latent_clap"  # the page whose first grid of sounds stands on the first page
SHOWN = [
    "real",
    "reconstruction",
    "foundation",
    "ldm",
    "tuning",
    "latent",
    "tuning_latent",
    "ldm_filter",
    "large_filter",
]
FINDINGS = 2  # of a page, on the first page
INTRODUCTION = (
    "Five papers implemented, run and measured, and one model with all of their parts. The default corpus is synthetic; "
    "published numbers, which are of other sounds, stand beside ours and do not compare in size."
)
GENERATOR = '<meta name="generator" content="foleylib site">'  # by which a site is known, to be replaced by the next
LINK = re.compile(r'<a href="(?!https?:|#|data:)([^"#]+)(#[^"]*)?">(.*?)</a>', re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A report: its name, its heading, the text under that, its body as HTML, what it found, and its first grid of sounds."""

    name: str
    title: str
    about: str
    body: str
    findings: str
    sounds: str


def site(out: str | Path | None = None, reports: str | Path | None = None) -> Path:
    """Render every executed notebook of `reports` (reports/) to a page of a static site in `out` (site/); returns index.html.

    Sounds, spectrograms and figures are within the pages: nothing is loaded from elsewhere. The first page has the papers with
    their first findings, the headline figures of results/summary.csv and a grid to listen to. What an earlier call wrote to
    `out` is replaced; a folder that holds anything else is refused.
    """
    source, out = Path(reports or paths.ROOT / "reports"), Path(out or paths.ROOT / "site")
    files = sorted(source.glob("*.ipynb"))
    if not files:
        raise ValueError(f"{source}: no executed notebooks there; run ./run dvc repro first")
    if any(file.stem == "index" for file in files):
        raise ValueError(f"{source / 'index.ipynb'}: the first page of the site has that name; give it another")
    check_folder(out.parent)
    if (out.exists() or out.is_symlink()) and not _may_be_replaced(out):
        raise ValueError(f"{out} is there already and holds more than a site, or none; give another folder")
    names = {file.stem for file in files}
    pages = [_page(file, names) for file in progress(files, desc="pages")]
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copy(STYLE, part / "site.css")
    for page in pages:
        (part / f"{page.name}.html").write_text(_whole(page.title, page.body, code=True), encoding="utf8")
    (part / "index.html").write_text(_whole("foleylib", _first(pages)), encoding="utf8")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return out / "index.html"


def _may_be_replaced(out: Path) -> bool:
    """Whether a folder is empty, or holds what an earlier call wrote and nothing else."""
    if out.is_symlink() or not out.is_dir():
        return False
    inside, index = list(out.iterdir()), out / "index.html"
    known = all(path.is_file() and (path.suffix == ".html" or path.name == STYLE.name) for path in inside)
    return not inside or (known and index.is_file() and GENERATOR in index.read_text(encoding="utf8", errors="replace"))


def _page(file: Path, names: set[str]) -> Page:
    from nbconvert import HTMLExporter
    from nbconvert.filters import markdown2html

    try:
        notebook = nbformat.read(file, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{file}: no notebook ({str(error).splitlines()[0]}); run its stage again") from None
    for cell in notebook.cells:
        if "outputs" in cell:  # without progress bars and warnings of the run
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    body, _ = HTMLExporter(template_name="basic", exclude_anchor_links=True).from_notebook_node(notebook)
    body = body.replace("<table", '<div class="scroll"><table').replace("</table>", "</table></div>")
    first = "".join(notebook.cells[0].source) if notebook.cells else ""
    head, _, about = first.partition("\n")
    told = [out.data for cell in notebook.cells for out in cell.get("outputs", []) if "data" in out]
    said = next((data["text/markdown"] for data in told if "text/markdown" in data), "")
    sounds = next((data["text/html"] for data in told if "<audio" in data.get("text/html", "")), "")
    findings = "\n".join([line for line in said.splitlines() if line.startswith("- ")][:FINDINGS])
    title = head.lstrip("# ").strip() or file.stem
    about, body, findings = (_linked(text, names) for text in (markdown2html(about), body, markdown2html(findings)))
    return Page(file.stem, title, about, body, findings, sounds)


def _linked(text: str, names: set[str]) -> str:
    """HTML whose links to reports lead to their pages; those to other files of the repository are plain text."""

    def page_of(link: re.Match) -> str:
        name = Path(link[1]).stem
        return f'<a href="{name}.html{link[2] or ""}">{link[3]}</a>' if name in names else link[3]

    return LINK.sub(page_of, text)


def _whole(title: str, body: str, *, code: bool = False) -> str:
    switch = '<label><input type="checkbox" id="code"> show the code</label>' if code else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{GENERATOR}
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<link rel="stylesheet" href="site.css">
</head>
<body>
<header><strong><a href="index.html">foleylib</a></strong>
<a href="index.html#papers">Papers</a><a href="index.html#listen">Listen</a><a href="index.html#pages">All pages</a>{switch}</header>
<main>
{body}
</main>
<footer>Rendered from the executed notebooks of the repository. Published numbers are labelled as published.</footer>
</body>
</html>
"""


def _first(pages: list[Page]) -> str:
    by_name = {page.name: page for page in pages}
    cards = "".join(_card(by_name[name]) for name in PAPERS if name in by_name)
    sounds = by_name[HEARD].sounds if HEARD in by_name else ""
    rest = "".join(f'<li><a href="{page.name}.html">{html.escape(page.name)}</a></li>' for page in pages)
    parts = [
        "<h1>Foley and text-to-audio generation, told in executed notebooks</h1>",
        f"<p>{INTRODUCTION}</p>",
        f'<h2 id="papers">Papers</h2><div class="cards">{cards}</div>',
        _headlines(),
        f'<h2 id="listen">Listen</h2>{sounds}' if sounds else "",
        f'<h2 id="pages">All pages</h2><ul class="pages">{rest}</ul>',
    ]
    return "\n".join(parts)


def _card(page: Page) -> str:
    return (
        f'<section class="card"><h3><a href="{page.name}.html">{html.escape(page.title)}</a></h3>'
        f"{page.about}{page.findings}</section>"
    )


def _headlines() -> str:
    """The headline metrics of the runs of results/summary.csv, or nothing where there is none."""
    file = paths.RESULTS / "summary.csv"
    if not file.is_file():
        return ""
    scores, display = tables.of_table(summary.read(file), "", ""), settings.load().display()
    runs = [run for run in SHOWN if run in display and run in set(scores.run)]
    if not runs:
        raise ValueError(f"{file}: has none of the runs {', '.join(SHOWN)}; run ./run dvc repro evaluate again")
    table = tables.headlines(scores, runs, display=display)
    return f'<h2>Headline figures</h2><div class="scroll">{table.to_html(border=0)}</div>'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument(
        "-o", "--out", type=place, default=paths.ROOT / "site", help="folder, replaced where it is a site"
    )
    parser.add_argument("--reports", type=Path, default=paths.ROOT / "reports", help="folder of executed notebooks")


def run(arguments: argparse.Namespace) -> None:
    print(site(arguments.out, arguments.reports))
