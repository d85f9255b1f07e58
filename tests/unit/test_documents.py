"""What the documents promise."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from dotenv import dotenv_values

from detectors.base import RunOptions
from detectors.evaluation.reward import expected_reward
from detectors.load import load_detector
from detectors.models.config import read_config
from miner import __version__
from miner.cli import COMMANDS, load
from miner.settings.settings import Settings, setting_names
from tests.tables import CONTRIBUTING, TABLES, with_table
from tests.tools import make_help
from tests.unit.test_architecture import ORDER

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
FOLDERS = (".github", "env", "detectors", "deploy", "tests")
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
}
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
every_document = pytest.mark.parametrize("name", DOCUMENTS)
MOST_LINES, MOST_WORDS = 150, 30  # of README.md, and of a sentence in it
MOST_WORDS_ELSEWHERE = 40
LONG = 12  # words: what two documents share by chance is shorter
EXAMPLES = sorted((ROOT / "env").glob("*.env"))


def test_there_is_an_example_for_each_network() -> None:
    networks = {path.stem: Settings.load(path) for path in EXAMPLES}
    assert {stem: (settings.subtensor_network, settings.netuid) for stem, settings in networks.items()} == {
        "standalone": ("standalone", 323),
        "testnet": ("test", 323),
        "mainnet": ("finney", 72),
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_key_of_an_example_is_known_and_has_one_comment_line(path: Path) -> None:
    assert Settings.load(path).notes(path) == []
    lines = path.read_text().splitlines()
    keys = [index for index, line in enumerate(lines) if not line.startswith("#")]
    assert len(lines) == 2 * len(keys)
    for index in keys:
        assert re.match(r"[A-Z_]+=", lines[index]), lines[index]
        assert lines[index - 1].startswith("# ")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_means_the_same_to_systemd_which_knows_no_inline_comments(path: Path) -> None:
    for key, value in dotenv_values(path).items():
        assert f"{key}={value}" in path.read_text().splitlines()


@pytest.mark.parametrize("name", TABLES)
def test_a_documents_table_is_what_the_code_says(name: str) -> None:
    for make in TABLES[name]:
        assert with_table(DOCUMENTS[name], make()) == DOCUMENTS[name], "`make tables` writes it"


def test_the_newcomers_questions_are_answered_by_a_room_and_a_module() -> None:
    rows = re.findall(r"^\| … .+\? \| `([\w/]+)` \| `(\w+\.py)` \|$", DOCUMENTS[CONTRIBUTING], flags=re.MULTILINE)
    assert len(rows) == 10
    tops = {f"{package}/" for package in ORDER}
    rooms = tops | {f"{package}/{room}/" for package in ORDER for room in ORDER[package].split()}
    assert {room for room, _ in rows} <= rooms
    assert [(room, module) for room, module in rows if not (ROOT / room / module).is_file()] == []


def test_the_readme_is_short_and_so_are_its_sentences() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    assert [one for one in sentences(README) if len(one.split()) > MOST_WORDS] == []


@every_document
def test_sentences_are_short(name: str) -> None:
    assert [one for one in sentences(DOCUMENTS[name]) if len(one.split()) > MOST_WORDS_ELSEWHERE] == []


@every_document
def test_no_cell_waits_for_its_figure(name: str) -> None:
    """While a measurement runs, a word in capitals stands for what it will say; one was handed in."""
    cells = [cell.strip() for line in DOCUMENTS[name].splitlines() if line.startswith("|") for cell in line.split("|")]
    assert [cell for cell in cells if re.fullmatch(r"[A-Z]{5,}( .*)?", cell)] == []


def sentences(document: str) -> list[str]:
    """Return the sentences of a document, code in fences and the addresses of links left out."""
    text = re.sub(r"\]\([^)]*\)", "]", FENCED.sub("\n\n", document))
    parts = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.|#+)\s|\||(?<=[.?!])\s", text, flags=re.MULTILINE)
    return [" ".join(part.split()) for part in parts if part.strip()]


def test_sentences_are_told_apart() -> None:
    text = "# A title\n\nOne two\nthree. Four [five](six.md): `a b`?\n\n```sh\nno words\n```\n- seven | eight\n1. nine"
    assert sentences(text) == ["A title", "One two three.", "Four [five]: `a b`?", "seven", "eight", "nine"]


def test_no_document_repeats_another() -> None:
    said = Counter(one for text in DOCUMENTS.values() for one in set(sentences(text)) if len(one.split()) >= LONG)
    assert [one for one, count in said.items() if count > 1] == []


@every_document
def test_links_lead_to_files_and_headings_that_are_there(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", FENCED.sub("", DOCUMENTS[name])):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        place = (ROOT / name).parent / file if file else ROOT / name
        assert place.exists(), target
        assert not heading or heading in headings(place), target


def headings(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@every_document
def test_paths_that_are_named_are_there(name: str) -> None:
    text = re.sub(r"`[\w./]+`:(?=\n\n```python)", "", DOCUMENTS[name])  # the files that recipes make
    inline = re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    paths = [one for one in inline if re.fullmatch(r"(?:miner|detectors|tests|deploy|env|\.github)/[\w/.-]*", one)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    run = {ROOT / one.replace(".", "/") for one in re.findall(r"python -m ([\w.]+)", DOCUMENTS[name])}
    assert [str(one) for one in run if not (one.with_suffix(".py").is_file() or (one / "__main__.py").is_file())] == []


@every_document
def test_commands_and_their_flags_in_the_documents_exist(name: str) -> None:
    for command, rest in re.findall(r"roadwork-miner ([a-z]+)((?: [^`|\n#]+)?)", DOCUMENTS[name]):
        assert command in {known for group in COMMANDS.values() for known in group}
        parsed, words = load(command), rest.split()
        if hasattr(parsed, "commands") and words:
            parsed = parsed.commands[words[0]]
        known = {flag for option in parsed.params for flag in option.opts} | {"--help"}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, f"{command}{rest}"


def test_the_shipped_photo_shows_roadwork_to_the_shipped_detector() -> None:
    (photo,) = set(re.findall(r"`(deploy/images/[\w.]+\.jpg)`", README))
    assert f"or $(IMAGE),{photo})" in (ROOT / "Makefile").read_text()
    detector = load_detector("ViT", read_config("starter.yaml"), Path("unused"), "onnx", RunOptions())
    said = re.search(rf"^{re.escape(photo)}: roadwork ([\d.]+)", README, flags=re.MULTILINE)
    assert said is not None
    assert detector.predict((ROOT / photo).read_bytes()).probability == pytest.approx(float(said[1]), abs=1e-3)


def test_the_rewards_that_the_readme_names_are_the_validators() -> None:
    accuracies_and_rewards = re.search(
        r"From (\d+) % to (\d+) % accuracy the reward goes from ([\d.]+) to ([\d.]+\d)", DOCUMENTS["README.md"]
    )
    assert accuracies_and_rewards is not None
    low, high, least, most = map(float, accuracies_and_rewards.groups())
    for accuracy, reward in ((low / 100, least), (high / 100, most)):
        assert expected_reward(accuracy, accuracy) == pytest.approx(reward, abs=0.005)


def test_the_version_is_one_and_the_changelog_has_it() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    versions = re.findall(r"^## \[(.+?)\]", DOCUMENTS["CHANGELOG.md"], flags=re.MULTILINE)
    assert next(one for one in versions if one != "Unreleased") == __version__


def test_make_targets_in_the_documents_exist_and_each_has_a_help_text() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):.*## \S", makefile, flags=re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split())  # type: ignore[index]
    assert targets == phony
    documents = list(DOCUMENTS.values())
    named = {name for text in documents for name in re.findall(r"\bmake ([a-z][a-z-]+)\b(?=[`\s.,:)]|$)", text)}
    in_code = {name for name in named if any(f"make {name}" in code for text in documents for code in _code(text))}
    assert in_code <= targets


def test_variables_of_make_in_the_documents_are_read() -> None:
    scripts = (ROOT / "deploy" / "systemd").glob("*.sh")
    readers = "\n".join(path.read_text() for path in [ROOT / "Makefile", *scripts])
    given = {
        (name, variable)
        for name, text in DOCUMENTS.items()
        for line in re.findall(r"\bmake [a-z][^`\n]*", text)
        for variable in re.findall(r" ([A-Z_]+)=", line)
    }
    assert {one for _, one in given} >= {"ARGS", "DATA", "ENV", "ENV_FILE", "HOTKEY", "RELEASE"}
    unknown = {one for one in given if not re.search(rf"\$[({{]?{one[1]}\b|\b{one[1]}\b *\?=", readers)}
    assert {one for one in unknown if one[1] not in setting_names()} == set()  # which make hands on to the miner


def _code(text: str) -> list[str]:
    return re.findall(r"```.*?```|`[^`]+`", text, flags=re.DOTALL)


def test_make_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None
    assert {line.split()[0] for line in make_help(ROOT).splitlines()} == set(phony[1].split())


def test_ci_calls_the_readmes_test_command() -> None:
    assert "make test" in README
    script = (ROOT / ".ci" / "run").read_text()
    assert script.rstrip().endswith("make test")
    packages = re.search(r"^apt-get install --no-install-recommends (.*)$", DOCUMENTS["tests/README.md"], re.MULTILINE)
    assert packages is not None
    installed = re.findall(r"missing\+=\(([a-z0-9-]+)\)", script) + re.findall(r" \w[\w-]*:([\w-]+)", script)
    assert sorted(installed) == sorted(packages[1].split())


def test_the_pins_agree() -> None:
    serve = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "env" / "serve.txt").read_text(), flags=re.MULTILINE))
    everything = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "env" / "constraints.txt").read_text(), re.MULTILINE)
    )
    assert {name: everything.get(name) for name in serve} == serve
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in needed} <= set(serve)  # type: ignore[index]


def test_what_evaluates_is_locked_besides_and_has_no_torch() -> None:
    locked = (ROOT / "env" / "eval.txt").read_text()
    found = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", locked, flags=re.MULTILINE))
    everything = (ROOT / "env" / "constraints.txt").read_text().splitlines()
    assert {f"{name}=={version}" for name, version in found.items()} <= set(everything)
    serve = re.findall(r"^([a-z0-9-]+)==", (ROOT / "env" / "serve.txt").read_text(), flags=re.MULTILINE)
    assert not set(found) & {*serve, "torch"}
    assert locked.count("--hash=sha256:") >= len(found)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in extras["eval"]}  # type: ignore[index]
    assert named <= set(found)
    assert set(extras["eval"]) <= set(extras["train"]), "`make setup-all` has all of it"
