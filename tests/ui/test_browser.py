"""The whole way in a real browser: start, watch, reload, finish, compare; and a phone's width."""

from __future__ import annotations

import fcntl
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, find_browser
from ui_helpers import PATIENCE, QUICK, draw_pictures, serving, wait_until

from iekd.config.run import RunConfig, make_config
from iekd.estimate.speeds import Speeds
from iekd.launchers.local import LocalLauncher
from iekd.runs.files import write_json
from iekd.runs.probes import Probes
from iekd.runs.store import Store

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = find_browser()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *CAMERA])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    made.set_default_timeout(1000 * PATIENCE)
    yield made
    made.close()


def open_page(page: Any, url: str) -> None:
    page.goto(url if "?" in url else f"{url}/?tab=train")
    page.wait_for_selector("#tabs")


def field(page: Any, name: str) -> Any:
    return page.locator(f"#f-{name} input, #f-{name} textarea").first


def choose(page: Any, name: str, option: str) -> None:
    page.locator(f"#f-{name} input").click()
    page.get_by_role("option", name=option).first.click()


def choose_dataset(page: Any, title: str) -> None:
    page.locator("#f-dataset label", has_text=title).click()


def reveal(page: Any, name: str) -> None:
    """Open the group of the expert settings that has this one."""
    page.locator(f"#f-{name}").wait_for(state="attached")
    group = page.evaluate("id => document.getElementById(id).closest('.expert-group').id", f"f-{name}")
    head = page.locator(f"button[aria-controls={group}]")
    if head.get_attribute("aria-expanded") == "false":
        head.click()


def set_field(page: Any, name: str, value: str) -> None:
    """Type it, and see that the command line has taken it up."""
    field(page, name).fill(value)
    option = name.replace("_", "-")
    page.wait_for_function(
        "([option, value]) => document.querySelector('#command textarea').value.includes(`--${option} ${value}`)",
        arg=[option, value],
    )


def fill_in(page: Any, pictures: Path, epochs: int) -> None:
    """The settings of the fixtures' quick run, through the form."""
    page.wait_for_selector("#forecast dl")
    choose_dataset(page, "Your own images")
    field(page, "folder").fill(str(pictures))
    choose(page, "teacher", "ResNet-8")
    page.wait_for_selector("#thumbnails figure")
    set_field(page, "epochs", str(epochs))
    for name, value in (("resolution", 16), ("batch_size", 16), ("teacher_epochs", 2), ("auto_encoder_epochs", 1)):
        reveal(page, name)
        set_field(page, name, str(value))


# points of the accuracy curve in the chart's data, by method
LENGTHS = """(() => {
  const source = document.querySelector('#chart-data [data-chart]');
  if (!source) return {};
  const found = JSON.parse(source.dataset.chart).figures.find((one) => one.title === 'Test accuracy');
  return Object.fromEntries((found?.series || []).map((line) => [line.style, line.points[0].length]));
})()"""
# notes every length of the curves in passing: the run may be over before a test has looked twice
WATCH_LENGTHS = """() => {
  window.lengths_seen = new Set();
  const look = () => {
    const lengths = LENGTHS, least = Math.min(lengths['baseline'] || 0, lengths['ie-ft'] || 0);
    if (least > 0) window.lengths_seen.add(least);
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
}""".replace("LENGTHS", LENGTHS)


def curve_lengths(page: Any) -> dict[str, int]:
    found: dict[str, int] = page.evaluate(LENGTHS)
    return found


def wait_for_points(page: Any, more_than: int) -> None:
    page.wait_for_function(
        "n => { const l = LENGTHS; return l['baseline'] > n && l['ie-ft'] > n; }".replace("LENGTHS", LENGTHS),
        arg=more_than,
    )


