"""The parts of a report: bounded, and a file that can't be had is no reason to give none."""

import os
from pathlib import Path

import pytest

from miner.support import bundle


def fill(folder: Path) -> list[Path]:
    (folder / "recorder").mkdir()
    paths = [folder / "recorder" / f"requests-{number}.jsonl" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_text("".join(f"{number}{line}\n" for line in range(10)))  # 30 bytes each
    return paths


def test_the_last_lines_are_taken_and_no_half_of_one(tmp_path: Path) -> None:
    fill(tmp_path)
    texts = bundle.recorded_texts(tmp_path, 50)
    assert list(texts) == ["recorder/requests-2.jsonl", "recorder/requests-3.jsonl"]
    assert texts["recorder/requests-3.jsonl"].split() == [f"3{line}" for line in range(10)]
    assert texts["recorder/requests-2.jsonl"].split() == [f"2{line}" for line in range(4, 10)]
    assert bundle.last_lines(tmp_path / "recorder" / "requests-1.jsonl", 6) == "18\n19\n"  # at the seam of two


def test_a_segment_that_went_meanwhile_or_is_not_ours_to_read(tmp_path: Path) -> None:
    first, second, third, _ = fill(tmp_path)
    first.unlink()
    first.symlink_to(tmp_path / "gone")
    second.unlink()
    second.mkdir()  # as root, who reads every file, tests it
    texts = bundle.recorded_texts(tmp_path)
    assert list(texts) == [f"recorder/requests-{number}.jsonl" for number in (1, 2, 3)]
    assert texts["recorder/requests-1.jsonl"].startswith("can't be read: ")
    assert texts[f"recorder/{third.name}"].startswith("20")


@pytest.mark.parametrize(("script", "said"), [("sleep 5", "was silent for 0.2 s"), ("exit 1", "nothing of")])
def test_a_journal_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    journal = tmp_path / "journalctl"
    journal.write_text(f"#!/bin/sh\nexec {script}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    journal.chmod(0o755)
    assert said in bundle.log_text(None, 0.2)
    journal.write_text("no program")
    assert "can't be asked" in bundle.log_text(None, 0.2)
