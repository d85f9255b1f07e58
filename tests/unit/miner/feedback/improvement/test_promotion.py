"""A settings file is edited and put back byte by byte; what does not count is said and left alone."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback.improvement.promotion import (
    MODEL,
    SHADOW,
    ChosenModel,
    Lines,
    ReloadEnd,
    SettingsPlace,
    file_to_edit,
    promote,
    set_shadow,
)
from miner.metrics import graph_hash
from miner.settings.env_file import in_quotes, read_file, spelt, with_lines
from miner.settings.origins import Origin
from miner.settings.settings import Settings
from tests.process.graphs import write_model

TEXT = (
    '\ufeff# mine\r\n\n  export IMAGE_DETECTOR = "ViT"\t# a kind\r\nNETUID=323\n\n'
    "IMAGE_DETECTOR_CONFIG=a b.yaml # old\nX=$Y"
)
CANDIDATE = ChosenModel("ViT", "/state dir/new.yaml")


class Miner:
    """What a reload comes to."""

    def __init__(self, file: Path, *ends: ReloadEnd | CouldNotStart | None) -> None:
        self.file, self.ends, self.seen = file, list(ends), list[str]()
        self.kept: list[Lines] = []

    def reload(self) -> ReloadEnd | None:
        self.seen.append(self.file.read_bytes().decode())
        end = self.ends.pop(0)
        if isinstance(end, CouldNotStart):
            raise end
        return end

    @property
    def place(self) -> SettingsPlace:
        return SettingsPlace(self.file, "", self.reload)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "miner.env"
    path.write_bytes(TEXT.encode())
    path.chmod(0o640)
    return path


def test_lines_are_changed_in_their_place_and_undone_as_they_were_spelt() -> None:
    lines: Lines = {**CANDIDATE.lines(MODEL), **CANDIDATE.lines(SHADOW)}
    before = {name: spelt(TEXT, name) for name in lines}
    assert before["IMAGE_DETECTOR"] == ' "ViT"'
    assert before["SHADOW_DETECTOR"] is None
    changed = with_lines(TEXT, lines)
    assert "IMAGE_DETECTOR_CONFIG='/state dir/new.yaml' # old\n" in changed
    assert "\t# a kind\r\n" in changed
    assert changed.endswith("SHADOW_DETECTOR_CONFIG='/state dir/new.yaml'\r\n")
    assert with_lines(changed, before) == TEXT + "\r\n"


@pytest.mark.parametrize("value", ["/a/b.yaml", "/a b/c.yaml", "it's", "a #b", "$HOME/x", "back\\slash"])
def test_a_value_in_quotes_is_read_as_it_was(tmp_path: Path, value: str) -> None:
    path = tmp_path / "miner.env"
    path.write_text(f"WALLET_NAME={in_quotes(value)}\n")
    assert Settings.load(path).wallet_name == value


def test_a_promotion_that_the_miner_takes_stays(file: Path, tmp_path: Path) -> None:
    from detectors.models.manifest import Manifest

    folder = write_model(tmp_path / "new").with_suffix("")
    miner = Miner(file, ReloadEnd(True, "new", graph_hash(Manifest.read(folder))))
    promote(miner.place, CANDIDATE.lines(MODEL), folder, miner.kept.append)
    assert "new.yaml" in file.read_text()
    assert miner.kept == [{"IMAGE_DETECTOR": ' "ViT"', "IMAGE_DETECTOR_CONFIG": "a b.yaml"}]
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "ends",
    [
        (ReloadEnd(False, "it is damaged"),),
        (CouldNotStart("another user's"),),
        (ReloadEnd(True, "old", "other sums"), ReloadEnd(True, "old", "other sums")),
    ],
)
def test_one_that_it_does_not_take_leaves_the_file_as_it_was(
    file: Path, tmp_path: Path, ends: tuple[ReloadEnd | CouldNotStart, ...]
) -> None:
    folder = write_model(tmp_path / "new").with_suffix("")
    miner = Miner(file, *ends)
    with pytest.raises(CouldNotStart):
        promote(miner.place, CANDIDATE.lines(MODEL), folder, miner.kept.append)
    assert "new.yaml" in miner.seen[0]
    assert file.read_bytes() == TEXT.encode()


def test_what_somebody_edits_meanwhile_stays(file: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "new").with_suffix("")

    def reload() -> ReloadEnd:
        file.write_bytes(file.read_bytes().replace(b"NETUID=323", b"NETUID=72"))
        return ReloadEnd(False, "it is damaged")

    with pytest.raises(CouldNotStart):
        promote(SettingsPlace(file, "", reload), CANDIDATE.lines(MODEL), folder, lambda _: None)
    assert file.read_bytes().decode() == TEXT.replace("323", "72")


def test_without_a_miner_the_file_is_edited_all_the_same(file: Path) -> None:
    miner = Miner(file, None)
    assert set_shadow(miner.place, CANDIDATE, miner.kept.append)[0]
    assert read_file(file).count("SHADOW_DETECTOR_CONFIG=") == 1
    assert miner.kept == [dict.fromkeys(SHADOW)]


def test_settings_from_elsewhere_are_left_alone(file: Path) -> None:
    def origins(**kinds: str) -> Mapping[str, Origin]:
        names = {key.lower(): "file" for key in (*MODEL, *SHADOW)} | kinds
        return {name: Origin(kind) for name, kind in names.items()}  # type: ignore[arg-type]

    assert file_to_edit(file, origins(shadow_detector="default")) == (file, "")
    for kind in ("environment", "flag", "unit"):
        found, why = file_to_edit(file, origins(image_detector_config=kind))
        assert found is None
        assert "IMAGE_DETECTOR_CONFIG" in why
    assert file_to_edit(None, origins())[0] is None
    assert file_to_edit(Path("/proc/self/fd/9"), origins())[0] is None
    nowhere = SettingsPlace(None, "no file", lambda: None)
    is_set, words = set_shadow(nowhere, CANDIDATE, lambda _: None)
    assert not is_set
    assert "SHADOW_DETECTOR_CONFIG='/state dir/new.yaml'" in words
    with pytest.raises(CouldNotStart):
        promote(nowhere, CANDIDATE.lines(MODEL), None, lambda _: None)


def test_a_file_that_is_no_text_is_named(file: Path) -> None:
    file.write_bytes(b"\xff\xfe=1")
    with pytest.raises(ConfigurationError):
        promote(Miner(file).place, CANDIDATE.lines(MODEL), None, lambda _: None)
