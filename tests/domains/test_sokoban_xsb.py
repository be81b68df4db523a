"""Sokoban rooms from XSB files: what is read, and what is said about files that cannot be."""

from __future__ import annotations

import pytest

from gentax.core import SPLITS, UsageError
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


def placed(env):
    """Return where the rooms of a file are, as options of `reset`: by the split of each, in their order there."""
    options = [{"split": split, "index": index} for split in SPLITS for index in range(env.size(split))]
    return sorted(options, key=lambda one: env.reset(options=one)[0].startswith("Walls"))


def test_rooms_are_read_in_order_and_solved(tmp_path):
    env = Sokoban(xsb=write(tmp_path, GOOD))
    assert env.horizon == (2 + 1) * 16
    first, second = placed(env)
    _, info = env.reset(options=first)
    assert env.observation == "Target 1,5. Box 1,3. You 1,1."
    assert info["task"].id == f"sokoban/{env.level}/{first['split']}/{first['index']}"
    env.reset(options=second)
    assert env.observation.startswith("Walls 1,1 ")
    assert env.observation.endswith("Targets 3,2 4,2. Boxes 2,4 4,2. You 2,6.")
    while (chosen := env.expert()) is not None:
        *_, info = env.step(chosen.action)
    assert info["success"]


def test_the_level_is_a_hash_of_the_rooms(tmp_path):
    file = write(tmp_path, GOOD)
    level = Sokoban(xsb=file).level
    assert level.startswith("xsb-")
    assert Sokoban(level=level, xsb=file).level == Sokoban(level="xsb", xsb=str(file)).level == level
    assert Sokoban(xsb=write(tmp_path, GOOD.replace("\n", "\r\n"))).level == level
    changed = write(tmp_path, GOOD.replace("#@ $ .#", "# @$ .#"))
    with pytest.raises(UsageError, match="leave level out"):
        Sokoban(level=level, xsb=changed)
    assert Sokoban(xsb=file, horizon=7).horizon == 7


def test_a_collection_is_split_by_room_and_a_split_without_rooms_is_refused(tmp_path):
    room = "#######\n#@ $ .#\n#######\n\n"
    turned = "###\n#.#\n# #\n#$#\n# #\n#@#\n###\n\n"
    env = Sokoban(xsb=write(tmp_path, room + turned + room))
    (split,) = [split for split in SPLITS if env.size(split)]
    assert env.size(split) == 3  # the same room, however it lies
    with pytest.raises(UsageError, match=f"indices 0 to 2|has no .* rooms: .* its rooms are 3 {split}"):
        env.reset(options={"index": 3, "split": split})
    for other in set(SPLITS) - {split}:
        with pytest.raises(UsageError, match=f"rooms.xsb has no {other} rooms: .* its rooms are 3 {split}"):
            env.reset(options={"index": 0, "split": other})
        with pytest.raises(UsageError, match=f"has no {other} rooms"):
            env.tasks(other, 1)
    many = "\n".join(f"{'#' * (n + 5)}\n#@$.{' ' * n}#\n{'#' * (n + 5)}\n" for n in range(40))
    sizes = [Sokoban(xsb=write(tmp_path, many)).size(split) for split in SPLITS]
    assert sum(sizes) == 40
    assert min(sizes) > 0


def test_unreachable_cells_count_as_walls(tmp_path):
    env = Sokoban(xsb=write(tmp_path, "########\n#@$.##*#\n########\n"))
    env.reset(options=placed(env)[0])
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
def test_bad_files_are_refused_with_line_and_reason(tmp_path, text, says):
    with pytest.raises(UsageError, match=says) as caught:
        Sokoban(xsb=write(tmp_path, text))
    assert "rooms.xsb" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.xsb", tmp_path, "a\0b"):
        with pytest.raises(UsageError, match="give the path of an XSB text file"):
            Sokoban(xsb=path)
