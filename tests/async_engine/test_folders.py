"""Temporary folders go with their owners, and those of killed ones with the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from vllm_core.engine import folders
from vllm_core.engine.folders import LOCK, OwnedFolder, sweep

OWNER = """
import subprocess, sys
from vllm_core.engine.folders import OwnedFolder
print(OwnedFolder.make(sys.argv[1]).path, flush=True)
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def owners(temporary):
    """Starts processes that own a folder and have a child."""
    started = []

    def start(kind=""):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(temporary)},
            text=True,
        )
        started.append(process)
        path = process.stdout.readline().strip()
        process.stdout.readline()
        return process, path

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_folders_of_killed_owners_are_swept_and_those_of_living_ones_stay(owners, temporary):
    (killed, left), (_, held), (_, mine) = owners(), owners("metrics-"), owners()
    os.mkdir(f"{left}/pids")
    kill(killed)
    assert sorted(os.listdir(temporary)) == sorted(map(os.path.basename, (left, held, mine)))
    assert sweep() == 1
    assert sorted(os.listdir(temporary)) == sorted(map(os.path.basename, (held, mine)))
    assert sweep() == 0


def test_the_first_folder_that_a_process_makes_sweeps(owners, temporary):
    kill(owners()[0])
    _, path = owners()
    assert os.listdir(temporary) == [os.path.basename(path)]


def test_an_owner_in_this_process_is_safe_from_it(temporary):
    folder = OwnedFolder.make()
    assert sweep() == 0
    assert folder.path.stat().st_mode & 0o077 == 0
    folder.remove()
    assert not os.listdir(temporary)


def test_a_folder_that_was_cleared_away_is_mended_with_its_lock(temporary):
    folder = OwnedFolder.make()
    (folder.path / LOCK).unlink()
    assert sweep() == 0  # nobody can tell that its owner is gone
    folder.path.rmdir()
    folder.mend()
    assert (folder.path / LOCK).exists()
    assert sweep() == 0
    folder.remove()
    assert not os.listdir(temporary)


def test_what_is_not_ours_to_sweep_stays(temporary, monkeypatch):
    for name, mode in (("vllm-core-shared", 0o755), ("vllm-core-nolock", 0o700), ("vllm-core-young", 0o700)):
        (temporary / name).mkdir(mode=mode)
    for name in ("vllm-core-shared", "others"):
        (temporary / name).mkdir(exist_ok=True)
        (temporary / name / LOCK).touch()
    (temporary / "vllm-core-nolock" / "engine").touch()
    (temporary / "vllm-core-link").symlink_to(temporary / "others")
    (temporary / "vllm-core-file").touch()
    before = sorted(os.listdir(temporary))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert sweep() == 0
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert sweep() == 0
    assert sorted(os.listdir(temporary)) == before
    assert (temporary / "others" / LOCK).exists()


def test_an_empty_folder_goes_once_nobody_can_be_about_to_fill_it(temporary, monkeypatch):
    (temporary / "vllm-core-empty").mkdir(mode=0o700)
    assert sweep() == 0
    monkeypatch.setattr(time, "time", lambda: os.stat(temporary).st_mtime + 2 * folders.EMPTY_SECONDS)
    assert sweep() == 1


def test_sweeping_never_fails_a_start(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nowhere"))
    assert sweep() == 0
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def refused(*arguments):
        raise OSError("no locks here")

    monkeypatch.setattr(folders.fcntl, "flock", refused)
    folder = OwnedFolder.make()
    assert not (folder.path / LOCK).exists()  # so that nobody takes it for a killed one's
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert sweep() == 0
    assert folder.path.exists()


def test_owners_that_come_and_go_keep_their_folders_while_others_sweep(temporary):
    over, wrong = threading.Event(), []

    def sweeps():
        while not over.is_set():
            if sweep():
                wrong.append("a folder of a living owner")

    threads = [threading.Thread(target=sweeps) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        folder = OwnedFolder.make()
        (folder.path / "inside").touch()
        assert (folder.path / LOCK).exists()
        assert (folder.path / "inside").exists()
        folder.remove()
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not os.listdir(temporary)
