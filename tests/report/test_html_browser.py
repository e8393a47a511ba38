"""The report in headless Chromium, from the disk and without a network."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rosa.config import LoraConfig
from rosa.report.html.contents import contents
from rosa.report.html.render import html
from tests.report.page_reader import grid, read
from tests.report.synthetic_records import METHODS, config, record

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; see requirements-dev.txt")
by = pytest.importorskip("selenium.webdriver.common.by")
keys = pytest.importorskip("selenium.webdriver.common.keys")
service = pytest.importorskip("selenium.webdriver.chrome.service")
waiting = pytest.importorskip("selenium.webdriver.support.ui")
pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
AXE = "axe-core@4.14.1"
COMMAND = 'python scripts/train.py x="<b>bold</b>" </script>'


def sweep() -> list[dict[str, Any]]:
    """Two tasks, four methods, two seeds: one failed, one missing; LoRA on CoLA has two learning rates."""
    made = []
    for task in ("cola", "mrpc"):
        metric = config(task).task.headline
        for method in METHODS:
            for seed in range(2):
                epochs = [
                    {"epoch": float(epoch), "step": epoch, "validation": {metric: epoch / (5 + seed), "loss": 1.0}}
                    for epoch in range(1, 4)
                ]
                made.append(record(config(task, method, seed=seed), history=epochs))
    made += [record(config("cola", LoraConfig(), lr=1e-2, seed=seed), best=1.0, command=COMMAND) for seed in range(2)]
    made[0] |= {"status": "failed", "metrics": {}, "error": {"type": "E", "message": "x", "traceback": ""}}
    del made[7]
    return made


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    located = {Path("records", str(number), "record.json"): run for number, run in enumerate(sweep())}
    path.write_text(html(contents(located)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver here; Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Root may not use the sandbox; a container's shared memory is small; nothing but the disk may answer.
    for switch in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1200,900"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, service.Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: Any, report: Path) -> Iterator[Any]:
    """The page, loaded again; afterwards checks that there was no network request and no logged error."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    chromium.get(report.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url.partition("#")[0] for url in asked} == {report.as_uri()}


def css(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements(by.By.CSS_SELECTOR, selector)


def column(browser: Any, number: int) -> list[str]:
    """The texts of the visible cells of the results table's column, from 0."""
    rows = [row for row in css(browser, "table.numbers tbody tr") if row.is_displayed()]
    return [row.find_elements(by.By.CSS_SELECTOR, "th, td")[number].text for row in rows]


def press(browser: Any, key: str, into: Any = None) -> None:
    (into or browser.switch_to.active_element).send_keys(key)


def heading(browser: Any, name: str) -> Any:
    (found,) = [button for button in css(browser, "table.numbers button.sort") if button.text.startswith(name)]
    return found


def cell(browser: Any, row: str, place: int) -> Any:
    (found,) = [r for r in css(browser, "table.numbers tbody tr") if r.text.startswith(row)]
    return found.find_elements(by.By.CSS_SELECTOR, "td")[place].find_element(by.By.CSS_SELECTOR, "button")


def test_the_page_shows_what_the_file_says(browser: Any, report: Path) -> None:
    table = read(report.read_text(encoding="utf-8")).all("table")[0]
    shown = [[cell.text for cell in row.find_elements(by.By.CSS_SELECTOR, "th, td")]
             for row in css(browser, "table.numbers tr")]  # fmt: skip
    assert [[text.rstrip(" ↕") for text in row] for row in shown] == grid(table)
    assert css(browser, "form.filters")[0].is_displayed()
    drawing = css(browser, "figure .panels svg")[0]
    assert drawing.size["width"] > 250
    assert drawing.size["height"] > 100
    wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0


def test_a_table_of_five_tasks_fits_into_800_pixels_and_a_wider_one_has_a_shadow(
    browser: Any, chromium: Any, report: Path
) -> None:
    tasks = ("cola", "mrpc", "sst2", "rte", "qqp")
    made = [record(config(task, method, seed=seed)) for task in tasks for method in METHODS for seed in range(2)]
    located = {Path("records", str(number), "record.json"): run for number, run in enumerate(made)}
    own = report.with_name("five.html")
    own.write_text(html(contents(located)), encoding="utf-8")
    try:
        chromium.get(own.as_uri())
        for width, fits in ((800, True), (500, False)):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            place = css(browser, ".scroll")[0]
            assert (place.get_property("scrollWidth") <= place.get_property("clientWidth")) == fits
            assert "gradient" in place.value_of_css_property("background-image")
            assert all("\n" not in cell.text for cell in css(browser, "table.numbers td .cell")[: len(tasks)])
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.get_log("performance")
        chromium.get(report.as_uri())


def test_columns_sort_by_mouse_and_by_keyboard(browser: Any) -> None:
    before = column(browser, 1)
    numbers = sorted((float(text.split()[0]) for text in before if text[0].isdigit()), reverse=True)
    button = heading(browser, "MRPC")
    above = button.find_element(by.By.XPATH, "..")
    button.click()
    assert above.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in column(browser, 1)] == numbers
    press(browser, keys.Keys.ENTER, button)
    assert above.get_attribute("aria-sort") == "ascending"
    assert [float(text.split()[0]) for text in column(browser, 1)] == numbers[::-1]
    press(browser, keys.Keys.SPACE, button)
    assert above.get_attribute("aria-sort") == "none"
    assert column(browser, 1) == before
    heading(browser, "Method").click()
    assert column(browser, 0) == sorted(column(browser, 0))
    marked = css(browser, "table.numbers th[aria-sort='ascending'], table.numbers th[aria-sort='descending']")
    assert [element.text.rstrip(" ↑") for element in marked] == ["Method"]


