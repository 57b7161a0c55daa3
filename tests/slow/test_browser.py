"""The page as a reader has it: in Chromium, without a window and without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from camoxpert_cli.report.page import write_report
from tests.helpers.example_report import example_report, shown_image

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
)
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        # Chromium refuses to sandbox what root runs.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a page with everything in it, long names included."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    report = example_report(size=96)
    long = replace(shown_image("a", "best", 3, 96), name="a_name_without_a_single_space_" * 4 + ".jpg")
    sets = [replace(each, shown=[*each.shown, long]) for each in report.sets]
    settings = {"data": {"dataset_path": "/" + "a_folder_with_a_long_name/" * 8}}
    write_report(path, replace(report, sets=sets, configuration=settings))
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(address)
    return browser


def is_open(page: Any) -> bool:
    return bool(page.execute_script("return document.querySelector('dialog').open"))


def press(page: Any, key: str) -> None:
    webdriver.ActionChains(page).send_keys(getattr(webdriver.Keys, key)).perform()


def test_loads_without_a_complaint(page: Any) -> None:
    """Nothing on the console, its own policy included, and every image is decoded."""
    widths = page.execute_script("return [...document.querySelectorAll('main img')].map(each => each.naturalWidth)")

    assert page.get_log("browser") == []
    assert len(widths) == 40
    assert set(widths) == {96}


def test_click_enlarges_and_escape_closes(page: Any) -> None:
    """A click shows the same data larger; Esc brings back the page, with the focus on that image."""
    button = page.find_elements("css selector", "button.enlarge")[5]
    small = button.find_element("css selector", "img")
    button.click()
    large = page.find_element("css selector", "dialog img")

    assert is_open(page)
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.get_attribute("alt") == small.get_attribute("alt") == "ground truth of CAMO-0001.jpg"
    assert large.size["width"] > 2 * small.size["width"]
    press(page, "ESCAPE")
    assert not is_open(page)
    assert page.switch_to.active_element == button


def test_keyboard_alone(page: Any) -> None:
    """Enter enlarges the image that has the focus, which is seen; arrow keys step to its neighbours."""
    buttons = page.find_elements("css selector", "button.enlarge")
    page.execute_script("arguments[0].focus()", buttons[0])
    press(page, "TAB")
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    press(page, "ENTER")
    opened = is_open(page)
    for _ in range(2):
        press(page, "ARROW_LEFT")
    source = page.find_element("css selector", "dialog img").get_attribute("src")
    press(page, "ESCAPE")

    assert (outline, opened) == ("solid", True)
    assert source == buttons[-1].find_element("css selector", "img").get_attribute("src")
    assert page.switch_to.active_element == buttons[-1]


def test_buttons_of_the_enlarged_view(page: Any) -> None:
    """One steps on, one closes, and so does a click beside the image."""
    first = page.find_element("css selector", "button.enlarge")
    first.click()
    page.find_element("css selector", "dialog [data-step='1']").click()
    caption = page.find_element("css selector", "dialog span").text
    page.find_element("css selector", "dialog [data-close]").click()
    closed = not is_open(page)
    first.click()
    webdriver.ActionChains(page).move_by_offset(3, 3).click().perform()

    assert caption == "ground truth of CAMO-0000.jpg"
    assert closed
    assert not is_open(page)


@pytest.mark.parametrize("unfolded", [False, True])
def test_fits_a_phone(page: Any, unfolded: bool) -> None:
    """At 360 pixels nothing moves sideways but tables within their own frame, settings unfolded or not."""
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    page.refresh()
    if unfolded:
        page.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true })")
    widths = page.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    page.find_element("css selector", "button.enlarge").click()
    dialog = page.find_element("css selector", "dialog").rect

    assert widths == [360, 360]
    assert dialog["x"] >= 0
    assert dialog["x"] + dialog["width"] <= 360


def test_dark_mode(page: Any) -> None:
    """Where the reader prefers dark, text and lines of charts are light upon it."""
    colours = {}
    for mode in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": mode}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        colours[mode] = page.execute_script(
            "const of = (where, what) => getComputedStyle(document.querySelector(where))[what].match(/\\d+/g)[0];"
            "return [of('body', 'backgroundColor'), of('body', 'color'), of('.chart text', 'fill')].map(Number)"
        )

    assert colours["light"][0] > 200 > 60 > max(colours["light"][1:])
    assert colours["dark"][0] < 60 < 200 < min(colours["dark"][1:])
