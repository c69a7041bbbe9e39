"""Every shipped YAML composes, and whatever is unknown is refused in one sentence that says what was meant."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from limit_lab import compose as room
from limit_lab.compose import compose, compose_node, config_dir
from limit_lab.config import Study
from limit_lab.errors import ConfigError
from limit_lab.grid import cells
from limit_lab.overrides import ADDED, expand, groups
from tests.folders import user_configs

FILES = sorted(config_dir().rglob("*.yaml"))
README = Path(__file__).resolve().parent.parent / "README.md"


def label(path: object) -> str:
    return path.relative_to(config_dir()).as_posix() if isinstance(path, Path) else str(path)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    return user_configs(tmp_path / "mine")


def refused(overrides: list[str], user: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(overrides, user)
    return str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        line.strip()
        for page in [README, *README.parent.glob("experiments/*/README.md")]
        for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        if line.startswith("    ") and "python -m limit_lab " in line and "--config-dir" not in line
    ],
)
def test_a_documented_command_composes(line: str) -> None:
    """What stands behind two blanks is a remark."""
    command = re.split(r"\s{2,}", line)[0].partition("-m limit_lab ")[2]
    overrides = shlex.split(command)
    assert cells(compose(overrides), overrides)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_yaml_opens_with_its_command_and_what_it_is(path: Path, user: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert (lines[0] == "# @package _global_") == (path.parent.name in ADDED), "Hydra reads the package in the first line only"
    command, what = lines[1:3] if path.parent.name in ADDED else lines[:2]
    assert command.startswith("# python -m limit_lab ")
    assert what.startswith("# ")
    assert what.endswith(".")
    overrides = shlex.split(command.removeprefix("# python -m limit_lab "))
    study = compose(overrides, user)
    if path.parent.name in Study.__dataclass_fields__:
        assert getattr(study, path.parent.name).name.startswith(path.stem), "the command does not use the file"
    elif path.parent.name in ADDED:
        assert f"+{path.parent.name}={path.stem}" in overrides


def test_the_default_study_is_the_micro_world(user: Path) -> None:
    study = compose([], user)
    assert (study.model.name, study.mixture.samples) == ("micro", {"lima": 1000, "instruct": 1000})
    assert study.prompt.format == "bare"


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("mixture=limaa", "did you mean 'lima'"),
        ("+experiment=micro_limt", "did you mean 'micro_limit'?"),
        ("mixture.lma=3", "no key 'mixture.lma'; did you mean 'mixture.samples.lima'?"),
        ("+mixture.lma=3", "no key 'mixture.lma'; did you mean 'mixture.samples.lima'?"),
        ("++mixture.lma=3", "did you mean 'mixture.samples.lima'?"),
        ("~mixture.lma", "did you mean 'mixture.samples.lima'?"),
        ("++seeed=4", "no key 'seeed'; did you mean 'seeds'"),
        ("+experimnt=x", "did you mean 'experiment'?"),
        ("+gird=g", "did you mean 'grid'?"),
        ("mixtur=lima", "did you mean 'mixture'?"),
        ("samples.lima=3", "'mixture.samples.lima'"),
        ("finetune.learning_rte=1", "did you mean 'finetune.learning_rate'?"),
        ("xyzzy=1", "known: answers, data,"),
        ("mixture.samples.lmia=3", "did you mean 'lima'?"),
        ("+mixture.samples.lmia=3", "did you mean 'lima'?"),
        ("data.sources.lima.kin=3", "did you mean 'data.sources.lima.kind'?"),
        ("gauntlet.tasks.0.shot=3", "did you mean 'gauntlet.shots' or 'gauntlet.tasks.*.shots'?"),
        ("prompt={fromat: bare}", "did you mean 'prompt.format'?"),
        ("+study.predicates=[{claims: x}]", "did you mean 'study.predicates.*.claim'?"),
        ("judge=ground", "did you mean 'ground_truth'?"),
        ("mixture=null", "mixture has no option 'null'"),
        ("do=stud", "did you mean 'study' or 'status'?"),
    ],
)
def test_a_typo_is_one_sentence_with_what_was_meant(override: str, meant: str, user: Path) -> None:
    sentence = refused([override], user)
    assert meant in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        (
            "mixture.samples.lima=abc",
            "mixture.samples.lima=abc: Value 'abc' of type 'str' could not be converted to Integer",
        ),
        ("finetune.betas=3", "finetune.betas=3: Invalid value"),
        ("experiment=micro_limit", "write +experiment=micro_limit"),
        ("+mixture=lima", "write mixture=lima"),
        ("~mixture", "a group cannot be removed"),
        ("~seeds.subset", "only an entry of a dictionary can be removed"),
        ("mixture={samples: {lima: 3}}", "mixture is a group"),
        ("judge@x=length", "packages are not used"),
        ("hydra.run.dir=x", "limit_lab composes with Hydra but runs no Hydra job"),
        ("mixture=lima,none", "add -m"),
        ("==", "is no override"),
        ("answers.prompts=${x.y}", "answers.prompts: Interpolation key 'x.y' not found"),
        ("+data.sources.mine.kind=file", "cannot make a new Source"),
        ("finetune.duration=3", "write a positive one such as 3ep"),
    ],
)
def test_other_mistakes_name_the_remedy(override: str, remedy: str, user: Path) -> None:
    assert remedy in refused([override], user)


def test_several_typos_are_reported_together(user: Path) -> None:
    assert refused(["mixture=limaa", "++seeed=4"], user).count("did you mean") == 2


@pytest.mark.parametrize(
    "override",
    [
        "mixture.samples.lima=3",
        "~mixture.samples.lima",
        "+mixture.samples.lima_terse=3",
        "data.sources.lima.rows=9",
        "answers.seeds=[4]",
    ],
)
def test_dictionaries_and_lists_can_be_set(override: str, user: Path) -> None:
    compose([override], user)


def test_a_null_data_folder_composes(user: Path) -> None:
    assert compose(["+experiment=real_rows"], user).data.dir is None
    assert compose(["+experiment=real_rows", "data.dir=/d"], user).model.tokenizer == "/d/tokenizers/mpt"


def test_groups_of_the_user_join_the_shipped_ones(user: Path) -> None:
    (user / "mixture").mkdir()
    (user / "mixture" / "mine.yaml").write_text("name: mine\nsamples: {lima: 7}\n", encoding="utf-8")
    (user / "experiment").mkdir()
    overlay = "# @package _global_\ndefaults:\n  - override /mixture: mine\nseeds: {training: 3}\n"
    (user / "experiment" / "ours.yaml").write_text(overlay, encoding="utf-8")
    study = compose(["+experiment=ours"], user)
    assert (study.mixture.samples, study.seeds.training) == ({"lima": 7}, 3)
    assert {"mine", "lima"} <= set(groups([config_dir(), user])["mixture"])


def test_a_folder_with_spaces_and_quotes_is_found(tmp_path: Path) -> None:
    compose([], user_configs(tmp_path / 'it\'s "mine", [ours]'))


def test_unknown_keys_in_a_file_are_all_named(user: Path) -> None:
    path = user / "experiment" / "typo.yaml"
    path.parent.mkdir()
    path.write_text("# @package _global_\nseeds: {trainin: 3}\nfinetun: {batch: 8doc}\n", encoding="utf-8")
    sentences = refused(["+experiment=typo"], user).splitlines()
    assert len(sentences) == 2
    assert all(sentence.startswith(str(path)) for sentence in sentences)
    assert "did you mean 'seeds.training'?" in sentences[0]
    assert "did you mean 'finetune'?" in sentences[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: bad\nsample: {lima: 1}\n", "no key 'mixture.sample'; did you mean 'mixture.samples'"),
        ("name: bad\nsamples: {lima: x}\n", "mixture.samples.lima: Value 'x' of type 'str'"),
        ("name: [bad\n", "is not valid YAML"),
        ("samples: {lima: 1}\n", "mixture.name has no value"),
    ],
)
def test_a_file_that_does_not_fit_is_named(text: str, said: str, user: Path) -> None:
    (user / "mixture").mkdir()
    (user / "mixture" / "bad.yaml").write_text(text, encoding="utf-8")
    assert said in refused(["mixture=bad"], user)


def test_an_overlay_that_names_an_absent_option_is_refused(user: Path) -> None:
    (user / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /mixture: limaa\n"
    (user / "experiment" / "absent.yaml").write_text(text, encoding="utf-8")
    assert "did you mean 'lima'" in refused(["+experiment=absent"], user)


def test_an_absent_config_dir_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        compose([], tmp_path / "absent")


def test_the_configuration_of_an_installed_wheel_lies_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "limit_lab"
    monkeypatch.setattr(room, "__file__", str(package / "compose.py"))
    with pytest.raises(ConfigError, match="install limit_lab again"):
        config_dir()
    (package / "conf").mkdir(parents=True)
    (package / "conf" / "config.yaml").touch()
    assert config_dir() == package / "conf"


def test_a_checkout_prefers_its_own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "__file__", str(tmp_path / "src" / "limit_lab" / "compose.py"))
    for place in (tmp_path / "conf", tmp_path / "src" / "limit_lab" / "conf"):
        place.mkdir(parents=True)
        (place / "config.yaml").touch()
    assert config_dir() == tmp_path / "conf"


def test_hydra_keeps_its_own_node_only_when_asked(user: Path) -> None:
    assert "hydra" not in compose_node([], user)
    assert "hydra" in compose_node([], user, with_hydra=True)


def test_sweeps_are_enumerated_in_order() -> None:
    found = expand(["mixture=lima,none", "seeds.training=range(0,2)", "judge=length"], [config_dir()])
    assert found == [
        ["mixture=lima", "seeds.training=0", "judge=length"],
        ["mixture=lima", "seeds.training=1", "judge=length"],
        ["mixture=none", "seeds.training=0", "judge=length"],
        ["mixture=none", "seeds.training=1", "judge=length"],
    ]
    assert expand(["mixture=glob(lima_t*)"], [config_dir()]) == [["mixture=lima_terse"]]
    with pytest.raises(ConfigError, match="interval"):
        expand(["seeds.training=interval(0,1)"], [config_dir()])
