"""The page as a whole: header, tabs, what happens when it opens, and its look."""

from __future__ import annotations

import secrets
from html import escape
from pathlib import Path

import gradio as gr

from iekd.launchers.base import Launcher
from iekd.launchers.factory import make_launcher
from iekd.ui.render.about import HEADER
from iekd.ui.server.access import Access
from iekd.ui.server.api import public_endpoints
from iekd.ui.server.space import notices
from iekd.ui.tabs.compare import ASK_AFRESH, compare_tab
from iekd.ui.tabs.run import PRIVATE, SPEAKING, Updates
from iekd.ui.tabs.runs import act, runs_tab, table_html
from iekd.ui.tabs.train import known_run, train_tab

CSS = Path(__file__).parent / "render" / "style.css"
UPLOADS_AGE = 6 * 3600  # seconds until Gradio removes uploaded files
# keeps the address in step with what is on view, so that a reload, a bookmark and the browser's Back show it again
KEEP_ADDRESS = """(value) => {
  const address = new URL(window.location);
  if (value) address.searchParams.set('NAME', value); else address.searchParams.delete('NAME');
  const seen = document.documentElement.dataset;
  // before the page has opened, tabs say that they are chosen too
  if (!('opened' in seen) || address.href === window.location.href) return;
  // to open a run changes the tab too, which is one step for Back
  const now = performance.now(), same = now - (seen.moved || -300) < 300;
  if (same) history.replaceState(null, '', address); else history.pushState(null, '', address);
  seen.moved = now;
}"""
OPENED = """() => {
  document.documentElement.dataset.opened = '';
  window.addEventListener('popstate', () => window.location.reload());
}"""
TRAIN, RUNS, COMPARE = "train", "runs", "compare"


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
        gr.HTML(HEADER)
        for notice in notices():
            gr.HTML(f'<p class="notice">{escape(notice)}</p>')
        shown = gr.Textbox(visible="hidden", elem_id="shown-run")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Train", id=TRAIN) as train_page:
                train = train_tab(demo, launcher, shown, access)
            with gr.Tab("Runs", id=RUNS) as runs_page:
                runs = runs_tab(launcher, access)
            with gr.Tab("Compare", id=COMPARE) as compare_page:
                compare = compare_tab(store)
        public_endpoints(launcher, access)

        def opened(request: gr.Request) -> Updates:
            run_id, problem = known_run(store, str(request.query_params.get("run", "")))
            tab, may = str(request.query_params.get("tab", "")), access.of(request)
            updates: Updates = {
                shown: run_id, train.key: secrets.token_hex(8), runs.timer: gr.Timer(active=tab == RUNS),
                **train.show(run_id, may, problem),
            }  # fmt: skip
            if tab in (RUNS, COMPARE):
                updates[tabs] = gr.Tabs(selected=tab)
            if tab == RUNS:
                updates[runs.table] = table_html(store, may)
            if tab == COMPARE:
                updates |= compare.open(store, run_id)
            return updates

        def on_row(now_shown: str, event: gr.EventData, request: gr.Request) -> Updates:
            may = access.of(request)
            run_id, table = act(launcher, access, request, event)
            if run_id:
                front = {tabs: gr.Tabs(selected=TRAIN), runs.timer: gr.Timer(active=False)}
                return {runs.table: table, shown: run_id, **front, **train.show(run_id, may)}
            if now_shown and not (store.root / now_shown).is_dir():  # the run on view was deleted: back to the form
                return {runs.table: table, shown: "", **train.show("", may)}
            return {runs.table: table}

        def open_runs(request: gr.Request) -> Updates:
            return {runs.table: runs.refresh(request), runs.timer: gr.Timer(active=True)}

        def compare_run(run_id: str) -> Updates:
            return {tabs: gr.Tabs(selected=COMPARE), **compare.open(store, run_id)}

        first = [tabs, runs.table, runs.timer, *compare.outputs, shown, train.key, *train.outputs]
        demo.load(opened, None, first, **PRIVATE).then(None, None, None, js=OPENED, api_visibility="private")
        shown.change(None, shown, None, js=KEEP_ADDRESS.replace("NAME", "run"), api_visibility="private")
        for page, name in ((train_page, ""), (runs_page, RUNS), (compare_page, COMPARE)):
            named = f"() => ({KEEP_ADDRESS.replace('NAME', 'tab')})('{name}')"
            page.select(None, None, None, js=named, api_visibility="private")

        runs_page.select(open_runs, None, [runs.table, runs.timer], **PRIVATE)
        for page in (train_page, compare_page):
            page.select(lambda: gr.Timer(active=False), None, runs.timer, **PRIVATE)
        runs.table.click(on_row, shown, [shown, tabs, runs.timer, *train.outputs, runs.table], **SPEAKING)
        for compared in (
            compare_page.select(
                lambda *now: compare.open(store, *now), [compare.source, compare.chosen], compare.outputs, **PRIVATE
            ),
            train.view.compare.click(compare_run, shown, [tabs, *compare.outputs], **PRIVATE),
        ):
            compared.then(None, None, None, js=ASK_AFRESH, api_visibility="private")
    return demo


def theme() -> gr.themes.Base:
    """System fonts only: nothing is fetched from anywhere."""
    return gr.themes.Default(
        primary_hue="teal", secondary_hue="teal", neutral_hue="slate", radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"],
    ).set(  # white on teal that can be read
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_background_fill_hover_dark="*primary_600",
        checkbox_border_color_dark="*neutral_400", checkbox_background_color_dark="*neutral_900",
        checkbox_background_color_selected="*primary_700", checkbox_background_color_selected_dark="*primary_700",
    )  # fmt: skip
