"""Episodes behind a page: all of them are there, they are only data, and a browser shows them as text."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import replace

import fake_report
import pytest

from gentax.core import Outcome
from gentax.report.episodes import CHUNK, LONGEST, SHOWN, write_episodes
from gentax.report.page import write_report

NASTY = (
    "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">\u202e\x00\u2028\ud800"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def episodes(count: int, outcome: Outcome, text: str = ""):
    return [fake_report.episode(n, ["up", ""], outcome, text=text) for n in range(count)]


def content(path):
    """What the script of a file hands to the page, after a check that it does nothing else."""
    name, packed = re.fullmatch(
        r'gentaxEpisodes\("([\w-]+)","([\w+/=]+)"\)\n', path.read_text(encoding="ascii")
    ).groups()
    assert name == path.stem
    return json.loads(gzip.decompress(b64decode(packed)))


def test_every_episode_is_written_once_and_indexed(tmp_path):
    n = 2 * CHUNK + 1
    before, after = episodes(n, Outcome.SUCCESS), episodes(n, Outcome.FAILURE, NASTY)
    before[5] = replace(before[5], outcome=Outcome.FAILURE)
    sets = fake_report.sets("sokoban", before, plain=after)
    again = replace(sets[1], seed=1)
    index = write_episodes((*sets, again), tmp_path / "e")
    assert index.count == 3 * n
    assert sorted(path.stem for path in (tmp_path / "e").iterdir()) == sorted(
        ["index", *(f"{one}-{chunk}" for one in range(3) for chunk in range(3))]
    )
    table = content(tmp_path / "e" / "index.js")
    for row, seed in zip(table["sets"], (0, 1), strict=True):
        assert (row["base"], row["domain"], row["arm"], row["seed"]) == (0, "sokoban", "plain", seed)
        assert row["tasks"] == [episode.task.id for episode in after]
        assert [table["changes"][c] for c in row["changes"]] == ["lost"] * 5 + ["failed twice"] + ["lost"] * (n - 6)
        place = n - 1
        shown = content(tmp_path / "e" / f"{row['set']}-{place // table['chunk']}.js")[place % table["chunk"]]
        assert shown["outcome"] == "failure"
        assert NASTY[:40] in shown["steps"][0][0]
        assert "⟨U+202E⟩⟨U+0000⟩⟨U+2028⟩⟨U+D800⟩" in shown["steps"][0][0]
    (lost,) = index.lost
    assert (lost[0], lost[1], lost[2].lost) == ("plain", "sokoban", 2 * (n - 1))
    assert [(one.task.change, one.place) for one in index.shown] == [("lost", 0), ("failed twice", 5)]


def test_one_domain_is_read_at_a_time_and_the_base_once(tmp_path):
    reads = []

    def counted(one, n):
        return replace(one, read=lambda: reads.append(n) or one.read())

    sets = fake_report.sets(
        "a", episodes(2, Outcome.SUCCESS), x=episodes(2, Outcome.FAILURE), y=episodes(2, Outcome.SUCCESS)
    )
    write_episodes([counted(one, n) for n, one in enumerate(sets)], tmp_path / "e")
    assert reads == [0, 1, 2]


def test_the_index_shows_some_episodes_and_lists_all_arms(tmp_path):
    arms = {f"arm{n}": episodes(1, Outcome.FAILURE) for n in range(SHOWN + 1)}
    index = write_episodes(fake_report.sets("a", episodes(1, Outcome.SUCCESS), **arms), tmp_path / "e")
    assert len(index.shown) == SHOWN
    assert index.arms == tuple(arms)
    assert index.domains == ("a",)


def test_very_long_texts_are_cut(tmp_path):
    long = episodes(1, Outcome.FAILURE, "x" * 3 * LONGEST)
    write_episodes(fake_report.sets("a", long, x=long), tmp_path / "e")
    shown = content(tmp_path / "e" / "0-0.js")[0]["steps"][0][0]
    assert len(shown) < 1.1 * LONGEST
    assert shown.endswith("more characters)")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="takes a browser")
def test_episodes_in_a_browser_are_text(tmp_path):
    """From a disk: no server, no network, under the page's Content-Security-Policy."""
    sets = fake_report.sets("sokoban", episodes(70, Outcome.SUCCESS), plain=episodes(70, Outcome.FAILURE, NASTY))
    write_report(fake_report.report(episodes=sets, results=(), curves=(), axes=()), tmp_path)
    (tmp_path / "try.html").write_text("""<iframe id=f></iframe><pre id=said></pre><script>
        const until = async (found) => { while (!found()) await new Promise((go) => setTimeout(go, 20)); };
        f.onload = async () => {
          const page = f.contentDocument, rows = () => page.querySelectorAll("#episodes details");
          const say = (what) => said.append(what + "\\n");
          say(`first ${rows().length}`);
          page.querySelector("#failures a").click();
          await until(() => rows().length > 1);
          say(`asked ${rows().length}`);
          page.querySelector(".more").click();
          say(`more ${rows().length}`);
          rows()[69].open = true;
          await until(() => rows()[69].querySelector(".both"));
          say(`open ${rows()[69].querySelectorAll("li").length} ${rows()[69].querySelectorAll("img,script").length}`);
          say(`text ${rows()[69].textContent.includes("<img src=x onerror=")}`);
          say(`title ${page.title}`);
        };
        f.src = "report.html";</script>""")
    page = (tmp_path / "try.html").as_uri()
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", page]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    said = shown.split('<pre id="said">')[1].split("</pre>")[0].splitlines()
    assert said == [
        "first 1",
        "asked 50",
        "more 70",
        "open 6 0",
        "text true",
        "title What RL on three domains cost elsewhere",
    ]
