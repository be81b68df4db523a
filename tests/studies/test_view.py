"""The page that follows a study: what it says, whom it answers, and that nothing a study holds becomes markup."""

from __future__ import annotations

import json
import socket
import struct
import threading
import urllib.error
import urllib.request

import pytest

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.core.episode import EPISODES_FILE, write_episodes
from gentax.studies.plan import make_plan
from gentax.studies.remote import open_store
from gentax.studies.store import Store
from gentax.studies.study import read_study
from gentax.studies.view import StudyView, ViewServer

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def plan():
    return make_plan(read_study("demo"))


@pytest.fixture
def store(plan, tmp_path):
    """A store in which the base was evaluated on one domain, and a training run is in progress."""
    store = Store(tmp_path)
    folder = store.fresh_folder(plan.init["sokoban"])
    (folder / "scores.json").write_text(json.dumps({"success": [1.0, 0.0, None], "content": ["a", "b", "c"]}))
    step = Step(observation=HOSTILE, text="up", action="up", reward=0.0, valid=True)
    tasks = [Task("sokoban", "simple", "test", n) for n in range(3)]
    episodes = [Episode(task, 0, "goal", (step,), Outcome.FAILURE) for task in tasks]
    write_episodes(folder / EPISODES_FILE, episodes)
    store.finish(plan.init["sokoban"], folder, 3.0, None)
    training = plan.trained["rl", "sokoban", 0]
    store.working_folder(training).mkdir()
    rows = "".join(json.dumps({"step": n, "success": 0.1 * n}) + "\n" for n in (1, 2, 3))
    (store.working_folder(training) / "metrics.jsonl").write_text(rows + '{"step": 4, "succ')
    return store


@pytest.fixture
def serve(plan, store):
    servers = []

    def start(host="127.0.0.1"):
        server = ViewServer(StudyView(plan, store), host)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def get(server, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_address[1]}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_the_curve_of_a_run_on_another_machine_is_shown(plan, tmp_path, monkeypatch):
    training, url = plan.trained["rl", "sokoban", 0], "memory://gentax-view/runs"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "trains"))
    trains = open_store(url)
    folder = trains.fresh_folder(training)
    (folder / "metrics.jsonl").write_text('{"step": 1, "success": 0.5}\n')
    trains.finish(training, folder, 1.0, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shows"))
    (curve,) = StudyView(plan, open_store(url)).state()["curves"]
    assert curve["values"] == {"success": [[1, 0.5]]}
    trains.files.rm("/gentax-view", recursive=True)


def test_the_state_follows_the_store(serve, plan, store):
    server = serve()
    status, text, _ = get(server, "/state.json")
    state = json.loads(text)
    assert status == 200
    assert (state["done"], state["total"]) == (1, len(plan.stages()))
    base = next(row for row in state["rows"] if row["name"] == "base")
    assert base["cells"]["sokoban"]["success"] == 50.0
    assert base["cells"]["webshop"]["state"] == "missing"
    (curve,) = state["curves"]
    assert curve["values"]["success"] == [[1, 0.1], [2, 0.2], [3, pytest.approx(0.3)]]
    with store.lock(plan.init["webshop"]):
        store.write_progress(plan.init["webshop"], 0.25, "32/128 episodes")
        state = json.loads(get(server, "/state.json")[1])
    assert [(run["title"], run["fraction"]) for run in state["running"]] == [("base on webshop", 0.25)]


def test_any_episode_can_be_read(serve, plan):
    server, folder = serve(), plan.init["sokoban"].folder
    status, text, headers = get(server, f"/episode.json?stage={folder}&index=2")
    found = json.loads(text)
    assert (status, found["number"]) == (200, 3)
    assert found["episode"]["steps"][0]["observation"] == HOSTILE
    assert headers["Content-Type"].startswith("application/json")  # never markup
    for query in ("stage=../../x", f"stage={folder}&index=3", f"stage={folder}&index=x", "index=1"):
        assert get(server, f"/episode.json?{query}")[0] == 404


def test_the_page_runs_no_script_but_its_own(serve):
    _, page, headers = get(serve(), "/")
    policy = headers["Content-Security-Policy"]
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert page.count(f'nonce="{nonce}"') == 2
    assert "default-src 'none'" in policy
    assert "innerHTML" not in page


def test_files_outside_the_report_are_not_served(serve):
    server = serve()
    for path in ("/report/report.html", "/report/../stages/store.json", "/report/%2e%2e/x", "/etc/passwd", "/x"):
        assert get(server, path)[0] == 404


def test_another_site_is_not_answered(serve):
    assert get(serve(), "/state.json", Host="evil.example")[0] == 403


@pytest.mark.parametrize("headers", [{"Host": "["}, {"Host": "evil.example", "Cookie": "a[=b; ]"}])
def test_a_request_that_makes_no_sense_is_refused_without_a_traceback(serve, capfd, headers):
    assert get(serve(), "/", **headers)[0] == 403
    assert get(serve("0.0.0.0"), "/", **headers)[0] == 403
    assert "Traceback" not in capfd.readouterr().err


def test_a_browser_that_goes_away_is_no_error(serve, capfd):
    server = serve()
    with socket.create_connection(server.server_address[:2]) as browser:
        browser.sendall(b"GET /state.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
    assert get(server, "/state.json")[0] == 200
    assert capfd.readouterr().err == ""


def test_failures_are_those_of_this_study_that_are_not_mended(serve, plan, store):
    server = serve()
    store.running(plan.init["webshop"], "log").parent.mkdir(exist_ok=True)
    for stage in (plan.init["webshop"], plan.init["sokoban"]):  # the second is done
        store.running(stage, "log").write_text("a traceback")
    (store.root / "running" / "evaluate-other-0123456789ab.log").write_text("of another study")
    assert json.loads(get(server, "/state.json")[1])["failed"] == ["base on webshop"]


def test_other_machines_need_the_token(serve):
    server = serve("0.0.0.0")
    assert get(server, "/state.json")[0] == 403
    assert get(server, "/state.json?token=wrong")[0] == 403
    status, _, headers = get(server, "/" + server.url.partition("/?")[2].join(("?", "")))
    assert status == 200
    cookie = headers["Set-Cookie"].split(";")[0]
    assert "HttpOnly" in headers["Set-Cookie"]
    assert get(server, "/state.json", Cookie=cookie)[0] == 200


def test_a_port_in_use_is_refused(serve, plan, store):
    port = serve().server_address[1]
    with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1:{port}"):
        ViewServer(StudyView(plan, store), port=port)
