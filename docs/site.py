"""The hook of `mkdocs.yml`: pages from outside of docs, links as GitHub has them, a page for each module of the API."""

from __future__ import annotations

import ast
import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/*.md")
"""Pages that keep their paths on the site; those of docs stand at its top."""
LINK = re.compile(
    r"^(?P<indent> *)```.*?^(?P=indent)```|`[^`\n]+`(?!\])"
    r"|\[(?P<text>(?:`[^`\n]+`|[^\[\]`])*)\]\((?P<target>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)
"""Code, which stays as it is, or a link."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Return the config with every page of results and the API in the navigation, and the repository's address."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config.repo_url = project.get("urls", {}).get("Repository", config.repo_url)
    parts = [{title: [{name.removeprefix("rec."): page_of(name)} for name in names]} for title, names in api(config)]
    config.nav = [*(config.nav or []), {"API": ["api/index.md", *parts]}]
    listed = next(part["Results"] for part in config.nav if "Results" in part)
    named = {page for entry in listed for page in entry.values()}
    listed += [page for page in outside("results/*.md") if page not in named]  # written by `rec results` since
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the files of docs with the pages from outside and those of the API."""
    for path in [path for pattern in OUTSIDE for path in outside(pattern)]:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    overview = ["# API\n\nModules that are called or extended from outside, by what they are for."]
    for title, names in api(config):
        overview += [f"\n## {title}\n\n| module | holds |\n|---|---|"]
        for name in names:
            overview.append(f"| [`{name}`]({posixpath.basename(page_of(name))}) | {first_line(name)} |")
            files.append(File.generated(config, page_of(name), content=f"# `{name}`\n\n::: {name}\n"))
    files.append(File.generated(config, "api/index.md", content="\n".join(overview) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page's text with links between pages as the site has them, and without those to other files.

    Where pyproject.toml names a repository, those lead there.
    """
    here = page.file.src_uri
    folder = posixpath.dirname(here if (ROOT / here).is_file() else f"docs/{here}")

    def mended(found: re.Match[str]) -> str:
        target = found["target"]
        if target is None or "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        place, hash_, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, place))
        uri = path.removeprefix("docs/")
        if files.get_file_from_path(uri):
            return f"[{found['text']}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{hash_}{anchor})"
        if not (ROOT / path).exists():
            return found[0]  # strict building tells of it
        if config.repo_url:
            return f"[{found['text']}]({config.repo_url.rstrip('/')}/blob/HEAD/{path}{hash_}{anchor})"
        return found["text"]

    return markdown if here.startswith("api/") else LINK.sub(mended, markdown)


def outside(pattern: str) -> list[str]:
    """Return the paths of pages that stand outside of docs, from the root."""
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))


def api(config: MkDocsConfig) -> list[tuple[str, list[str]]]:
    """Return the parts of the API: a title, and the names of its modules."""
    return [(title, [name for one in names for name in modules(one)]) for title, names in config.extra["api"].items()]


def modules(name: str) -> list[str]:
    """Return the modules that a name stands for."""
    if not name.endswith(".*"):
        return [name]
    found = (ROOT / name.removesuffix(".*").replace(".", "/")).rglob("*.py")
    parts = (path.relative_to(ROOT).with_suffix("").parts for path in found if not path.stem.startswith("_"))
    return sorted(".".join(one) for one in parts)


def page_of(name: str) -> str:
    """Return where the page of a module stands."""
    return f"api/{name}.md"


def first_line(name: str) -> str:
    """Return the first line of a module's docstring."""
    path = ROOT / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text())) or "").partition("\n")[0]
