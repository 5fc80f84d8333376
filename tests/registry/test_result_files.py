"""Result files: calibrations and evaluations outlive the registry and travel with vectors."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from steerlab.core.record import now
from steerlab.core.results import Calibration
from steerlab.errors import CorruptPayload
from steerlab.files import durable
from steerlab.registry import Store, result_files
from steerlab.registry.transfer import archive
from steerlab.registry.upkeep.verify import Damage
from tests.fuzz.hostile import change_bytes
from tests.registry.test_sweeps import WORKS, fill, kept


def lose_registry(store: Store) -> Store:
    for file in store.path.glob("registry.db*"):
        file.unlink()
    return Store(store.path)


def measured(store: Store) -> list[object]:
    return [*store.results.calibrations(), *store.results.evaluations()]


def test_a_lost_registry_has_its_results_back_from_their_files(family):
    fill(family)
    assert family.verify() == []
    again = lose_registry(family)
    assert measured(again) == measured(family) != []
    assert again.results.calibration("love") == family.results.calibration("love")
    assert again.verify() == []
    assert again.upkeep.gc(grace=timedelta(0)) == []


def test_files_that_came_without_the_registry_are_told_and_taken_in(family):
    """A pull brings result files into a store that is in use."""
    made = replace(WORKS, digest=family.record("love").digest, created=now())
    data = result_files.encoded(made)
    durable.write(family.path / result_files.path_of(data), data)
    (new,) = family.upkeep.unlisted_results()
    assert result_files.key(new) == result_files.key(made)
    assert any("registry does not know" in problem.what for problem in family.upkeep.diagnose())
    assert family.verify() == []
    family.upkeep.rebuild()
    assert family.results.calibration("love") == made
    assert family.upkeep.unlisted_results() == []


def test_a_result_that_is_saved_meanwhile_is_no_file_from_elsewhere(family, monkeypatch):
    read_all, made = result_files.read_all, Calibration(family.record("love").digest, False)

    def slow(*where):
        family.results.save_calibration(made)
        return read_all(*where)

    monkeypatch.setattr(result_files, "read_all", slow)
    assert family.upkeep.unlisted_results() == []


def test_results_come_along_in_an_archive_once(family, tmp_path):
    fill(family)
    family.results.save_calibration(Calibration(family.record("anger").digest, False))
    family.transfer.export("love", tmp_path / "a.tar")
    other = Store(tmp_path / "other")
    for _ in range(2):
        other.transfer.import_(tmp_path / "a.tar")
        assert measured(other) == kept(family)[2] + kept(family)[3]
    assert other.verify() == []
    assert measured(lose_registry(other)) == measured(other)


def test_a_result_that_is_not_whole_is_left_out_and_written_again_from_its_row(family, caplog):
    fill(family)
    file, other = result_files.result_files(family.path)
    file.write_bytes(file.read_bytes().replace(b"2", b"3"))
    other.unlink()
    assert {f.damage for f in family.verify()} == {Damage.RESULT}
    family.upkeep.rebuild()
    assert "was altered" in caplog.text
    assert family.verify() == []
    assert len(measured(lose_registry(family))) == 2


def test_a_result_that_the_tables_refuse_is_left_out_or_not_imported(family, tmp_path, caplog):
    made = replace(WORKS, digest=family.record("love").digest, created="yesterday")
    family.transfer.export("love", tmp_path / "whole.tar")
    data = result_files.encoded(made)
    with archive.create(tmp_path / "a.tar") as writer:
        for name, file in archive.unpack(tmp_path / "whole.tar", lambda _: tmp_path / "one"):
            writer.add(name, file.read_bytes())
        writer.add(result_files.path_of(data), data)
    with pytest.raises(CorruptPayload, match="created"):
        Store(tmp_path / "other").transfer.import_(tmp_path / "a.tar")
    durable.write(family.path / result_files.path_of(data), data)
    assert measured(lose_registry(family)) == []
    assert "left out: a result of" in caplog.text


RESULT = json.loads(result_files.encoded(replace(WORKS, created="2026-01-01")))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"evaluation": {}},
        {"calibration": {**RESULT["calibration"], "digest": 5}},
        {"calibration": {**RESULT["calibration"], "operation": "sing"}},
        {"calibration": {**RESULT["calibration"], "safe": [1]}},
        {"calibration": {**RESULT["calibration"], "safe": [2, 1]}},
        {"calibration": {**RESULT["calibration"], "more": 1}},
    ],
)
def test_a_result_file_of_another_shape_is_refused(change):
    with pytest.raises(CorruptPayload, match="is no result file"):
        result_files.parsed(json.dumps({**RESULT, **change}).encode(), "x")


def test_bytes_of_a_result_file_that_changed_are_read_or_refused():
    data, random = json.dumps(RESULT).encode(), Random(5)
    for _ in range(300):
        with contextlib.suppress(CorruptPayload):
            assert result_files.parsed(change_bytes(random, data, data), "x")
