"""Sokoban rooms from XSB files: what is read, and what is said about files that cannot be."""

from __future__ import annotations

import pytest

from gentax.core import UsageError
from gentax.domains.sokoban.env import Sokoban

GOOD = """\
; a collection of two
Room #1 by hand

#######
#@ $ .#
#######
Title: beside the room

  ####
##   ####
#--_$ @ #
# .#  # #
##*######
 ###
"""


def write(tmp_path, text: str | bytes):
    file = tmp_path / "rooms.xsb"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_rooms_are_read_in_order_and_solved(tmp_path):
    env = Sokoban(xsb=write(tmp_path, GOOD))
    assert env.size("train") == env.size("test") == 2
    assert env.horizon == (2 + 1) * 16
    _, info = env.reset(options={"index": 0, "split": "test"})
    assert env.observation == "Target 1,5. Box 1,3. You 1,1."
    assert info["task"].id == f"sokoban/{env.level}/test/0"
    env.reset(options={"index": 1})
    assert env.observation.startswith("Walls 1,1 ")
    assert env.observation.endswith("Targets 3,2 4,2. Boxes 2,4 4,2. You 2,6.")
    while (chosen := env.expert()) is not None:
        *_, info = env.step(chosen.action)
    assert info["success"]


def test_level_names_the_rooms(tmp_path):
    file = write(tmp_path, GOOD)
    level = Sokoban(xsb=file).level
    assert level.startswith("xsb-")
    assert Sokoban(level=level, xsb=file).level == Sokoban(level="xsb", xsb=str(file)).level == level
    assert Sokoban(xsb=write(tmp_path, GOOD.replace("\n", "\r\n"))).level == level
    changed = write(tmp_path, GOOD.replace("#@ $ .#", "# @$ .#"))
    with pytest.raises(UsageError, match="leave level out"):
        Sokoban(level=level, xsb=changed)
    with pytest.raises(UsageError, match="indices 0 to 1"):
        Sokoban(xsb=file).reset(options={"index": 2})
    assert Sokoban(xsb=file, horizon=7).horizon == 7


def test_what_the_player_cannot_reach_is_wall(tmp_path):
    env = Sokoban(xsb=write(tmp_path, "########\n#@$.##*#\n########\n"))
    env.reset(options={"index": 0})
    assert env.observation == "Walls 1,4 1,5 1,6. Target 1,3. Box 1,2. You 1,1."
    assert env.step("right")[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no room in it"),
        ("; only words\n", "no room in it"),
        ("#####\n# $.#\n#####\n", "line 1: no player"),
        ("\n\n#####\n#@$.#\n#@  #\n#####\n", "line 5: 2 players"),
        ("######\n#@$$.#\n######\n", "line 1: 2 boxes .* and 1 targets"),
        ("#####\n#@  #\n#####\n", "line 1: 0 boxes"),
        (";x\n#####\n#@$. \n#####\n", "line 3, column 5: the room is open"),
        ("#####\n#@$.#\n#   #\n", "line 3, column 2: the room is open"),
        ("#####\n#@$.#\n#o  #\n#####\n", "line 3, column 2: 'o' is no sign"),
        ("#####\n@ $ .\n#####\n", "line 2: a row without any wall"),
        ("#######\n#@ #$.#\n#######\n", "line 2, column 5: the player can never reach"),
        ("#####\n#@* #\n#####\n", "solved already"),
        (b"#####\n#@$.#\n#####\n\xff\xfe", "line 4: not UTF-8"),
        ("#" * 70, "at most 64 by 64"),
        (b"\n" * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_bad_files_say_where_why_and_what_to_do(tmp_path, text, says):
    with pytest.raises(UsageError, match=says) as caught:
        Sokoban(xsb=write(tmp_path, text))
    assert "rooms.xsb" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.xsb", tmp_path, "a\0b"):
        with pytest.raises(UsageError, match="give the path of an XSB text file"):
            Sokoban(xsb=path)
