"""The pages that README shows are what today's code writes; `python -m tests.committed_pages` writes them again."""

import html
import re
from importlib import resources

import pytest

from kernorm.reporting.page import page_renderer
from tests.committed_pages import ROOT, pages


@pytest.mark.parametrize("name", [str(page.relative_to(ROOT)) for page in pages()])
def test_a_committed_page_has_todays_looks_and_script(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    looks = resources.files("kernorm.reporting") / "templates" / "report.css"
    assert looks.read_text(encoding="utf-8").strip() in text
    assert f"<script>\n{page_renderer().globals['script']}\n</script>" in text
    # It asks nobody for anything, and links to its neighbours alone.
    assert re.findall(r"""src=["']?(?!data:)([^"'\s>]+)""", text) == []
    assert not re.search(r"@import|url\((?!['\"]?(?:data:|#))", text)
    for link in re.findall(r"""href=["']?(?!#|data:)([^"'\s>]+)""", text):
        assert (ROOT / name).parent.joinpath(link).exists(), link


@pytest.mark.skipif(not pages(), reason="not a git checkout")
def test_every_committed_page_is_looked_at():
    kinds = {page.relative_to(ROOT).parts[1] for page in pages()}
    assert kinds == {"examples", "searches", "studies", "kernorm"}


@pytest.mark.parametrize("name", [str(page.relative_to(ROOT)) for page in pages()])
def test_what_stands_in_tables_can_be_copied_to_latex(name):
    """Signs that LaTeX does not know by itself are written as it takes them; page.js lists those."""
    script = (resources.files("kernorm.reporting") / "templates" / "page.js").read_text(encoding="utf-8")
    known = set("’×é\N{NO-BREAK SPACE}") | set(re.findall(r'"(.)": "', script))
    cells = re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", (ROOT / name).read_text(encoding="utf-8"), re.S)
    text = html.unescape(re.sub("<.*?>", "", " ".join(cells)))
    assert {letter for letter in text if ord(letter) > 127} <= known
