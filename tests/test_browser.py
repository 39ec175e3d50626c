"""Pages in headless Chromium, as a reader meets them; skipped where Debian's chromium and chromium-driver are not."""

import json
import shutil
import time

import pytest

from fairseq_attn_plugin.evaluation.attention_page import Panel, attention_section
from fairseq_attn_plugin.evaluation.html_page import Figure, Section, table, write_page

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

PROGRAMS = [shutil.which("chromium"), shutil.which("chromedriver")]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(None in PROGRAMS, reason="not here: apt-get install chromium chromium-driver"),
]
LABEL = "<unk> & <b>x</b>"
ROWS = [["b", "9.5", "lstm"], ["a", "1,000", "gru"], ["c", "–", "gru"], ["d", "20 ± 1", "lstm"]]
CURVE = {"type": "scatter", "mode": "lines+markers", "name": "a curve", "x": [1, 2, 3], "y": [10, 90.5, 100]}
OTHER = {**CURVE, "name": "another", "y": [5, 6, 7]}
PIECES = ["▁ein", "▁Hun", "d", "</s>"]


def panel(title, source, target):
    """From the end of the source on, one position has 0.7 of the weight; 0.3 is shared by all."""
    size = len(source)
    rows = [size - 1 - t % size for t in range(len(target))]
    return Panel(title, source, target, [[0.3 / size + 0.7 * (s == row) for s in range(size)] for row in rows])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    letters = [chr(ord("a") + n % 26) for n in range(60)]
    sentences = [
        [panel(name, PIECES, ["▁a", "▁dog", "</s>"]) for name in ("general", LABEL)],
        [panel("general", ["x", LABEL], [LABEL]), panel(LABEL, ["x", LABEL], ["y", LABEL])],
        [panel("long", letters, letters)],
    ]
    body = table(["", "seconds", *(f"a column with a long name {n}" for n in range(12)), "cell"],
                 [[*row[:2], *["1"] * 12, row[2]] for row in ROWS])  # fmt: skip
    figure = Figure("curves", {"data": [CURVE, OTHER], "layout": {"xaxis": {"title": {"text": "epoch"}}}}, "It rises.")
    path = tmp_path_factory.mktemp("page") / "page.html"
    commands = f"<pre>{'fairseq-train --and-so-on ' * 20}</pre>"
    write_page(path, "A page", [Section("Summary", body, [figure]), attention_section("Maps", sentences),
                                Section("Settings", commands)], about="About\nit")  # fmt: skip
    return path


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(PROGRAMS[1]))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium, path):
    """page(width=..., theme=...) opens the page; afterwards nothing is in the console, nothing came from elsewhere."""

    def open_page(width=1200, theme="light"):
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get(path.as_uri())
        chromium.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        return chromium

    yield open_page
    assert chromium.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert asked and {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


def all_of(driver, selector):
    return driver.find_elements(By.CSS_SELECTOR, selector)


def one(driver, selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def until(condition, seconds=5):
    """The first true value of the condition."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)
    return value


def show(driver, selector):
    """Scrolls there; the maps of the first sentence are drawn."""
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", one(driver, selector))
    return until(lambda: all_of(driver, f"{selector} svg.main-svg"))


def names(driver):
    return [cell.text for cell in all_of(driver, "table.sortable tbody th")]


def hover(driver, element, x=0, y=0):
    ActionChains(driver, duration=0).move_to_element(element).move_by_offset(x, y).perform()
    return until(lambda: " ".join(each.text for each in all_of(driver, ".hoverlayer text")))


def test_figures_are_drawn_and_say_what_is_under_the_pointer(page):
    driver = page()
    show(driver, "#curves")
    assert len(all_of(driver, "#curves .scatterlayer .trace")) == 2
    assert [each.text for each in all_of(driver, "#curves .legendtext")] == ["a curve", "another"]
    point = all_of(driver, "#curves .scatterlayer .trace:first-child path.point")[1]
    assert "90.5" in hover(driver, point)
    one(driver, "figure details summary").click()
    until(lambda: all_of(driver, "figure details td"))
    assert "It rises." in one(driver, "figure details").text and "90.5" in one(driver, "figure details").text


def test_a_table_sorts_by_click_and_by_key(page):
    driver = page()
    heads = all_of(driver, "table.sortable thead th")
    seconds, cell = heads[1], heads[-1]
    orders = [["b", "d", "a", "c"], ["a", "d", "b", "c"], ["b", "a", "c", "d"]]
    for order, sort in zip(orders, ("ascending", "descending", "none")):
        one(seconds, "button").click()
        assert (names(driver), seconds.get_attribute("aria-sort")) == (order, sort)
    one(cell, "button").send_keys(Keys.ENTER)
    assert names(driver) == ["a", "c", "b", "d"] and cell.get_attribute("aria-sort") == "ascending"
    one(cell, "button").send_keys(Keys.SPACE)
    assert names(driver) == ["b", "d", "a", "c"] and seconds.get_attribute("aria-sort") == "none"


def now(driver):
    """Words that are written at this step, by system."""
    return [each.text for each in all_of(driver, ".words .now")]


def test_maps_side_by_side_are_stepped_through(page):
    driver = page()
    show(driver, ".attention .plot")
    assert [each.text for each in all_of(driver, ".panel figcaption")] == ["general", LABEL]
    left, right = all_of(driver, ".panel")
    assert left.location["y"] == right.location["y"] and left.location["x"] < right.location["x"]
    assert all_of(driver, ".words")[0].text.split() == ["ein", "Hund", "</s>"], "pieces merged"
    one(driver, ".on").click()
    assert now(driver) == ["a", "a"]
    assert one(driver, ".reads").text == "a reads </s> 0.78, Hund 0.15, ein 0.07"
    one(driver, ".panels").send_keys(Keys.ARROW_RIGHT)
    assert now(driver) == ["dog", "dog"]
    assert "general: dog reads Hund" in one(driver, ".said").get_attribute("textContent")
    one(driver, "input[type=range]").send_keys(Keys.ARROW_RIGHT)
    assert now(driver) == ["</s>", "</s>"]
    one(driver, ".back").click()
    assert now(driver) == ["dog", "dog"]
    shades = [each.value_of_css_property("background-color") for each in all_of(left, "[aria-label=source] span")]
    assert [shade.rpartition(", ")[2] for shade in shades] == ["0.075)", "0.85)", "0.075)"], "as much as is read"
    one(driver, ".merge").click()
    assert now(driver) == [] and all_of(driver, ".words")[0].text.split() == PIECES
    ActionChains(driver, duration=0).move_to_element(one(driver, ".attention .plot .nsewdrag")).click().perform()
    assert until(lambda: now(driver)) == ["▁dog", "▁dog"], "a click into a map"


def test_maps_say_source_output_and_weight_whatever_the_words_are(page):
    driver = page()
    show(driver, ".attention .plot")
    one(driver, ".attention option[value='1']").click()
    show(driver, ".attention .plot")
    cell = one(driver, ".attention .plot .nsewdrag")
    assert hover(driver, cell, x=-15) == "source: xoutput: <unk> & <b>x</b>weight: 0.150", "lines"
    assert LABEL in [each.text for each in all_of(driver, ".attention .plot .xtick text")]
    assert not one(driver, ".merge").is_enabled()


def test_a_phone_scrolls_down_alone(page):
    driver = page(width=390)
    show(driver, "#curves")
    show(driver, ".attention .plot")
    one(driver, ".attention option[value='2']").click()
    show(driver, ".attention .plot")
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    for wide in (".table-box", ".map", "pre"):
        assert driver.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", one(driver, wide))


def colours(driver):
    """Brightness from 0 to 1 of the background, of text and of the labels of a figure."""
    styles = {"body": "background-color", "h1": "color", "#curves .xtick text": "fill"}
    found = [one(driver, selector).value_of_css_property(name) for selector, name in styles.items()]
    return [sum(map(int, each[each.index("(") + 1 :].rstrip(")").split(", ")[:3])) / 765 for each in found]


def test_light_and_dark(page):
    driver = page(theme="dark")
    show(driver, "#curves")
    background, text, label = colours(driver)
    assert background < 0.2 and text > 0.8 and label > 0.8
    one(driver, "#theme").click()
    until(lambda: colours(driver)[2] < 0.2)
    background, text, label = colours(driver)
    assert background > 0.9 and text < 0.2