def test_cells_without_a_number_come_last(browser: Any, chromium: Any) -> None:
    table = css(browser, "details table")[0]
    chromium.execute_script("arguments[0].closest('details').open = true", table)
    for _ in range(2):
        table.find_elements(by.By.CSS_SELECTOR, "button.sort")[2].click()
        rates = [
            row.find_elements(by.By.CSS_SELECTOR, "td")[1].text for row in table.find_elements(by.By.XPATH, "tbody/tr")
        ]
        assert rates == sorted(rates, key=lambda text: text == "")


def test_filters_hide_rows_and_columns(browser: Any) -> None:
    status = css(browser, "form.filters [role=status]")[0]
    everything = status.text
    (lora,) = css(browser, "input[value=lora]")
    lora.click()
    assert not any("LoRA" in text for text in column(browser, 0))
    assert len(column(browser, 0)) == 3
    (cola,) = css(browser, "input[value=cola]")
    press(browser, keys.Keys.SPACE, cola)
    names = [button.text.rstrip(" ↕") for button in css(browser, "table.numbers button.sort") if button.is_displayed()]
    assert names == ["Method", "MRPC", "Average of 1", "Trainable"]
    shown = [row for row in css(browser, "table.numbers tbody tr") if row.is_displayed()]
    for row in shown:
        mrpc, average = (row.find_elements(by.By.CSS_SELECTOR, "td")[place].text for place in (0, 2))
        assert average == mrpc.split(" ")[0]
    assert status.text != everything
    (mrpc,) = css(browser, "input[value=mrpc]")
    mrpc.click()
    assert column(browser, 0) == []
    assert css(browser, "p.empty")[0].is_displayed()
    css(browser, "form.filters button")[0].click()
    waiting.WebDriverWait(browser, 5).until(lambda _: status.text == everything)
    assert len(column(browser, 0)) == 4
    assert heading(browser, "Average").text.rstrip(" ↕") == "Average"


