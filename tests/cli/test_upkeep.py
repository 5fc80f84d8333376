"""verify, rebuild and gc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from sqlalchemy import delete

from steerlab.cli import ExitCode, upkeep
from steerlab.core.vector import SteeringVector
from steerlab.registry import Store
from steerlab.registry.tables import VECTOR
from steerlab.registry.upkeep.verify import Damage, Finding, _Audit
from tests.cli.test_output import in_terminal
from tests.tui.emulator import Emulator


def payload_of(store, ref):
    return next((store.path / "payloads").rglob(f"{store.record(ref).digest}.safetensors"))


def lose_row(store, name):
    """Leave a payload without its row, as a crash between the two would."""
    with store._database.writing() as work:
        work.connection.execute(delete(VECTOR).where(VECTOR.c.name == name))


def test_verify_finds_nothing_in_a_whole_store(cli):
    result = cli("verify")
    assert (result.code, result.out) == (ExitCode.OK, "")
    assert result.err == "4 vectors verified, no problems found\n"
    assert cli("verify", "-q").err == ""
    assert cli("verify", "--json").data == []


def test_verify_finds_an_altered_payload(cli, store):
    path = payload_of(store, "love")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\x80\x3f")
    result = cli("verify")
    assert result.code == ExitCode.FAILED
    assert result.out.splitlines()[0].split() == ["vector", "problem"]
    assert "tiny.love.v1" in result.out
    told = cli("verify", "--json")
    assert told.code == ExitCode.FAILED
    fixes = {problem["ref"]: problem["fix"] for problem in json.loads(told.out)}
    assert fixes["tiny.love.v1"] == Damage.ALTERED.fix
    assert {*json.loads(told.out)[0]} == {"ref", "problem", "fix"}  # as `doctor --json` says it


def alter(store, ref):
    path = payload_of(store, ref)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\x80\x3f")


@pytest.fixture
def on_checking(monkeypatch):
    """Calls what it is given with the ref of each vector that is to be checked now."""

    def call(what):
        real = _Audit.findings

        def findings(self, stored):
            what(stored.qualified)
            return real(self, stored)

        monkeypatch.setattr(_Audit, "findings", findings)

    return call


def problems_in(out):
    """The refs of the lines under the heading."""
    heading, *lines = out.splitlines()
    assert heading == "vector  problem"
    return [line.split("  ")[0] for line in lines]


def test_each_problem_is_printed_as_it_is_met(cli, store, capsys, on_checking):
    alter(store, "love")
    alter(store, "front")
    said, order = [], []
    on_checking(lambda ref: (said.append(capsys.readouterr().out), order.append(ref)))
    last = cli("verify")
    said = [*said[1:], last.out]  # what is said once a vector is checked
    ill = {"tiny.love.v1", "tiny.front.v1", "tiny.warm.v1"}  # warm was made from love
    assert "".join(said).startswith("vector  problem\n")
    checked = [*order]
    for ref, out in zip(checked, said, strict=True):
        assert (f"{ref}  " in out) == (ref in ill), (checked, said)
    assert (last.code, last.err) == (
        ExitCode.FAILED,
        "3 problems found: `steerlab doctor` explains\n",
    )
    assert cli("verify", "-q").err == ""
    assert [p["ref"] for p in json.loads(cli("verify", "--json").out)] == [
        r for r in checked if r in ill
    ]


WATCHED = """
import sys
from steerlab.cli import run
from steerlab.registry.upkeep.verify import _Audit
real = _Audit.findings
def findings(self, stored):
    print("checking", stored.qualified, file=sys.stderr, flush=True)
    return real(self, stored)
