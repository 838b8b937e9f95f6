"""The page as a whole: header, tabs, what happens when it opens, and its look."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from iekd.language import _
from iekd.launchers.base import Launcher
from iekd.launchers.factory import make_launcher
from iekd.ui.api.methods import public_endpoints
from iekd.ui.render.about import header_html
from iekd.ui.render.demo import demo_html
from iekd.ui.render.runs import Query
from iekd.ui.rights.access import Access
from iekd.ui.shared.space import notices
from iekd.ui.tabs.chip import chip
from iekd.ui.tabs.compare import compare_tab
from iekd.ui.tabs.compare_scripts import ASK_AGAIN
from iekd.ui.tabs.demo import demo_tab
from iekd.ui.tabs.explain import TO_EXPLAIN, asked_for
from iekd.ui.tabs.form import OWN_IMAGES
from iekd.ui.tabs.run import PRIVATE, SPEAKING, Updates
from iekd.ui.tabs.runs import ASKED, KEEP_QUERY, runs_tab
from iekd.ui.tabs.train import TO_TOP, known_run, train_tab

# in render/
STYLES = (
    "style.css", "demo.css", "vendor/uPlot.min.css", "chart.css", "test_set.css", "runs.css",
    "train.css", "class_cards.css", "headline.css", "run_page.css", "explain.css", "comparison.css",
)  # fmt: skip
UPLOADS_AGE = 6 * 3600  # seconds until Gradio removes uploaded files
# keeps the address in step with what is on view, so that a reload, a bookmark and the browser's Back show it again
KEEP_ADDRESS = """(value) => {
  const address = new URL(window.location), its = address.searchParams;
  if (value) its.set('NAME', value); else its.delete('NAME');
  // a run is in the Train tab, and its address says no more; without a run the tab has to be named
  if (its.get('run') && its.get('tab') === 'train') its.delete('tab');
  if ('NAME' === 'run' && value) its.delete('tab');  // whoever opens a run gets the Train tab, a moment later
  if ('NAME' === 'run' && !value && !its.get('tab')) its.set('tab', 'train');
  const seen = document.documentElement.dataset;
  // before the page has opened, tabs say that they are chosen too
  if (!('opened' in seen) || address.href === window.location.href) return;
  // to open a run changes the tab too, which is one step for Back
  const now = performance.now(), same = now - (seen.moved || -300) < 300;
  if (same) history.replaceState(null, '', address); else history.pushState(null, '', address);
  seen.moved = now;
  if ('NAME' === 'run') (TO_TOP)();  // Start stands far below the top of what it opens
}""".replace("TO_TOP", TO_TOP)
OPENED = """() => {
  document.documentElement.dataset.opened = '';
  delete document.documentElement.dataset.elsewhere;
  window.addEventListener('popstate', () => window.location.reload());
  if (/[?&]tab=compare.*[?&]explain=/.test(location.search)) (TO_EXPLAIN)();
}""".replace("TO_EXPLAIN", TO_EXPLAIN)
DEMO, TRAIN, RUNS, COMPARE = "demo", "train", "runs", "compare"


def build_app(where: Launcher | Path | str, access: Access | None = None) -> gr.Blocks:
    """The page over the runs of one folder. The server stores nothing that is not in the folder.

    Args:
        where: a launcher, which starts and stops them; or the folder, for runs on this machine.
        access: who may do what; unset: everybody everything.
    """
    launcher = make_launcher(where) if isinstance(where, (str, Path)) else where
    store, access = launcher.store, access or Access()
    demo = gr.Blocks(title="IE-KD Studio", analytics_enabled=False, delete_cache=(3600, UPLOADS_AGE))
    with demo:
        with gr.Row(elem_id="header"):
            gr.HTML(header_html())
            chip(demo, store)
        for notice in notices():
            gr.HTML(f'<p class="notice">{escape(notice)}</p>')
        shown = gr.Textbox(visible="hidden", elem_id="shown-run")
        landing = demo_html()
        with gr.Tabs(elem_id="tabs", selected=DEMO if landing else TRAIN) as tabs:
            if landing:
                with gr.Tab(_("Demo"), id=DEMO) as demo_page:
                    front = demo_tab(demo, store, landing, access.anybody_starts)
            with gr.Tab(_("Train"), id=TRAIN) as train_page:
                train = train_tab(demo, launcher, shown, access)
            with gr.Tab(_("Runs"), id=RUNS) as runs_page:
                runs = runs_tab(launcher, access)
            with gr.Tab(_("Compare"), id=COMPARE) as compare_page:
                compare = compare_tab(store, access)
        public_endpoints(launcher, access)

        def opened(request: gr.Request) -> Updates:
            run_id, problem = known_run(store, str(request.query_params.get("run", "")))
            tab, may = str(request.query_params.get("tab", "")), access.of(request)
            updates: Updates = {
                shown: run_id, train.key: secrets.token_hex(8), runs.timer: gr.Timer(active=tab == RUNS),
                **train.show(run_id, may, problem),
            }  # fmt: skip
            if tab not in (DEMO, TRAIN, RUNS, COMPARE):
                tab = TRAIN if run_id or problem else ""
            if tab and (tab != DEMO or landing):
                updates[tabs] = gr.Tabs(selected=tab)
            if tab == RUNS:
                ids = str(request.query_params.get("compare", ""))
                query = asdict(Query.read({name: request.query_params.get(name) for name in ASKED}))
                updates |= {
                    **runs.open(query, request),
                    runs.query: query,
                    runs.compared: ids,
                    runs.comparison: runs.compare(ids, request),
                }
            if tab == COMPARE:
                wanted = str(request.query_params.get("explain", ""))
                source, student = asked_for(wanted) if wanted else (run_id, "")
                updates |= compare.open(store, source, request)
                if wanted:
                    updates |= compare.explain.begin(source, student, request)
            return updates

        def on_row(now_shown: str, query: Any, event: gr.EventData, request: gr.Request) -> Updates:
            may = access.of(request)
            run_id, updates = runs.press(query, event, request)
            if run_id:
                at_front = {tabs: gr.Tabs(selected=TRAIN), runs.timer: gr.Timer(active=False)}
                return {**updates, shown: run_id, **at_front, **train.show(run_id, may)}
            if now_shown and not (store.root / now_shown).is_dir():  # the run on view was deleted: back to the form
                return {**updates, shown: "", **train.show("", may)}
            return updates

        def to_form(request: gr.Request) -> Updates:
            return {shown: "", tabs: gr.Tabs(selected=TRAIN), **train.show("", access.of(request))}

        def to_own_pictures(request: gr.Request) -> Updates:
            return {train.dataset: OWN_IMAGES, **to_form(request)}

        def open_runs(query: Any, request: gr.Request) -> Updates:
            return {**runs.open(query, request), runs.timer: gr.Timer(active=True)}

        def open_compare(now: str, chosen: Any, request: gr.Request) -> Updates:
            return compare.open(store, now, request, chosen)

        def compare_run(run_id: str, request: gr.Request) -> Updates:
            return {tabs: gr.Tabs(selected=COMPARE), **compare.open(store, run_id, request)}

        def explain_run(run_id: str, request: gr.Request) -> Updates:
            return {**compare_run(run_id, request), **compare.explain.begin(run_id, "", request)}

        first = [tabs, *runs.outputs, *compare.outputs, shown, train.key, *train.outputs]
        demo.load(opened, None, first, **PRIVATE).then(None, None, None, js=OPENED, api_visibility="private")
        for held, name in ((shown, "run"), (runs.compared, "compare"), (compare.explain.asked, "explain")):
            held.change(None, held, None, js=KEEP_ADDRESS.replace("NAME", name), api_visibility="private")
        pages = [(train_page, TRAIN), (runs_page, RUNS), (compare_page, COMPARE)]
        if landing:
            pages.insert(0, (demo_page, DEMO))
            for to_train in (
                front.train.click(to_form, None, [shown, tabs, *train.outputs], **PRIVATE),
                front.own.click(to_own_pictures, None, [shown, tabs, *train.outputs, train.dataset], **PRIVATE),
            ):
                to_train.then(None, None, None, js=TO_TOP, api_visibility="private")
        for page, name in pages:
            named = f"() => ({KEEP_ADDRESS.replace('NAME', 'tab')})('{name}')"
            page.select(None, None, None, js=named, api_visibility="private").then(
                None, runs.query, None, js=KEEP_QUERY, api_visibility="private"
            )

        runs_page.select(open_runs, runs.query, runs.outputs, **PRIVATE)
        for page, _name in pages:
            if page is not runs_page:
                page.select(lambda: gr.Timer(active=False), None, runs.timer, **PRIVATE)
        runs.table.click(on_row, [shown, runs.query], [shown, tabs, *train.outputs, *runs.outputs], **SPEAKING)
        train.view.explain.click(explain_run, shown, [tabs, *compare.outputs], **PRIVATE).then(
            None, None, None, js=TO_EXPLAIN, api_visibility="private"
        )
        for compared in (
            compare_page.select(open_compare, [compare.source, compare.chosen], compare.outputs, **PRIVATE),
            train.view.compare.click(compare_run, shown, [tabs, *compare.outputs], **PRIVATE),
        ):
            compared.then(None, None, None, js=ASK_AGAIN, api_visibility="private")
    return demo


def style() -> str:
    """The page's style sheet."""
    return "".join((Path(__file__).parent / "render" / name).read_text() for name in STYLES)


def theme() -> gr.themes.Base:
    """System fonts only: nothing is fetched from anywhere."""
    return gr.themes.Default(
        primary_hue="teal", secondary_hue="teal", neutral_hue="slate", radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"],
    ).set(  # every text at a contrast of 4.5 or more
        body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500",
        input_placeholder_color="*neutral_500", block_info_text_color_dark="*neutral_400",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_background_fill_hover_dark="*primary_600",
        checkbox_border_color_dark="*neutral_400", checkbox_background_color_dark="*neutral_900",
        checkbox_background_color_selected="*primary_700", checkbox_background_color_selected_dark="*primary_700",
    )  # fmt: skip