def test_a_cell_opens_its_runs(browser: Any) -> None:
    opener = cell(browser, "LoRA", 1)
    opener.click()
    (dialog,) = css(browser, "dialog")
    assert dialog.is_displayed()
    assert css(browser, "#runs-title")[0].text == "LoRA r=8, CoLA"
    rows = [row.text.split() for row in css(browser, "dialog table")[0].find_elements(by.By.CSS_SELECTOR, "tbody tr")]
    assert [row[:4] for row in rows] == [
        ["1e-3", "0", "done", rows[0][3]],
        ["1e-3", "1", "done", rows[1][3]],
        ["1e-2", "(shown)", "0", "done"],
        ["1e-2", "(shown)", "1", "done"],
    ]
    lines = css(browser, "dialog .curve polyline")
    assert [len(line.get_attribute("points").split()) for line in lines] == [3, 3, 0, 0]
    assert [element.text for element in css(browser, "dialog pre")][2:] == [COMMAND, COMMAND], "as text, not as markup"
    assert css(browser, "dialog b") == []
    links = [link.get_attribute("href") for link in css(browser, "dialog a")]
    assert all(link.endswith("/record.json") and link.startswith("file:") for link in links)
    press(browser, keys.Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert browser.switch_to.active_element == opener, "the reader is back where they were"


def test_a_failed_run_shows_its_error(browser: Any) -> None:
    cell(browser, "Full", 1).click()
    assert "E: x" in [element.text for element in css(browser, "dialog .loud")]
    css(browser, "dialog form button")[0].click()
    assert not css(browser, "dialog")[0].is_displayed()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Any) -> None:
    focusable = "a[href], button, input, summary, [tabindex='0']"
    wanted = [element for element in css(browser, f":is({focusable}):not(dialog *)") if element.is_displayed()]
    skip, reached = css(browser, "a.skip")[0], []
    browser.execute_script("document.body.focus()")
    for _ in range(len(wanted) + 2):
        press(browser, keys.Keys.TAB)
        here = browser.switch_to.active_element
        if here.tag_name == "body":
            break
        reached.append(here)
        assert browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", here) == "solid"
    assert reached[0] == skip
    assert {element.id for element in wanted} <= {element.id for element in reached}
    # The link lies outside the window until it has the focus, so that the driver would refuse to type into it.
    browser.execute_script("arguments[0].focus()", skip)
    webdriver.ActionChains(browser).send_keys(keys.Keys.ENTER).perform()
    assert browser.switch_to.active_element == css(browser, "main")[0]


def test_paper_has_everything_open_and_no_controls(browser: Any, tmp_path: Path) -> None:
    before = len(css(browser, "details[open]"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not any(element.is_displayed() for element in css(browser, "nav, form.filters, dialog"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    count = "window.closed = document.querySelectorAll('details:not([open])').length"
    browser.execute_script(f"addEventListener('beforeprint', () => {{ {count}; }})")
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert browser.execute_script("return window.closed") == 0
    assert len(css(browser, "details[open]")) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_have_their_own_ground(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ground = browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, ground[4:-1].split(","))) < 64) == (scheme == "dark")


def test_a_narrow_window_scrolls_tables_and_not_the_page(browser: Any) -> None:
    narrow = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        ends = "return [...document.querySelectorAll('caption span')].map((e) => e.getBoundingClientRect().right)"
        assert max(browser.execute_script(ends)) <= 360, "captions are whole"
        assert max(panel.size["width"] for panel in css(browser, ".panels svg")) <= 360
        cell(browser, "LoRA", 1).click()
        assert browser.execute_script("return document.querySelector('dialog').scrollWidth") <= 360
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, had from npm for this test alone."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, so there is no axe-core")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", AXE, "--silent", "--cache", str(folder / "cache"), "--fetch-retries", "0"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not answer within a minute: no {AXE}")
    if done.returncode:
        pytest.skip(f"npm cannot give {AXE}: {done.stderr.strip().splitlines()[-1:]}")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        source = packed.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(browser: Any, axe: str, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.execute_script(axe)
    assert axe_faults(browser) == {}
    cell(browser, "LoRA", 1).click()
    assert axe_faults(browser) == {}
    css(browser, "dialog form button")[0].click()
    browser.execute_script("document.querySelector('h1').remove()")
    assert list(axe_faults(browser)) == ["page-has-heading-one"], "a fault is found where there is one"


def axe_faults(browser: Any) -> dict[str, list[str]]:
    """Every rule of axe-core that is broken, and where."""
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return {fault["id"]: [node["html"][:120] for node in fault["nodes"][:3]] for fault in found["violations"]}
