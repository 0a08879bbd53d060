"""The table of a run: what a kill leaves of it, what is read from its end, what it refuses."""

import errno
import json

import pytest

from noiselaw.metrics import MetricsLog, read_kind, read_latest, read_rows


def rows(*steps, kind="train"):
    return [{"kind": kind, "step": step, "loss": 1.0 / step} for step in steps]


def write(path, *parts):
    path.write_text("".join(part if isinstance(part, str) else json.dumps(part) + "\n" for part in parts))


def test_rows_are_appended_and_later_ones_cut_back_on_resuming(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log.append(rows(1, 2, 3))
    log.close()
    log = MetricsLog(path, 2)
    log.append(rows(3, 4))
    log.sync()
    log.close()
    assert read_rows(path) == rows(1, 2, 3, 4)
    assert read_rows(path, "validation") == []
    assert read_rows(tmp_path / "absent.jsonl") == []


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, *rows(1, 2), '{"kind": "train", "step": 3')
    assert read_rows(path) == rows(1, 2)
    assert read_latest(path) == {"train": rows(2)[0]}
    MetricsLog(path, 2).close()
    assert read_rows(path) == rows(1, 2)


def test_the_latest_row_of_each_kind_is_found_however_far_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    validation = rows(5, kind="validation")[0]
    write(path, *rows(*range(1, 6)), validation, *rows(*range(6, 3000)), *rows(2999, kind="speed"))
    latest = read_latest(path)
    assert latest == {"train": rows(2999)[0], "validation": validation, "speed": rows(2999, kind="speed")[0]}
    write(path)
    assert read_latest(path) == {}
    assert read_latest(tmp_path / "absent.jsonl") == {}


def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, rows(1)[0], '{"kind": "tr\n', rows(2)[0])
    with pytest.raises(ValueError, match=r"metrics.jsonl: damaged .*; restore the file, or move its run's folder away"):
        read_rows(path)


def test_numbers_that_json_lacks_are_refused(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append([{"kind": "train", "step": 1, "loss": float("nan")}])
    log.close()
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_a_full_disk_names_the_table(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log._stream.close()
    log._stream = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(OSError, match=r"cannot write .*metrics.jsonl: No space left on device; free space") as caught:
        log.append(rows(1))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=r"metrics.jsonl: No space left"):
        log.close()
    assert (tmp_path / "metrics.jsonl").stat().st_size == 0


def test_rows_of_one_kind_are_found_without_the_others(tmp_path):
    path = tmp_path / "metrics.jsonl"
    speeds, validations = rows(1, 4, kind="speed"), rows(2, 3, 9, kind="validation")
    write(path, speeds[0], *rows(1, 2), *validations, *rows(9), speeds[1], '{"kind": "speed", "step": 5')
    for kind in ("train", "validation", "speed"):
        assert read_kind(path, kind) == read_rows(path, kind)
    assert read_kind(tmp_path / "absent.jsonl", "train") == []
    for content in ("", '{"kind": "train"', "\n"):
        write(path, content)
        assert read_kind(path, "train") == []
    write(path, rows(1)[0], '{"kind": "speed", "st\n', rows(2)[0])
    assert read_kind(path, "train") == rows(1, 2)
    with pytest.raises(ValueError, match=r"metrics.jsonl: damaged .*; restore the file"):
        read_kind(path, "speed")
