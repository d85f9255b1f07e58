"""A setting that a command writes into the operator's file: every other line stays as it is."""

from pathlib import Path

import pytest
from dotenv import dotenv_values

from miner.errors import ConfigurationError
from miner.settings.env_file import set_in_file, try_file


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "MODEL_URL=new\n"),
        ("NETUID=72", "NETUID=72\nMODEL_URL=new\n"),
        ("MODEL_URL=\n", "MODEL_URL=new\n"),
        ("A=1\n\nMODEL_URL=old  # mine\n# last", "A=1\n\nMODEL_URL=new  # mine\n# last"),
        ("export MODEL_URL='old one' # mine\nB=2\n", "export MODEL_URL=new # mine\nB=2\n"),
        ("#MODEL_URL=old\n", "#MODEL_URL=old\nMODEL_URL=new\n"),
        ('NOTE="a\nMODEL_URL=old\n"\nMODEL_URL = "old"\n', 'NOTE="a\nMODEL_URL=old\n"\nMODEL_URL =new\n'),
        ("MODEL_URL=a\nMODEL_URL=b\n", "MODEL_URL=new\nMODEL_URL=new\n"),
        ("MODEL_URLS=a\nmodel_url=b\n", "MODEL_URLS=a\nmodel_url=new\n"),
    ],
)
def test_a_setting_is_written_and_every_other_line_stays(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "miner.env"
    file.write_text(before)
    set_in_file(file, "MODEL_URL", "new")
    assert file.read_text() == after
    values = {key.upper(): value for key, value in dotenv_values(file).items()}
    assert values["MODEL_URL"] == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_settings_file_that_is_a_link_or_not_there(tmp_path: Path) -> None:
    real, link = tmp_path / "real.env", tmp_path / "link.env"
    real.write_text("NETUID=72\n")
    link.symlink_to(real)
    set_in_file(link, "MODEL_URL", "new")
    assert (link.is_symlink(), real.read_text()) == (True, "NETUID=72\nMODEL_URL=new\n")
    set_in_file(tmp_path / "fresh.env", "MODEL_URL", "new")
    assert (tmp_path / "fresh.env").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match=r"nowhere"):
        set_in_file(tmp_path / "nowhere" / "x.env", "MODEL_URL", "new")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"A=1\r\nMODEL_URL=old # c\r\nB=2\r\n", b"A=1\r\nMODEL_URL=new # c\r\nB=2\r\n"),
        (b"A=1\r\nB=2", b"A=1\r\nB=2\r\nMODEL_URL=new\r\n"),
        (b"\xef\xbb\xbfA=1\r\nMODEL_URL=old\n", b"\xef\xbb\xbfA=1\r\nMODEL_URL=new\n"),
    ],
)
def test_ends_of_lines_and_the_mark_of_the_order_of_bytes_stay(tmp_path: Path, before: bytes, after: bytes) -> None:
    file = tmp_path / "miner.env"
    file.write_bytes(before)
    set_in_file(file, "MODEL_URL", "new")
    assert file.read_bytes() == after
    assert dotenv_values(file)["MODEL_URL"] == "new"


def test_a_try_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "miner.env"
    try_file(file)
    assert list(tmp_path.iterdir()) == []
    file.write_bytes(b"A=1\r\n")
    file.chmod(0o640)
    try_file(file)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"A=1\r\n", 0o640)
    (tmp_path / "miner.env.partial").mkdir()
    with pytest.raises(ConfigurationError, match=r"miner\.env"):
        try_file(file)
