"""A folder that is held: who holds it, and when it may be removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.folder import Folder, inherit, make, remove_if_unused, sweep

UID, GID = os.getuid(), os.getgid()
PREFIX = "offloop-test-"


def test_a_folder_is_removed_only_once_all_who_hold_it_have_let_go(tmp_path: Path) -> None:
    one = make(tmp_path, PREFIX, UID, GID)
    other = Folder(one.path)
    assert one.path.name.startswith(PREFIX)
    assert one.path.stat().st_mode & 0o777 == 0o700
    (one.path / "slot-0").touch()
    for holder in (one, other):
        assert not remove_if_unused(one.path)
        holder.release()
    assert remove_if_unused(one.path)
    assert not list(tmp_path.iterdir())
    assert remove_if_unused(one.path), "it is gone already"


def test_a_start_removes_what_killed_services_of_this_user_left_and_nothing_else(tmp_path: Path) -> None:
    held, left = make(tmp_path, PREFIX, UID, GID), make(tmp_path, PREFIX, UID, GID)
    left.release()
    strange = tmp_path / "offloop-run-1"
    strange.mkdir()
    file = tmp_path / f"{PREFIX}file"
    file.touch()
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(strange)
    sweep(tmp_path, PREFIX, UID + 1)
    assert left.path.exists()
    sweep(tmp_path, PREFIX, UID)
    assert set(tmp_path.iterdir()) == {held.path, strange, file, link}
    held.release()


def test_a_folder_that_is_being_made_is_no_left_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chown = os.chown

    def swept_meanwhile(path: Path, uid: int, gid: int) -> None:
        sweep(tmp_path, PREFIX, UID)
        chown(path, uid, gid)

    monkeypatch.setattr(os, "chown", swept_meanwhile)
    folder = make(tmp_path, PREFIX, UID, GID)
    assert folder.is_there()
    folder.release()


def test_a_folder_that_its_last_user_removes_just_now_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chown, removals = os.chown, iter([True, False])

    def removed_meanwhile(path: Path, uid: int, gid: int) -> None:
        chown(path, uid, gid)
        if next(removals):
            assert remove_if_unused(path)

    monkeypatch.setattr(os, "chown", removed_meanwhile)
    folder = inherit(tmp_path / f"{PREFIX}old", None, UID, GID)
    assert folder.is_there()
    folder.release()
