"""Who pays for a job of the Hub: prices on the page and the command line, before anything is sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from iekd.hub_errors import HubError
from iekd.launchers.flavors import dollars, seconds_in
from iekd.launchers.hub_jobs import HubJobsLauncher
from iekd.runs.estimate import estimate
from iekd.runs.owner import set_owner
from iekd.runs.status import QUEUED
from iekd.runs.store import Store


def test_only_who_pays_resumes_a_job(jobs, waiting, hub_launcher, wait_until, refuses):
    from iekd.ui.rights.access import Access, AccessError
    from iekd.ui.shared.actions import resume_run

    run, job = waiting
    job.end("CANCELED")
    wait_until(lambda: not run.alive())
    stranger = SimpleNamespace(
        headers={"host": "192.0.2.1:7860"}, cookies={}, client=SimpleNamespace(host="192.0.2.7"), username=None
    )
    refuses(lambda: resume_run(hub_launcher, Access(), stranger, run), "sits at this machine", kind=AccessError)
    assert len(jobs.jobs) == 1
    here = SimpleNamespace(
        headers={"host": "127.0.0.1:7860"}, cookies={}, client=SimpleNamespace(host="127.0.0.1"), username=None
    )
    resume_run(hub_launcher, Access(), here, run)
    assert len(jobs.jobs) == 2


def test_a_visitors_token_is_theirs_alone(jobs, hub_launcher, tiny_config, wait_until, refuses):
    jobs.idle = True
    run_id = hub_launcher.for_visitor("hf_bob", flavor="cpu-basic").submit(tiny_config(dataset="fashion-mnist-sample"))
    assert (jobs.jobs[0].namespace, jobs.jobs[0].spec["flavor"]) == ("bob", "cpu-basic")
    run = hub_launcher.store.get(run_id)
    wait_until(lambda: "installs" in run.status.waiting)
    later = HubJobsLauncher(Store(hub_launcher.store.root))  # after a restart nobody has it
    assert later.status(run_id).state == QUEUED
    refuses(lambda: later.look(run_id), "a visitor's", kind=HubError)
    refuses(lambda: later.resume(run_id), "a visitor's", kind=HubError)  # nobody else pays for it
    later.welcome("hf_ann")
    assert run_id not in later.tokens
    later.welcome("hf_bob")
    assert later.look(run_id) is False
    assert later.for_visitor("hf_bob").look(run_id) is False


def test_price_and_time_are_said_before(jobs, hub_launcher, tiny_config, picture_folder):
    config = tiny_config()
    plan = estimate(config, hub_launcher.store, False).plan
    offer = hub_launcher.offer(config, plan)
    said = " ".join(offer.sentences("about 1 min"))
    assert "t4-small (1 x T4) costs $0.40 per hour." in said
    assert "at most $0.80: the job ends after 2 h" in said
    assert "a guess: no speed of t4-small has been measured" in said
    assert "156 of your images and tables" in said
    assert "the GPU would be paid for and not used" in said
    assert "private bucket 'ann/iekd-runs'" in said
    assert offer.high > 10 * offer.low
    assert [one for one in jobs.requests if one[0] == "POST"] == [], "nothing was sent"


def test_the_command_line_says_the_price_and_shows_the_run(jobs, tiny_options, tmp_path, monkeypatch, wait_until):
    import typer
    from typer.testing import CliRunner

    from iekd.cli.main import app

    jobs.idle = True
    place = ["--runs-dir", str(tmp_path / "runs")]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in tiny_options.items()]
    options = ["--launcher", "hf-jobs", "--flavor", "cpu-basic", "--timeout", "1h", "--detach", *place]
    asked = []

    def no(text, **_):
        asked.append(text)
        raise typer.Abort

    with monkeypatch.context() as terminal:
        terminal.setattr("iekd.cli.jobs.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
        terminal.setattr("typer.confirm", no)
        result = CliRunner().invoke(app, ["train", *words, "--dataset", "fashion-mnist-sample", *options])
    assert (result.exit_code, asked, jobs.jobs) == (1, ["Start it?"], []), "no is no"
    result = CliRunner().invoke(app, ["train", *words, "--dataset", "fashion-mnist-sample", *options])
    assert result.exit_code == 0, result.output
    assert "cpu-basic (2 vCPU) costs $0.01 per hour." in result.output
    assert jobs.jobs[0].spec["timeoutSeconds"] == 3600
    run_id = Store(tmp_path / "runs").list()[0].id
    jobs.jobs[0].end("CANCELED")
    shown = CliRunner().invoke(app, ["runs", "show", run_id, *place])  # another process, as it were
    assert shown.exit_code == 0, shown.output
    wait_until(lambda: "cancelled on the Hub" in CliRunner().invoke(app, ["runs", "show", run_id, *place]).output)
    wrong = CliRunner().invoke(app, ["train", *words, "--flavor", "t4-small", *place])
    assert (wrong.exit_code, "--launcher hf-jobs" in wrong.output) == (2, True)


def test_a_table_says_the_price_of_new_cells_and_of_each_that_is_resumed(jobs, tiny_options, tmp_path, wait_until):
    from typer.testing import CliRunner

    from iekd.cli.main import app

    jobs.idle = True
    words = [f"--{name.replace('_', '-')}={value}" for name, value in tiny_options.items()
             if name not in ("teacher", "student", "methods")]  # fmt: skip
    words += ["--methods=baseline", "--dataset=fashion-mnist-sample", f"--runs-dir={tmp_path / 'runs'}", "--detach"]
    hub = ["--launcher=hf-jobs", "--flavor=a10g-small", "--timeout=30m"]
    made = CliRunner().invoke(app, ["train", "--teacher=none", "--student=resnet8", "--seeds=0", *hub, *words])
    assert made.exit_code == 0, made.output
    jobs.jobs[0].end("CANCELED")
    (run,) = Store(tmp_path / "runs").list()
    wait_until(lambda: not HubJobsLauncher(Store(tmp_path / "runs")).alive(run.id))
    jobs.refusals["POST /api/jobs"] = 402, "Pre-paid credit balance is insufficient"  # nothing trains here
    table = ["table", "--pairs=none:resnet8", "--seeds=0,1,2", "--launcher=hf-jobs", "--flavor=cpu-basic"]
    said = CliRunner().invoke(app, [*table, *words[:-1]]).output
    assert "That is of one job; 2 jobs will be started." in said
    assert said.count("cpu-basic (2 vCPU) costs") == 2, "the option counts for the resumed cell too"
    assert said.count("ends after 2 h") == 1
    assert said.count("ends after 30 min") == 1, "the resumed cell keeps its own limit"


def test_resuming_a_job_on_the_page_says_what_it_costs(jobs, waiting, hub_launcher, wait_until):
    from iekd.runs.index import Index
    from iekd.ui.render.runs import Query, list_html
    from iekd.ui.render.sparkline import Sparklines
    from iekd.ui.tabs.run import look

    run, job = waiting
    job.end("CANCELED")
    wait_until(lambda: not run.alive())
    said = "Resuming it starts another job on t4-small. It costs at most $0.80: the job ends after 2 h at the latest."
    assert said in look(hub_launcher.store, run.id, {}, lambda *_: True)["headline"]
    listed = list_html(Index(hub_launcher.store), Sparklines(), Query(), lambda *_: True)
    assert f'data-act="resume" data-price="{said}"' in listed
    set_owner(run.path, "local")  # it was taken over
    assert "Resuming it" not in look(hub_launcher.store, run.id, {}, lambda *_: True)["headline"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--flavor", "t4-smal"], ("Unknown flavor 't4-smal'", "'t4-small'", "a10g-small $1.00 per hour")),
        (["--timeout", "soon"], ("'soon'", "90m")),
    ],
)
def test_a_page_that_could_offer_no_job_is_not_served(words, says, jobs, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from iekd.cli.main import app

    served = []
    monkeypatch.setattr("iekd.ui.server.launch.launch", lambda *_: served.append(1))
    command = ["serve", "--launcher", "hf-jobs", "--runs-dir", str(tmp_path)]
    refused = CliRunner().invoke(app, [*command, *words])
    assert (refused.exit_code, served) == (2, [])
    for said in says:
        assert said in " ".join(refused.output.split())
    assert (CliRunner().invoke(app, command).exit_code, served) == (0, [1])
    jobs.down = True  # a flavor that cannot be looked up is no reason to have no page
    assert (CliRunner().invoke(app, [*command, "--flavor", "t4-small"]).exit_code, served) == (0, [1, 1])


def test_a_page_offers_jobs_beside_this_machine(jobs, tiny_config, tmp_path, refuses):
    import gradio as gr

    from iekd.cli.jobs import as_choice
    from iekd.launchers.factory import make_launcher
    from iekd.runs.owner import LOCAL
    from iekd.runs.prepare import prepare
    from iekd.ui.rights.access import Access
    from iekd.ui.shared.actions import start_run
    from iekd.ui.tabs.jobs import where_part

    jobs.idle = True
    launcher = as_choice(make_launcher(tmp_path / "runs", "hf-jobs", timeout="1h"))
    assert launcher.name == LOCAL, "what does not ask for a job, such as the API, gets none"
    with gr.Blocks():
        assert where_part(make_launcher(tmp_path / "runs"), Access()) is None
        part = where_part(launcher, Access())
    config = tiny_config(dataset="fashion-mnist-sample")
    given = {part.place: LOCAL, part.flavor: "a10g-small", part.timeout: "30m"}
    assert part.chosen(None, given, "") is launcher
    given[part.place] = "hf-jobs"
    hub = part.chosen(None, given, "hf_bob")
    priced = part.priced(prepare(config, launcher.store.root, here=False), hub)
    assert "$1.00 per hour" in priced[part.price]
    assert "at most $0.50" in priced[part.price]
    assert "at most $0.50" in priced[part.most], "beside Start"
    run_id = start_run(hub, Access(), None, config, "click")
    assert launcher.store.get(run_id).owner == "hf-jobs"
    (job,) = jobs.jobs
    assert (job.namespace, job.spec["flavor"], job.spec["timeoutSeconds"]) == ("bob", "a10g-small", 1800)
    for access, said in ((Access(public=True, training=True), "sits at this machine"),
                         (Access(public=True, training=True, in_space=True), "Log in with Hugging Face")):  # fmt: skip
        stranger = replace(part, access=access)
        refuses(lambda stranger=stranger: stranger.chosen(None, given, ""), said)


def test_a_job_is_resumed_on_a_page_as_it_was_started(jobs, tiny_config, tmp_path, wait_until):
    """And not with the options that the page offers for new ones, which may cost many times as much."""
    from iekd.cli.jobs import as_choice
    from iekd.launchers.factory import make_launcher

    jobs.idle = True
    started = make_launcher(tmp_path / "runs", "hf-jobs", flavor="cpu-basic", timeout="30m")
    run = started.store.get(started.submit(tiny_config(dataset="fashion-mnist-sample")))
    jobs.jobs[0].end("CANCELED")
    wait_until(lambda: not run.alive())
    page = as_choice(make_launcher(tmp_path / "runs", "hf-jobs", flavor="a10g-small", timeout="12h", namespace="org"))
    page.resume(run.id)
    assert (jobs.jobs[1].spec["flavor"], jobs.jobs[1].spec["timeoutSeconds"]) == ("cpu-basic", 1800)
    assert jobs.jobs[1].namespace == "ann"


def test_start_on_the_page_asks_again_where_another_price_was_shown(jobs, tmp_path, monkeypatch):
    import gradio as gr
    from gradio.routes import App

    from iekd.cli.jobs import as_choice
    from iekd.launchers.factory import make_launcher
    from iekd.ui.app import build_app

    jobs.idle = True
    monkeypatch.setenv("IEKD_PROBE", "0")
    launcher = as_choice(make_launcher(tmp_path / "runs", "hf-jobs", timeout="1h"))
    demo = build_app(launcher)
    demo.queue()
    App.create_app(demo)
    request = gr.Request(
        headers={"host": "127.0.0.1:7860"}, cookies={}, query_params={}, client=SimpleNamespace(host="127.0.0.1"),
        username=None,
    )  # fmt: skip
    (event,) = [
        one for one in demo.fns.values() if one.name == "begin" and "f-where" in {i.elem_id for i in one.inputs}
    ]
    changed = {"f-where": "hf-jobs", "f-timeout": "30m", "f-epochs": 1}

    def pressed() -> dict:
        given = [changed.get(one.elem_id, one.value) for one in event.inputs]
        answer = asyncio.run(demo.process_api(event, given, state=None, request=request))
        return {one.elem_id or one._id: value for one, value in zip(event.outputs, answer["data"], strict=True)}

    refused = pressed()
    assert "press Start again" in str(refused["error"])
    assert "at most $0.20" in refused["job-most"]
    assert jobs.jobs == [], "nothing was shown, so nothing is paid for"
    changed |= {"job-most": refused["job-most"], "f-timeout": "1h"}
    assert "at most $0.40" in pressed()["job-most"], "it was for another time"
    assert jobs.jobs == []
    changed["f-timeout"] = "30m"
    started = pressed()
    assert started["shown-run"]
    assert [job.spec["timeoutSeconds"] for job in jobs.jobs] == [1800]


def test_a_page_never_resumes_on_a_visitors_account(jobs, hub_launcher, tiny_config, wait_until, refuses):
    from iekd.ui.rights.access import Access, AccessError
    from iekd.ui.shared.actions import resume_run

    jobs.idle = True
    run = hub_launcher.store.get(hub_launcher.for_visitor("hf_bob").submit(tiny_config(dataset="fashion-mnist-sample")))
    jobs.jobs[0].end("CANCELED")
    wait_until(lambda: not run.alive())
    here = SimpleNamespace(
        headers={"host": "127.0.0.1:7860"}, cookies={}, client=SimpleNamespace(host="127.0.0.1"), username=None
    )
    refuses(lambda: resume_run(hub_launcher, Access(), here, run), "visitor", "same settings", kind=AccessError)
    assert len(jobs.jobs) == 1


def test_times_and_prices_in_words():
    assert [seconds_in(text) for text in ("2h", "90m", "1.5d", "3600")] == [7200, 5400, 129600, 3600]
    assert [dollars(amount) for amount in (0.4, 12, 0.01, 0.00334)] == ["$0.40", "$12.00", "$0.01", "$0.0033"]
