"""The documentation as a site: built strictly, with pages from outside of docs and the docstrings of the API."""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rec.systems.api import System

pytest.importorskip("mkdocs", reason="needs mkdocs, which `make setup` installs")

from markdown_it import MarkdownIt
from mkdocs.config import load_config
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
SOURCES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "results").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]
COUNTED = {"h2", "h3", "ul", "ol", "li", "table", "tr", "td", "pre", "code", "strong", "em", "img", "blockquote"}
"""Elements of which a page has as many on the site as on GitHub."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Article(HTMLParser):
    """The text of a page's article, its elements by name, and where its links and pictures lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inside, self.parts, self.elements, self.links = False, list[str](), Counter[str](), list[str]()
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join("".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside |= tag == "article"
        if self.inside:
            self.elements[tag] += 1
            self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "article"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.parts.append(data)


def page_of(source: Path) -> str:
    """Return the name of the page that a document becomes."""
    name = source.relative_to(ROOT).as_posix().removeprefix("docs/")
    return re.sub(r"\.md$", ".html", re.sub(r"README\.md$", "index.md", name))


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build into a folder with the options of `make docs` and further ones."""
    told = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (words,) = [line.split() for line in told.splitlines() if "bin/mkdocs" in line]
    given = words[next(place for place, word in enumerate(words) if word.endswith("bin/mkdocs")) + 1 :]
    command = [sys.executable, "-m", "mkdocs", *given, "--site-dir", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    built = build(folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def articles(site: Path) -> dict[str, Article]:
    """Return the articles of all pages by name."""
    return {path.relative_to(site).as_posix(): Article(path.read_text()) for path in site.rglob("*.html")}


def test_every_document_is_a_page(articles: dict[str, Article]) -> None:
    assert {page_of(path) for path in SOURCES} <= set(articles)
    assert "Results: ml-100k" in articles["results/ml-100k.html"].text


def test_every_document_is_named_in_the_navigation() -> None:
    named = set(re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {path.relative_to(ROOT).as_posix().removeprefix("docs/") for path in SOURCES} == named


def test_the_page_of_a_class_shows_its_docstring_and_hides_private_names(articles: dict[str, Article]) -> None:
    text = articles["api/rec.systems.api.html"].text
    first = " ".join((System.__doc__ or "").partition("\n\n")[0].split())
    assert first.replace("`", "") in text
    assert "Return the batch for these rows." in text
    assert "Its own keys, those of [model]." in text
    names = {link for article in articles.values() for link in article.links if "#rec." in link}
    assert names
    assert not [name for name in names if re.search(r"\._[a-z]", name)]


def test_pages_have_the_elements_that_github_makes_of_them(articles: dict[str, Article]) -> None:
    github = MarkdownIt("gfm-like", {"linkify": False})
    for path in SOURCES:
        wanted = Article(f"<article>{github.render(path.read_text())}</article>").elements
        found = articles[page_of(path)].elements
        assert {tag: found[tag] for tag in COUNTED} == {tag: wanted[tag] for tag in COUNTED}, path.name


def test_links_and_pictures_lead_to_files_of_the_site(site: Path, articles: dict[str, Article]) -> None:
    lost = [
        (page, link)
        for page, article in articles.items()
        for link in article.links
        if "://" not in link and not link.startswith(("#", "mailto:"))
        if not (site / page).parent.joinpath(link.partition("#")[0]).is_file()
    ]
    assert not [pair for pair in lost if pair[0] != "404.html"]
    assert "flow.svg" in articles["index.html"].links


@pytest.mark.parametrize(
    ("text", "lost"),
    [("[b](b.md#there)", ""), ("[b](c.md)", "c.md"), ("[b](b.md#here)", "#here"), ("::: rec.nothing", "rec.nothing")],
)
def test_what_leads_nowhere_fails_the_build(text: str, lost: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(f"# A\n\n{text}\n")
    (tmp_path / "docs" / "b.md").write_text("# B\n\n## There\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"INHERIT: {ROOT}/mkdocs.yml\nhooks: []\nwatch: []\nnav: [a.md, b.md]\n")
    built = build(tmp_path / "site", "--config-file", str(config))
    assert built.returncode == bool(lost), built.stdout + built.stderr
    assert lost in built.stderr


def test_links_to_sources_lead_to_the_repository_where_one_is_named() -> None:
    place = importlib.util.spec_from_file_location("documents", ROOT / "docs" / "site.py")
    assert place is not None
    assert place.loader is not None
    place.loader.exec_module(hook := importlib.util.module_from_spec(place))
    config = load_config(str(ROOT / "mkdocs.yml"), repo_url="https://example.org/rec")
    names = ("results/demo.md", "results/speed.md", "data.md", "README.md")
    files = Files([File(name, None, config.site_dir, use_directory_urls=False) for name in names])
    page = Page(None, next(iter(files)), config)
    text = "[a](../docs/data.md#keys), [b](speed.md), [`c`](../rec/cli/train.py), [d](../README.md), `[e](../LICENSE)`"
    assert hook.on_page_markdown(text, page, config, files) == (
        "[a](../data.md#keys), [b](speed.md), [`c`](https://example.org/rec/blob/HEAD/rec/cli/train.py), "
        "[d](../README.md), `[e](../LICENSE)`"
    )


def test_links_to_sources_are_plain_text_where_no_repository_is_named(articles: dict[str, Article]) -> None:
    assert "tests/guests are two systems outside the package" in articles["adding_a_system.html"].text
    assert not [
        link for article in articles.values() for link in article.links if link.partition("#")[0].endswith(".py")
    ]