def no_sideways_scroll(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_start_watch_reload_finish_and_compare(page: Any, server: str, finished_run: str, pictures: Path) -> None:
    open_page(page, server)
    fill_in(page, pictures, epochs=60)  # some ten seconds: long enough to be seen moving
    page.evaluate(WATCH_LENGTHS)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")  # Start is in sight wherever one is in the form
    page.locator("#start").dblclick()  # two clicks are one run
    page.wait_for_selector("#run-head .stepper")
    page.wait_for_function("window.scrollY === 0")  # the run's page begins at its top

    page.wait_for_function("window.lengths_seen.size >= 2")  # curves are drawn, and they move
    assert set(curve_lengths(page)) >= {"baseline", "ie-ft"}
    assert "?run=" in page.url

    page.reload()
    wait_for_points(page, 1)
    page.locator("#losses > button").click()
    page.locator("#curves figure").nth(2).wait_for()

    page.wait_for_selector("#result .card.finished")
    card = page.locator("#result").inner_text()
    assert "Plain student" in card
    assert "IE-FT" in card
    assert "over the plain student" in page.locator("#headline").inner_text()
    assert not page.locator("#stop").is_visible()
    with page.expect_download() as taken:
        page.locator("#take-home a.download:has-text('IE-FT')").click()
    assert taken.value.suggested_filename.endswith("-ie-ft-seed0.zip")
    with zipfile.ZipFile(taken.value.path()) as archive:
        assert archive.testzip() is None

    page.locator("#to-compare").click()
    page.locator("#upload input[type=file]").set_input_files(
        [str(pictures / "test" / "disc" / "0.png"), str(pictures / "test" / "cross" / "1.png")]
    )
    page.wait_for_function("document.querySelectorAll('#comparison .answer').length == 2")
    first = page.locator("#comparison .answer").first
    assert first.locator(".said .who").all_inner_texts() == ["Teacher", "Plain student", "IE student (IE-FT)"]
    for said in first.locator(".said").all():
        assert said.locator(".top span").inner_text() in ("cross", "disc", "stripes")
    assert page.locator("#comparison table.results tr").count() == 4

    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("table.runs")
    titles = page.locator("table.runs tbody tr").count()
    started = page.evaluate("new URL(location).searchParams.get('run')")
    assert page.locator(f'table.runs tr[data-run="{started}"]').count() == 1
    assert titles >= 2


def test_back_and_reload_show_what_was_on_view(page: Any, server: str, finished_run: str) -> None:
    open_page(page, f"{server}/?run={finished_run}&tab=compare")  # as a teacher gives it to a class
    page.wait_for_selector("#source")
    assert finished_run in page.locator("#source input").input_value()
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("table.runs")
    assert "tab=runs" in page.url
    page.reload()
    page.wait_for_selector("table.runs")
    page.go_back()
    page.wait_for_selector("#source")
    assert "tab=compare" in page.url
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#result table")
    assert "tab=" not in page.url


def test_back_from_a_run_leads_to_the_list_that_it_was_opened_from(page: Any, server: str, finished_run: str) -> None:
    open_page(page, f"{server}/?tab=runs")
    page.locator(f'table.runs [data-act="open"][data-run="{finished_run}"]').first.click()
    page.wait_for_selector("#result table")
    page.wait_for_function("run => location.search === '?run=' + run", arg=finished_run)
    page.go_back()
    page.wait_for_selector("table.runs")
    assert "tab=runs" in page.url
    assert "run=" not in page.url


def test_a_broken_upload_is_named_and_the_others_are_answered(
    page: Any, server: str, finished_run: str, pictures: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "holiday.png"
    bad.write_bytes(b"not a picture at all")
    open_page(page, f"{server}/?run={finished_run}")
    page.locator("#to-compare").click()
    page.locator("[data-example]").first.click()
    page.wait_for_selector("#comparison .answer .said")
    page.locator("#upload input[type=file]").set_input_files([str(bad), str(pictures / "test" / "disc" / "0.png")])
    page.wait_for_selector("#comparison .answer.broken")
    assert "'holiday.png' is not an image" in page.locator(".answer.broken").inner_text()
    assert page.locator("#comparison .answer .seen").count() == 2


def test_an_older_answer_that_comes_late_does_not_replace_the_newest(
    page: Any, server: str, finished_run: str, pictures: Path
) -> None:
    open_page(page, f"{server}/?run={finished_run}")
    page.locator("#to-compare").click()
    page.locator("[data-example]").nth(1).click()  # the first answer is slow
    page.wait_for_selector("#comparison .answer")
    on_the_way: list[Any] = []
    page.route("**/queue/join*", lambda route: route.continue_() if on_the_way else on_the_way.append(route))
    page.locator("[data-example]").nth(0).click()
    while not on_the_way:
        page.wait_for_timeout(50)
    page.locator("#upload input[type=file]").set_input_files(str(pictures / "test" / "cross" / "1.png"))
    page.wait_for_timeout(3000)  # long enough for a call that overtakes the first
    on_the_way[0].continue_()
    page.wait_for_timeout(3000)  # for the older answer to come
    page.wait_for_function("document.querySelectorAll('#comparison .answer').length == 3")


def test_what_is_pressed_is_what_is_compared(page: Any, server: str, finished_run: str, pictures: Path) -> None:
    pressed = page.locator("#examples [aria-pressed=true]")
    open_page(page, f"{server}/?run={finished_run}")
    page.locator("#to-compare").click()
    page.wait_for_selector("[data-example]")
    named = [page.locator("[data-example]").nth(i).get_attribute("title") for i in (3, 0, 1)]
    # no hand is as fast
    page.evaluate("[3, 0, 1].forEach(i => document.querySelectorAll('[data-example]')[i].click())")
    page.wait_for_function("document.querySelectorAll('#comparison .answer').length == 3")
    assert page.locator("#comparison .seen b").all_inner_texts() == [f"example: {name}" for name in named]
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("table.runs")
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#comparison .answer")
    assert pressed.count() == 3
    page.locator("[data-example]").nth(0).click()
    page.wait_for_function("document.querySelectorAll('#comparison .answer').length == 2")
    assert page.evaluate("document.activeElement.dataset.example") == "0"  # the keyboard goes on from there

    page.get_by_role("tab", name="Train").click()
    page.locator("#to-compare").click()  # the same networks, afresh
    page.wait_for_selector("#comparison .placeholder")
    assert pressed.count() == 0
    page.locator("[data-example]").nth(2).click()
    page.wait_for_function("document.querySelectorAll('#comparison .answer').length == 1")

    page.locator("#upload input[type=file]").set_input_files(str(pictures / "test" / "cross" / "1.png"))
    page.wait_for_function("document.querySelectorAll('#comparison .answer').length == 2")
    page.get_by_role("tab", name="Train").click()
    page.locator("#to-compare").click()  # what was uploaded is still there, and is answered
    page.wait_for_function("document.querySelectorAll('#comparison .answer').length == 1")


def test_a_pasted_picture_and_one_from_the_camera_are_answered(browser: Any, server: str, finished_run: str) -> None:
    page = browser.new_page(permissions=["camera", "clipboard-read", "clipboard-write"])
    page.set_default_timeout(1000 * PATIENCE)
    open_page(page, f"{server}/?run={finished_run}")
    page.locator("#to-compare").click()
    page.wait_for_selector("[data-example]")
    page.evaluate(
        """async () => {
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 64;
            canvas.getContext('2d').fillRect(20, 20, 30, 30);
            const blob = await new Promise(done => canvas.toBlob(done));
            await navigator.clipboard.write([new ClipboardItem({'image/png': blob})]);
        }"""
    )
    camera = page.locator("#camera")
    camera.get_by_text("Paste from Clipboard").click()
    page.wait_for_selector("#comparison .answer .said")
    pasted = page.locator("#comparison .answer .seen img").first.get_attribute("src")

    camera.get_by_label("Capture from camera").click()
    camera.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#camera video')?.currentTime > 0")
    camera.get_by_label("capture photo").first.click()
    page.wait_for_function(
        "pasted => { const seen = document.querySelector('#comparison .answer .seen img');"
        " return seen && seen.src !== pasted; }",
        arg=pasted,
    )
    assert page.locator("#comparison .answer .said").count() == 3
    page.close()


def test_a_wrong_setting_is_said_at_the_form_and_starts_nothing(page: Any, server: str, finished_run: str) -> None:
    open_page(page, server)
    page.wait_for_selector("#forecast dl")
    field(page, "seeds").fill("1, 1")
    page.wait_for_selector("#error .problem")
    page.locator("#start").click()
    assert "named twice" in page.locator("#error").inner_text()
    assert page.locator("#start").is_visible()
    assert "run=" not in page.url
    assert "Not ready yet" in page.locator("#welcome").inner_text()
    field(page, "seeds").fill("1, 2")
    page.wait_for_selector("#forecast dl")
    assert "Ready to go: press Start" in page.locator("#welcome").inner_text()


def test_what_is_wrong_is_in_view_wherever_it_was_set(page: Any, server: str) -> None:
    open_page(page, server)
    page.wait_for_selector("#forecast dl")
    reveal(page, "lr")
    page.locator("#how").scroll_into_view_if_needed()
    field(page, "lr").fill("1000")
    page.wait_for_selector("#error .problem:has-text('1000')")
    page.wait_for_function(
        """() => { const place = document.querySelector('#error .problem').getBoundingClientRect();
        return place.top > 0 && place.bottom < innerHeight; }"""
    )
    assert page.evaluate("document.querySelector('#start').getBoundingClientRect().bottom <= innerHeight")
    field(page, "lr").fill("0.1")
    page.wait_for_selector("#forecast dl", state="attached")
    assert page.locator("#error .problem").count() == 0


def test_what_is_wrong_stands_at_start_after_a_run_was_on_view(page: Any, server: str, finished_run: str) -> None:
    open_page(page, f"{server}/?run={finished_run}")
    page.locator("#again").click()
    page.wait_for_selector("#start")
    field(page, "seeds").fill("one")
    page.wait_for_selector("#error p.problem")
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_function("() => getComputedStyle(document.querySelector('#error p.problem')).position === 'static'")


def test_own_pictures_are_asked_for_without_alarm(page: Any, server: str) -> None:
    """Nothing is wrong yet; whoever presses Start all the same is told."""
    open_page(page, server)
    page.wait_for_selector("#forecast dl")
    choose_dataset(page, "Your own images")
    page.wait_for_selector("#forecast .note:has-text('Fill the cards with images')")
    assert page.locator("#error .problem").count() == 0
    assert "Not ready yet" in page.locator("#welcome").inner_text()
    page.locator("#start").click()
    page.wait_for_selector("#error .problem:has-text('Fill the cards with images')")


def test_a_folder_that_cannot_be_used_starts_nothing_and_leaves_no_stale_command(
    page: Any, server: str, pictures: Path
) -> None:
    open_page(page, server)
    page.wait_for_selector("#forecast dl")
    choose_dataset(page, "Your own images")
    field(page, "folder").fill(str(pictures / "train" / "disc"))
    page.wait_for_function("document.querySelector('#error').innerText.includes('disc')")
    assert page.locator("#command textarea").input_value() == ""
    page.locator("#start").click()
    page.wait_for_timeout(1000)
    assert page.locator("#start").is_visible()
    assert "run=" not in page.url


def test_starting_again_after_a_folder_that_failed_says_what_is_wrong(
    page: Any, server: str, runs_dir: Path, pictures: Path
) -> None:
    launcher = LocalLauncher(Store(runs_dir))
    run_id = launcher.submit(make_config(dataset=f"folder:{pictures / 'train' / 'disc'}"))
    assert wait_until(lambda: not launcher.status(run_id).live and launcher.status(run_id)).state == "failed"
    open_page(page, f"{server}/?run={run_id}")
    page.locator("#again").click()
    page.wait_for_selector("#error .problem:has-text('disc')")
    assert page.locator("#command textarea").input_value() == ""


def test_pictures_of_ones_own_are_uploaded_as_a_zip(
    page: Any, server: str, finished_run: str, pictures: Path, tmp_path: Path
) -> None:
    open_page(page, server)
    page.wait_for_selector("#forecast dl")
    choose_dataset(page, "Your own images")
    page.wait_for_selector("#f-archive")
    good = Path(shutil.make_archive(str(tmp_path / "shapes"), "zip", pictures))
    bad = tmp_path / "bad.zip"
    bad.write_bytes(good.read_bytes()[:-2000])
    page.set_input_files("#f-archive input[type=file]", str(bad))
    page.wait_for_selector("#own-pictures .problem:has-text('bad.zip')")
    page.set_input_files("#f-archive input[type=file]", str(good))
    page.wait_for_selector("#own-pictures .note:has-text('shapes.zip: 99 images of 3 classes')")
    page.wait_for_selector("#thumbnails :text('stripes')")
    page.wait_for_selector("#forecast:has-text(\"images 'shapes'\"):has-text('3 classes')")
    assert "/.pictures/shapes-" in page.input_value("#command textarea")
    page.set_input_files("#f-archive input[type=file]", str(bad))  # refused: what was chosen before is so no more
    page.wait_for_selector("#uploaded .problem:has-text('bad.zip')")
    page.wait_for_selector("#welcome:has-text('Not ready')")
    assert field(page, "folder").input_value() == page.input_value("#command textarea") == ""
    assert page.locator("#which-classes").count() == 0
    for split in ("train", "test"):  # the same three classes twice, below two folders
        shutil.copytree(pictures / split, tmp_path / "two" / split.replace("t", "p"))
    page.set_input_files(
        "#f-archive input[type=file]", shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path / "two")
    )
    page.wait_for_selector("#uploaded .problem:has-text('several datasets')")
    page.locator("#which-classes label", has_text="the folders inside").click()
    page.wait_for_selector("#uploaded .note:has-text('two.zip: 99 images of 3 classes')")
    page.wait_for_selector("#which-classes", state="detached")
    choose_dataset(page, "Fashion-MNIST, 10,000 images")
    page.wait_for_selector("#welcome:has-text('Ready to go')")
    assert page.locator("#uploaded .problem").count() == 0


def test_names_that_are_code_are_shown_as_text(page: Any, server: str, runs_dir: Path, tmp_path: Path) -> None:
    """Of classes, files and runs, wherever they are shown."""
    code = "<img src=x onerror=window.hacked=1>"
    folder = draw_pictures(tmp_path / f"{code} & set", train=6, test=3)
    for split in ("train", "test"):
        (folder / split / "disc").rename(folder / split / code)
    picture = tmp_path / f"{code}.png"
    shutil.copy(folder / "test" / code / "0.png", picture)
    launcher = LocalLauncher(Store(runs_dir))
    small = {**QUICK, "teacher": "none", "methods": ["baseline"], "epochs": 1}
    run_id = launcher.submit(make_config(**small, dataset=f"folder:{folder}", name=code))
    wait_until(lambda: launcher.status(run_id).state == "finished")

    open_page(page, f"{server}/?run={run_id}")
    page.wait_for_selector("#result .card.finished")
    page.wait_for_selector(f"#run-head >> text={code}")
    page.locator("#to-compare").click()
    page.wait_for_selector(f"#examples >> text={code}")
    page.locator("[data-example]").first.click()
    page.locator("#upload input[type=file]").set_input_files(str(picture))
    page.wait_for_selector(f"#comparison .shares th >> text={code}", state="attached")
    page.wait_for_selector("#comparison .seen b:has-text('onerror'):has-text('.png')")  # Gradio leaves out the brackets
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector(f"table.runs >> text={code}")
    page.get_by_role("tab", name="Train").click()
    page.locator("#again").click()
    page.wait_for_selector(f"#thumbnails >> text={code}")
    page.wait_for_selector(f"#forecast >> text={code}")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_an_unknown_run_in_the_address_is_said_and_the_form_is_there(page: Any, server: str) -> None:
    open_page(page, f"{server}/?run=20200101-nothing")
    page.wait_for_selector("#error .problem")
    assert "There is no run '20200101-nothing'" in page.locator("#error").inner_text()
    assert page.locator("#start").is_visible()


def test_a_phone_needs_no_sideways_scrolling_and_nothing_is_fetched_from_elsewhere(
    browser: Any, server: str, finished_run: str, pictures: Path
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(1000 * PATIENCE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_page(page, server)
    page.wait_for_selector("#forecast dl")
    assert no_sideways_scroll(page)
    open_page(page, f"{server}/?run={finished_run}")
    page.wait_for_selector("#chart canvas")
    assert no_sideways_scroll(page)
    assert page.get_by_role("button", name="Use via API").is_visible()
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("table.runs")
    assert no_sideways_scroll(page)
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("[data-example]")
    assert no_sideways_scroll(page)
    page.locator("#upload input[type=file]").set_input_files(str(pictures / "test" / "disc" / "0.png"))
    page.wait_for_function(
        """() => { const place = document.querySelector('#comparison .answer')?.getBoundingClientRect();
        return place && place.top >= 0 && place.top < innerHeight / 2; }"""
    )
    page.close()
    assert [url for url in asked if not url.startswith((server, "data:", "blob:"))] == []


def test_a_click_on_export_or_publish_is_answered_before_the_server_is(
    page: Any, server: str, finished_run: str
) -> None:
    open_page(page, f"{server}/?run={finished_run}")
    page.route("**/queue/join*", lambda route: None)  # no answer comes
    page.locator("#export > button").click()
    for name, words in (("Web page", "side by side"), ("ONNX", "onnxruntime")):
        page.locator("#export-format input").click()
        page.get_by_role("option", name=name, exact=True).click()
        page.locator("#export-about", has_text=words).wait_for()
    page.locator("#export-now").click()
    page.locator("#exported .waiting", has_text="Exporting").wait_for()
    page.locator("#publish > button").click()
    assert page.locator("#publish-model input").input_value() == "IE-FT"
    page.locator("#publish-now").click()
    page.locator("#published .waiting", has_text="Publishing").wait_for()
    page.get_by_label("The whole run").click()
    page.locator("#publish-model").wait_for(state="hidden")


def test_a_page_that_is_only_watched_asks_for_few_frames(page: Any, server: str, finished_run: str) -> None:
    page.add_init_script(
        """window.frames_drawn = window.naps = 0;
        const later = window.setTimeout;  // the page's own script sleeps between frames with setTimeout(ask, 1000)
        window.setTimeout = (what, ...rest) => { if (what.name === 'ask') window.naps++; return later(what, ...rest); };
        const native = window.requestAnimationFrame.bind(window);
        window.requestAnimationFrame = (draw) => native((time) => { window.frames_drawn++; draw(time); });"""
    )
    open_page(page, f"{server}/?run={finished_run}")
    page.wait_for_selector("#chart canvas")
    page.wait_for_timeout(7000)  # frames are given freely at first
    assert page.evaluate("performance.now() > 6000")
    before = page.evaluate("window.frames_drawn")
    page.wait_for_timeout(3000)
    assert page.evaluate("window.frames_drawn") - before < 20  # 180 or more at the browser's own pace

    assert page.evaluate("window.naps") > 0

    page.evaluate("window.naps = 0")
    page.evaluate(  # someone is there: as many as they like
        """() => new Promise(done => { let left = 20;
        const next = () => {
          window.dispatchEvent(new Event('pointermove'));
          if (--left) requestAnimationFrame(next); else done();
        };
        next(); })"""
    )
    assert page.evaluate("window.naps") <= 1  # the nap that the first movement ended


def test_the_estimate_is_measured_while_nothing_runs(page: Any, tmp_path: Path) -> None:
    """First a guess, which says that something better is coming; then, without a click, what was measured.

    The measuring process is played by the test: a real one (tests/runs/test_probes.py) gives up on a busy machine.
    """
    probes, default = Probes(Store(tmp_path)), RunConfig()
    probes.folder.mkdir()
    with open(probes.folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with serving(tmp_path, probe=True, IEKD_LOCK_DIR=str(tmp_path / "locks")) as url:
            open_page(page, url)
            page.wait_for_selector("#forecast :text('trying these networks now')")
            assert "measured on this machine" not in page.locator("#forecast").inner_text()
            write_json(probes._result(default), Speeds("cpu", "fp32", 1e-3, 2e-3, 5e-4, 6e-3).to_json())
            fcntl.flock(lock, fcntl.LOCK_UN)
            page.wait_for_selector("#forecast :text('measured on this machine')")
            assert "about" in page.locator("#forecast dd").last.inner_text()
            assert "trying" not in page.locator("#forecast").inner_text()
