"""In the real Lab the pages of docs/ open as a preview, from a notebook's link or by name, and lead back."""

from pathlib import Path

import pytest
from browser import page_of, photograph, serious, tutorial
from playwright.sync_api import expect

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_link_opens_the_pages_as_a_preview(tmp_path: Path, theme: str) -> None:
    with (
        tutorial(tmp_path, dark=theme == "dark") as lab,
        page_of(lab.format(name="00_start_here.ipynb"), height=1000) as page,
    ):
        for title, name in (("Glossary", "glossary"), ("Troubleshooting", "troubleshooting")):
            page.get_by_role("tab", name="00_start_here.ipynb").click()
            page.locator(".jp-Notebook").get_by_role("link", name=name, exact=False).first.click()
            shown = page.locator(".jp-MarkdownViewer:visible")
            expect(shown.get_by_role("heading", name=title, exact=True)).to_be_visible()
            expect(page.locator(".jp-FileEditor")).to_have_count(0)
            for width in (800, 1280):
                page.set_viewport_size({"width": width, "height": 1000})
                page.wait_for_timeout(300)  # for the picture only
                photograph(page, f"docs_{name}_{theme}_{width}")
            assert serious(page, ".jp-MarkdownViewer:not(.lm-mod-hidden) .jp-RenderedMarkdown") == []
        shown.get_by_role("heading", name="CONNACK_5", exact=True).scroll_into_view_if_needed()
        photograph(page, f"docs_code_{theme}")
        shown.get_by_role("link", name="07 See a refusal from both ends").first.click()
        expect(page.locator(".jp-Notebook:visible")).to_contain_text("07 Connect the device over MQTT")
        page.goto(lab.replace("notebooks/{name}", "docs/errors.md"))  # as by a click in the list of files
        expect(page.locator(".jp-MarkdownViewer").get_by_role("heading", name="Coded errors")).to_be_visible()