_Audit.findings = findings
sys.exit(run(["verify"]))
"""


def test_in_a_pipe_a_problem_is_there_before_the_next_vector_is_checked(store, first):
    ref, path = first
    path.unlink()
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([sys.executable, "-c", WATCHED], **both, text=True)
    assert done.returncode == ExitCode.FAILED
    begun, heading, problem, then, *_ = done.stdout.splitlines()
    assert (begun, heading) == (f"checking {ref}", "vector  problem")
    assert problem.startswith(f"{ref}  ")
    assert then.startswith("checking ")


def test_in_a_terminal_the_problems_stand_above_where_the_bar_was(store):
    alter(store, "love")
    alter(store, "front")
    screen = Emulator(70, 60)
    shown = in_terminal(store.path, "verify", columns=70, code=ExitCode.FAILED)
    assert "verifying" in shown
    screen.feed(shown.encode())
    heading, *lines, last = str(screen).rstrip().splitlines()
    assert heading == "vector  problem"
    assert last == "3 problems found: `steerlab doctor` explains"
    starts = [line for line in lines if not line.startswith(" ")]  # the rest is folded
    assert sorted(line.split()[0] for line in starts) == [
        "tiny.front.v1",
        "tiny.love.v1",
        "tiny.warm.v1",
    ]
    assert all("verifying" not in line and "━" not in line and line.strip() for line in lines)


def test_a_pipe_gets_the_problems_while_the_bar_is_in_the_terminal(store, tmp_path):
    alter(store, "front")
    with open(tmp_path / "out", "wb") as out:
        shown = in_terminal(store.path, "verify", code=ExitCode.FAILED, stdout=out)
    assert problems_in((tmp_path / "out").read_text()) == ["tiny.front.v1"]
    assert "verifying" in shown
    assert "tiny.front.v1" not in shown


def mended_later(store, ref, on_checking, mend):
    """As soon as a vector was found to be ill, others mend it and store one of theirs."""
    love, checked = store.load("love"), []
    theirs = SteeringVector({1: 2 * love.directions[1]}, model=love.model, recipe=love.recipe)

    def look(now):
        if checked == [ref]:
            mend()
            Store(store.path).save("theirs", theirs)
        checked.append(now)

    on_checking(look)


@pytest.fixture
def first(store):
    """The vector that is checked first, and its payload."""
    listed = min(store.list(), key=lambda s: str(payload_of(store, s.ref)))
    return listed.qualified, payload_of(store, listed.ref)


def test_a_problem_that_is_none_in_the_end_is_withdrawn(cli, store, first, on_checking):
    ref, path = first
    whole = path.read_bytes()
    mended_later(store, ref, on_checking, lambda: path.write_bytes(whole))
    path.unlink()
    result = cli("verify")
    *said, last = result.out.splitlines()
    assert problems_in("\n".join(said))[0] == ref
    assert last.startswith("withdrawn, as another process changed the store: problems of ")
    assert ref in last
    assert (result.code, result.err) == (0, "5 vectors verified, no problems found\n")


def test_what_holds_in_the_end_is_told_after_what_is_withdrawn(cli, store, first, on_checking):
    ref, path = first
    whole = path.read_bytes()
    elsewhere = path.with_name("elsewhere.safetensors")
    mended_later(store, ref, on_checking, lambda: elsewhere.write_bytes(whole))
    path.unlink()
    result = cli("verify")
    lines = result.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("withdrawn"))
    assert ref in lines[at]
    assert any(line.startswith(f"{ref}  it lies in ") for line in lines[at + 1 :])
    assert result.code == ExitCode.FAILED
    assert "found: `steerlab doctor`" in result.err.splitlines()[-1]


def test_a_line_of_what_is_withdrawn_names_the_first(capsys):
    printer = upkeep._Printer()
    for number in range(7):
        printer(Finding(f"tiny.x{number}.v1", "is gone", Damage.MISSING))
    printer.settle(())
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith(
            "problems of tiny.x0.v1, tiny.x1.v1, tiny.x2.v1, tiny.x3.v1, tiny.x4.v1 and 2 more"
        )
    )


def test_stdout_that_takes_no_more_is_not_taken_for_the_stores_disk(store):
    alter(store, "love")
    command = [sys.executable, "-m", "steerlab", "verify"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `| head -0` does
        assert process.stderr.read() == b""
    assert process.returncode == ExitCode.FAILED
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
        assert done.stderr == b"steerlab: No space left on device\n"
        assert done.returncode == ExitCode.FAILED


def test_an_altered_or_cut_payload_is_never_used(refused, store):
    path = payload_of(store, "love")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\x80\x3f")
    assert "love" in refused(ExitCode.STORE, "compose", "2*love")
    path.write_bytes(whole[: len(whole) // 2])
    refused(ExitCode.STORE, "compose", "2*love")
    path.write_bytes(whole[:4])
    refused(ExitCode.STORE, "generate", "hi", "-v", "love")
    path.unlink()
    assert "missing" in refused(ExitCode.NOT_FOUND, "compose", "2*love")


def test_rebuild_brings_back_a_lost_or_broken_registry(cli, store):
    (store.path / "registry.db").write_bytes(b"no database" * 1000)
    for rest in store.path.glob("registry.db-*"):
        rest.unlink()
    result = cli("rebuild")
    assert result.code == ExitCode.OK, result.err
    assert result.out.startswith("4 vectors restored from the payloads of")
    assert cli("verify").code == ExitCode.OK


def test_a_broken_registry_is_one_line(cli, store):
    (store.path / "registry.db").write_bytes(b"no database" * 1000)
    for rest in store.path.glob("registry.db-*"):
        rest.unlink()
    result = cli("list")
    assert result.code == ExitCode.STORE
    assert result.err.count("\n") == 1
    assert "rebuild" in result.err


def test_gc_lists_then_deletes(cli, store):
    assert cli("gc").err == "nothing to delete\n"
    path = payload_of(store, "front")
    lose_row(store, "front")
    assert cli("gc").err == "nothing to delete\n"  # too young
    time.sleep(0.01)
    listed = cli("gc", "--grace", "0")
    assert path.name in listed.out
    assert listed.err == "1 file would be deleted (--delete does it)\n"
    assert path.exists()
    assert cli("gc", "--grace", "0", "--delete").err == "1 file deleted\n"
    assert not path.exists()
    assert cli("verify").code == ExitCode.OK


def test_gc_names_removed_vectors_and_undo_can_not_bring_back_what_it_deleted(cli, store):
    path = payload_of(store, "front")
    assert cli("remove", "front").err.startswith("`steerlab undo` brings it back")
    assert cli("doctor").err.startswith("no problems found")  # too young
    os.utime(path, (1, 1))
    assert "payloads of removed vectors" in cli("doctor").out
    assert "tiny.front.v1 (removed)" in cli("gc", "--grace", "0").out
    cli("gc", "--grace", "0", "--delete")
    result = cli("undo")
    assert result.code == ExitCode.STORE
    assert "gc deleted the payload of front.v1" in result.err


def test_gc_deletes_extractions_that_were_abandoned(cli, store, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path / "cache"))
    held = tmp_path / "cache" / "extractions" / "ab"
    held.mkdir(parents=True)
    (held / "values").write_bytes(b"x" * 70)
    assert cli("gc").err == "nothing to delete\n"  # it may go on
    os.utime(held / "values", (0, 0))
    listed = cli("gc")
    assert "a stopped extraction" in listed.out
    assert held.exists()
    assert cli("gc", "--delete").err == "1 file deleted\n"
    assert not held.exists()


def test_a_moved_store_is_the_same(cli, store, tmp_path):
    shutil.move(store.path, tmp_path / "elsewhere")
    assert cli("verify", "--store", tmp_path / "elsewhere").code == ExitCode.OK
