"""Contrast as the browser draws it, in the real Lab in both themes: forms, cards, panels, console, pictures, plot.

Every text and every control is measured from its computed style (WCAG 2.1: 1.4.3 and 1.4.11).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import RUN_TIMEOUT, lab, page_of, photograph, run_all, serious, whole, write_notebook
from conftest import ROOT, tool
from PIL import Image
from playwright.sync_api import Page, expect
from test_displays import contrast
from test_reopen import SETUP, WIDGETS

from mciot_nb.ui.markup import COLOURS
from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow

OURS = ".jp-OutputArea-output"
SHOWN = [
    "from mciot_nb import chain_picture, diagnose, read_store, OnboardingError, two_sides\n"
    "certificate, ca = workspace.certificate('device'), workspace.certificate('ca')\n"
    "read_store(workspace.create_keystore(), workspace.passphrase)",
    "ca",
    "two_sides('Left', diagnose([certificate], [ca]), 'Right', OnboardingError('It is wrong: mend it.'))",
    "chain_picture([certificate, ca], trusted=[ca])",
    "from mciot_nb import check_my_work, fields, first_lines, journey\nfields(ca)",
    "first_lines(workspace.device_file('deviceKey.pem'))",
    "check_my_work('01')",
    "with workspace.device(tenant) as device:\n    device.create()\n"
    "    device.measure('c8y_Temperature', 'T', 21.5, 'C')\n"
    "journey(device, tenant.devices.measurements(device.client_id))",
    "workspace.progress()",
    "CompletionForm(workspace).sign()",
    f"import json\nfrom IPython.display import Markdown\ncells = json.load(open({str(NOTEBOOKS[1])!r}))['cells']\n"
    "Markdown(next(''.join(cell['source']) for cell in cells if cell['id'] == 'ca-questions'))",
]

#: Returns, of all that is visible in an element, each text and control with less contrast than WCAG asks for.
PALE = """
(roots) => {
  const LINES = "table.mciot-card:not(:has(caption)), .mciot-card caption, .mciot-form, .mciot-file"
    + ", [style*='border-left'], [style*='border:']";
  const parse = (colour) => {
    const numbers = colour.match(/[\\d.]+/g).map(Number);
    const scale = colour.startsWith("color(") ? 255 : 1;
    return { rgb: numbers.slice(0, 3).map((one) => one * scale), alpha: numbers[3] ?? 1 };
  };
  const over = (front, back, alpha) => front.map((one, place) => one * alpha + back[place] * (1 - alpha));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const { rgb, alpha } = parse(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? rgb : over(rgb, ground(element.parentElement), alpha);
  };
  const opacity = (element) => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
  const linear = (one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => 0.05 + rgb.reduce((sum, one, at) => sum + linear(one / 255) * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (a, b) => Math.max(light(a), light(b)) / Math.min(light(a), light(b));
  const found = [];
  const judge = (what, element, colour, back, least) => {
    const { rgb, alpha } = parse(colour);
    const seen = contrast(over(rgb, back, alpha * opacity(element)), back);
    measured[what] = (measured[what] ?? 0) + 1;
    const where = `${element.className || element.tagName} ${element.innerText ?? ""}`;
    if (seen < least) found.push(`${what}: ${seen.toFixed(2)} ${where}`.slice(0, 160));
  };
  const measured = {};
  const all = (selector) => roots.flatMap((root) => [...root.querySelectorAll(selector)]);
  const disabled = (element) => element.closest("[disabled], [aria-disabled=true]");
  const seen = (element) => element.checkVisibility({ checkOpacity: false, checkVisibilityCSS: true });
  for (const root of roots) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement, words = walker.currentNode.data.trim();
      if (!words || !seen(element) || disabled(element) || element.closest("style, option")) continue;
      judge("text", element, getComputedStyle(element).color, ground(element), 4.5);
    }
  }
  for (const control of all("input, select, button.jupyter-button, textarea")) {
    if (!seen(control) || disabled(control) || ["radio", "checkbox", "file"].includes(control.type)) continue;
    const style = getComputedStyle(control);
    judge("control", control, style.borderTopColor, ground(control.parentElement), 3);
    const pale = control.placeholder && getComputedStyle(control, "::placeholder").color;
    if (pale) judge("placeholder", control, pale, ground(control), 4.5);
    if (control.tagName === "INPUT") judge("typed", control, style.color, ground(control), 4.5);
    if (control.tagName !== "SELECT") continue;
    const drawn = decodeURIComponent(style.backgroundImage), coded = drawn.match(/base64,([^"]*)/);
    const fill = (coded ? atob(coded[1]) : drawn).match(/fill[=:]["']?(#[0-9a-fA-F]{3,6})/)?.[1] ?? "#000000";
    const digits = fill.length === 4 ? [...fill.slice(1)].map((one) => one + one) : fill.match(/[0-9a-fA-F]{2}/g);
    judge("arrow", control, `rgb(${digits.map((one) => parseInt(one, 16))})`, ground(control), 3);
  }
  for (const box of all(LINES)) {
    const style = getComputedStyle(box), side = parseFloat(style.borderLeftWidth) ? "Left" : "Top";
    if (seen(box)) judge("line", box, style[`border${side}Color`], ground(box.parentElement), 3);
  }
  return [found, measured];
}
"""


@contextmanager
def opened(folder: Path, dark: bool) -> Iterator[Page]:
    """Open a notebook with every widget and display in the Lab, and run it; every fold and row is opened."""
    tool("chromium")
    write_notebook(folder, [SETUP, *WIDGETS, *SHOWN])
    environment = {"MCIOT_WORKSPACE": str(folder / "workspace"), "JUPYTER_CONFIG_PATH": str(ROOT / "jupyter-config")}
    with lab(folder, dark=dark, **environment) as url, page_of(url, height=4600) as page:
        run_all(page)
        last = page.locator(".jp-CodeCell .jp-InputPrompt").last
        expect(last).to_have_text(f"[{1 + len(WIDGETS) + len(SHOWN)}]:", timeout=RUN_TIMEOUT)
        page.get_by_role("button", name="Connect", exact=True).click()
        expect(page.locator(".mciot-console")).to_contain_text("✓ Connected to")
        page.get_by_role("button", name="Send measurement", exact=True).click()
        expect(page.locator("img[alt^=Plot]")).to_be_visible()
        page.get_by_role("button", name="Open 1000").click()
        page.get_by_role("button", name="Open Example Root CA").click()
        page.get_by_label("a real tenant").click()
        page.locator(".jp-CodeCell", has_text="TenantForm(workspace)").last.get_by_role("button", name="Submit").click()
        for details in page.locator(".jp-OutputArea-output details").all():
            details.evaluate("element => { element.open = true; }")
        yield page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_line_and_control_has_contrast(tmp_path: Path, dark: bool) -> None:
    scheme = int(dark)
    with opened(tmp_path, dark) as page:
        for width in (800, 1280):
            whole(page, width)
            photograph(page, f"looks_{'dark' if dark else 'light'}_{width}")
        found, measured = page.locator(OURS).evaluate_all(PALE)
        assert found == []
        assert set(measured) == {"text", "control", "placeholder", "typed", "arrow", "line"} and measured["text"] > 200
        assert serious(page, OURS) == []
        for picture in page.locator("img.mciot-picture, img[alt^=Plot]").all():
            drawn = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
            colours: Any = drawn.getcolors(1 << 20)
            ground, *inks = ("#" + bytes(colour).hex() for _, colour in sorted(colours, reverse=True))
            assert ground in (COLOURS["ground"][scheme], COLOURS["paper"][scheme]), "it follows the theme"
            assert max(contrast(ground, ink) for ink in inks) >= 4.5
        page.locator(".mciot-note").first.evaluate(  # the control
            "element => element.insertAdjacentHTML('beforeend', '<b style=\"color:#777;background:#888\">pale</b>')"
        )
        ((control,), _) = page.locator(OURS).evaluate_all(PALE)
        assert control.startswith("text: 1.") and "pale" in control
