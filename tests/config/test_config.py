from __future__ import annotations

import inspect
import json
import math
import shlex
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from iekd.cli import main, train
from iekd.cli.where import OPTIONS
from iekd.config.methods import METHODS, check_method, combined, method_spec, sort_methods
from iekd.config.presets import PRESETS
from iekd.config.run import NO_TEACHER, RunConfig, label, learner_name, make_config
from iekd.config.values import SAID_BY_LABEL
from iekd.models.catalog import known_models
from iekd.runs.prepare import Prepared
from iekd.runs.store import Store


class Seen(Exception):  # noqa: N818 - not an error
    """Carries the configuration that the command line arrived at."""


def through_the_command_line(line: str) -> RunConfig:
    """What `iekd train ...` would train."""

    def create(_, config, key=None):
        raise Seen(config)

    program, *words = shlex.split(line)
    assert program == "iekd"

    def as_it_is(config, *_):
        return Prepared(config, None, None)

    with (
        mock.patch.object(Store, "create", create),
        mock.patch("iekd.runs.prepare.prepare", as_it_is),
        mock.patch.object(train, "say_estimate"),
    ):
        result = CliRunner().invoke(main.app, words)
    assert isinstance(result.exception, Seen), result.output
    return result.exception.args[0]


def floats(low: float, high: float, **kwargs) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False, **kwargs)


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=80)
configs = st.fixed_dictionaries(
    {},
    optional={
        "dataset": st.sampled_from(["fashion-mnist", "cifar10", "cifar100"]),
        "teacher": st.sampled_from(known_models()),
        "student": st.sampled_from(known_models()),
        "methods": st.lists(st.sampled_from([*METHODS, *combined()]), min_size=1, unique=True).map(tuple),
        "nesterov": st.booleans(),
        "milestones": st.sets(floats(0, 1, exclude_min=True, exclude_max=True), min_size=1, max_size=4).map(
            lambda found: tuple(sorted(found))
        ),
        "inheritance_share": floats(0, 1),
        "channel_split": st.sampled_from(["natural", "random"]),
        "distance": st.sampled_from(["own", "l1", "l2", "cosine"]),
        "ie_stages": st.sampled_from(["own", "last", "all"]),
        "auto_encoder": st.booleans(),
        "weight_schedule": st.sampled_from(["constant", "warm-up", "decay"]),
        "dkd_other_weight": floats(0, 1e6),
        "peer": st.sampled_from(known_models()),
        "validation_fraction": floats(0, 1, exclude_max=True),
        "seeds": st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5, unique=True).map(tuple),
        "epochs": st.integers(1, 10_000),
        "batch_size": st.integers(2, 65_536),
        "lr": floats(0, 100, exclude_min=True),
        "momentum": floats(0, 1, exclude_max=True),
        "weight_decay": floats(0, 1),
        "schedule": st.sampled_from(["one-cycle", "cosine", "multi-step"]),
        "inheritance_weight": floats(0, 1e6),
        "exploration_weight": floats(0, 1e6),
        "factor_weight": floats(0, 1e6),
        "temperature": floats(1e-3, 1e3),
        "kd_weight": floats(0, 1),
        "auto_encoder_epochs": st.integers(1, 100),
        "teacher_epochs": st.integers(1, 100),
        "teacher_from": st.sampled_from(["auto", "train", "run:20260101-120000-abcd", "run:x/ie-ft-seed0"]),
        "limit_train": st.integers(2, 10**6),
        "test_fraction": floats(0, 1, exclude_min=True, exclude_max=True),
        "resolution": st.integers(8, 512),
        "data_seed": st.integers(0, 2**31 - 1),
        "device": st.sampled_from(["auto", "cpu", "cuda", "mps"]),
        "precision": st.sampled_from(["auto", "fp32", "bf16"]),
        "name": text,
    },
).filter(lambda v: "shufflenet" not in v.get("teacher", "") or not any("od" in m for m in v.get("methods", ())))


@settings(max_examples=40, deadline=None)
@given(configs)
def test_the_command_line_gives_the_same_run(values):
    config = make_config(**values)
    assert through_the_command_line(config.command_line()) == config


def test_the_command_line_leaves_rare_settings_at_their_default_out():
    line = make_config(lr=0.05, name="a b").command_line()
    assert line.startswith("iekd train ")
    assert "--lr 0.05" in line
    assert "--name 'a b'" in line
    assert "--momentum" not in line
    assert "--limit-train" not in line


def test_the_command_line_keeps_every_digit():
    config = make_config(lr=0.12345678901)
    assert through_the_command_line(config.command_line()).lr == 0.12345678901


def test_a_further_teachers_path_with_spaces_survives_the_command_line():
    given = {"teacher": "resnet8,resnet14", "methods": "kd"}
    config = make_config(**given, teacher_from="auto,/data/my photos; old/t.pth")
    assert config.more_teachers_from == ("/data/my photos; old/t.pth",)
    assert through_the_command_line(config.command_line()) == config


def test_a_folder_with_an_odd_name_survives_the_command_line(tmp_path):
    (tmp_path / "My pictures, 'ünï' $HOME").mkdir()
    config = make_config(dataset=f"folder:{tmp_path}/My pictures, 'ünï' $HOME")
    assert through_the_command_line(config.command_line()) == config


numbers = st.floats(1e-6, 1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3).filter(lambda n: len(n) != 2))
def test_a_teachers_file_and_its_numbers_survive_the_command_line_and_json(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("it's here") / "resnet 56.th"
    path.write_text("")
    mean, std = zip(*pairs, strict=True)
    config = make_config(teacher_from=str(path), teacher_mean=mean, teacher_std=std)
    assert through_the_command_line(config.command_line()) == config
    assert RunConfig(**json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_a_teachers_file_becomes_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_text("")
    (tmp_path / "link.pth").symlink_to("a.pth")
    monkeypatch.chdir(tmp_path)
    assert make_config(teacher_from="./a.pth ").teacher_from == str(tmp_path / "a.pth")
    assert make_config(teacher_from="link.pth").teacher_from == str(tmp_path / "link.pth"), "links have telling names"


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0.5,), None, ["Teacher std is missing", "teacher mean is given"]),
        (None, (0.5,), ["Teacher mean is missing"]),
        ((0.5,), (0.0,), ["Teacher std '0'", "above 0"]),
        ((125.3, 123, 113.9), (63, 62.1, 66.7), ["Teacher mean", "divide by 255"]),
        ((0.5,), (63,), ["Teacher std", "divide by 255"]),
        ((math.nan,), (0.5,), ["nan"]),
        ((0.5,), (math.inf,), ["inf"]),
        ((0.5, 0.5), (0.5, 0.5), ["2 numbers", "three"]),
        ((0.5,), (0.5, 0.5, 0.5), ["as many"]),
        ((), (), ["0 numbers"]),
    ],
)
def test_a_bad_normalisation_of_the_teacher(tmp_path, mean, std, words, refuses):
    (tmp_path / "a.pth").write_text("")
    refuses(lambda: make_config(teacher_from=str(tmp_path / "a.pth"), teacher_mean=mean, teacher_std=std), *words)


@settings(max_examples=40, deadline=None)
@given(configs)
def test_json_gives_the_same_run(values):
    config = make_config(**values)
    assert RunConfig(**json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_every_setting_is_an_option_of_train():
    others = {"detach", "runs_dir", "as_json", "preset", "nproc", "devices", "cpu_slots", *OPTIONS}
    options = set(inspect.signature(train.train).parameters) - others
    assert options == set(RunConfig.model_fields)


def test_a_hole_is_smaller_than_the_images_where_their_size_is_set(refuses):
    """Else the weights may decide it: test_run_starts.py."""
    assert make_config(resolution=16, cutout=15).cutout == 15
    refuses(lambda: make_config(resolution=16, cutout=16), "Cutout 16", "16 x 16", "8")
    assert make_config(cutout=100).cutout == 100


@pytest.mark.parametrize(
    ("field", "value"), [("image_memory", -1), ("image_memory", "nan"), ("cutout", -1), ("augmentation", "flip")]
)
def test_what_images_may_take_and_how_they_are_augmented_is_checked(field, value, refuses):
    refuses(lambda: make_config(**{field: value}), field.replace("_", " ").capitalize(), value)
    assert make_config(image_memory=0).image_memory == 0


def test_every_setting_is_described():
    assert all(info.description for info in RunConfig.model_fields.values())


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError):
        make_config().epochs = 3


def test_unset_values_take_their_default():
    assert make_config(epochs=None, lr=None) == make_config()


def test_learners_are_every_method_of_every_seed():
    config = make_config(methods=("baseline", "kd"), seeds=(3, 1))
    assert config.learner_names == [("baseline", 3), ("kd", 3), ("baseline", 1), ("kd", 1)]
    assert len({learner_name(*pair) for pair in config.learner_names}) == 4


@pytest.mark.parametrize(
    ("methods", "auto_encoder"),
    [(("baseline",), False), (("kd",), False), (("ft",), True), (("baseline", "ie-ft"), True)],
)
def test_only_factor_methods_need_an_auto_encoder(methods, auto_encoder):
    assert make_config(methods=methods).needs_auto_encoder is auto_encoder


def test_labels_alone_need_no_teacher():
    assert not make_config(methods=("baseline",), teacher=NO_TEACHER).needs_teacher


BAD = [
    ({"seeds": 3}, ["Seeds", "'3'", "a list or tuple"]),
    ({"dataset": "cifar11"}, ["cifar11", "Of this kind there are: cifar10-sample, cifar10, cifar100."]),
    ({"dataset": "zebra"}, ["zebra", "Choose one of", "folder:PATH"]),
    ({"dataset": ""}, ["''"]),
    ({"teacher": "resnet-20"}, ["resnet-20", "Did you mean 'resnet20'"]),
    ({"student": "ResNet-8"}, ["ResNet-8", "Did you mean 'resnet8'"]),
    ({"student": "none"}, ["none"]),
    ({"methods": ("ie_ft",)}, ["ie_ft", "Did you mean 'ie-ft'"]),
    ({"methods": ()}, ["Methods", "at least 1"]),
    ({"methods": ("kd", "kd")}, ["kd", "twice"]),
    ({"methods": ("kd",), "teacher": "none"}, ["kd", "teacher", "resnet20"]),
    ({"seeds": ()}, ["Seeds", "at least 1"]),
    ({"seeds": (-1,)}, ["-1", "0 or more"]),
    ({"seeds": (2**31,)}, [str(2**31), "less than"]),
    ({"seeds": (4, 4)}, ["4", "twice"]),
    ({"seeds": tuple(range(65))}, ["64"]),
    ({"epochs": 0}, ["Epochs", "'0'", "should be 1 or more"]),
    ({"epochs": -3}, ["'-3'"]),
    ({"epochs": 10**9}, [str(10**9), "10000"]),
    ({"epochs": 1.5}, ["1.5", "a whole number"]),
    ({"epochs": "many"}, ["many", "a whole number"]),
    ({"batch_size": 1}, ["Batch size", "'1'", "2"]),
    ({"lr": 0}, ["'0'", "more than 0"]),
    ({"lr": -0.1}, ["-0.1"]),
    ({"lr": math.nan}, ["nan"]),
    ({"lr": math.inf}, ["inf"]),
    ({"momentum": 1}, ["'1'", "less than 1"]),
    ({"weight_decay": -1}, ["-1"]),
    ({"schedule": "cosin"}, ["cosin", "cosine"]),
    ({"inheritance_weight": -50}, ["-50"]),
    ({"inheritance_weight": math.nan}, ["nan"]),
    ({"exploration_weight": math.inf}, ["inf"]),
    ({"factor_weight": -1}, ["-1"]),
    ({"temperature": 0}, ["'0'", "more than 0"]),
    ({"kd_weight": 1.1}, ["1.1"]),
    ({"auto_encoder_epochs": 0}, ["Auto encoder epochs", "'0'"]),
    ({"teacher_epochs": -1}, ["Teacher epochs", "'-1'"]),
    ({"teacher_from": ""}, ["no file", "''"]),
    ({"teacher_from": "train", "teacher": "none", "methods": ("baseline",)}, ["train", "none"]),
    ({"teacher_mean": (0.5,), "teacher_std": (0.5,)}, ["teacher's file only"]),
    ({"teacher_mean": (0.5,), "teacher_std": (0.5,), "teacher_from": "run:x"}, ["teacher's file only"]),
    ({"teacher_mean": "a"}, ["Teacher mean", "'a'"]),
    ({"limit_train": 0}, ["Limit train", "'0'"]),
    ({"limit_train": -5}, ["-5"]),
    ({"test_fraction": 1}, ["'1'"]),
    ({"test_fraction": 0}, ["'0'"]),
    ({"resolution": 4}, ["'4'", "8"]),
    ({"resolution": 4096}, ["4096", "512"]),
    ({"data_seed": -1}, ["-1"]),
    ({"device": "gpu"}, ["gpu", "cuda"]),
    ({"device": "cuda:x"}, ["'cuda:x'", "'auto'", "'cuda:1' for the second"]),
    ({"threads": "many"}, ["'many'", "'auto'", "1 to"]),
    ({"precision": "fp8"}, ["fp8", "bf16"]),
    ({"name": "x" * 81}, ["Name", "80"]),
    ({"epoch": 3}, ["epoch", "Did you mean 'epochs'"]),
]


@pytest.mark.parametrize("field", ["dataset", "teacher_from"])
def test_a_path_that_is_not_utf8_is_refused(field, tmp_path, refuses):
    value = f"{tmp_path}/caf\udce9"
    refuses(
        lambda: make_config(**{field: f"folder:{value}" if field == "dataset" else value}), "caf\\udce9", "Rename it"
    )


@pytest.mark.parametrize(("values", "words"), BAD, ids=lambda v: str(v)[:60] if isinstance(v, dict) else "")
def test_a_bad_value_gets_one_sentence_that_names_it(values, words, refuses):
    sentence = refuses(lambda: make_config(**values), *words)
    if "cannot be used: it " in sentence:
        assert "cannot be used: it should " in sentence, f"not English: {sentence}"


def test_a_folder_becomes_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make_config(dataset="folder:pictures").dataset == f"folder:{(tmp_path / 'pictures').resolve()}"


# methods, presets and lists


@pytest.mark.parametrize("name", [*METHODS, *combined()])
def test_every_method_has_its_name_and_spec(name):
    assert check_method(name) == name
    spec = method_spec(name)
    assert (spec.name, spec.explores, spec.with_kd) == (name, name.startswith("ie-"), name.endswith("+kd"))
    config = make_config(methods=(name,))
    assert make_config(methods=name) == config


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("baseline+kd", ["kd"]), ("kd+kd", ["predictions", "Name it kd"]), ("dkd+kd", ["predictions"]),
        ("dist+kd", ["predictions"]),
        ("ie-kd", ["ie-kd"]), ("ie-ft+dkd", ["ie-ft"]), ("ft+kd+kd", ["ft+kd"]), ("FT", ["'ft'"]), ("", ["Unknown"]),
    ],
)  # fmt: skip
def test_unknown_methods_are_refused(refuses, name, words):
    refuses(lambda: make_config(methods=(name,)), *words)


def test_methods_are_sorted_as_on_the_page():
    assert sort_methods(["ie-ft+kd", "kd", "ie-ft", "baseline"]) == ("baseline", "kd", "ie-ft", "ie-ft+kd")


@pytest.mark.parametrize("name", ["dml", "ie-dml"])
def test_mutual_learning_needs_no_teacher_unless_kd_is_on_top(refuses, name):
    assert make_config(methods=(name,), teacher="none").peer is None
    refuses(lambda: make_config(methods=(f"{name}+kd",), teacher="none"), f"{name}+kd", "teacher")
    refuses(lambda: make_config(methods=(name,), peer="resnet9"), "resnet9")


@pytest.mark.parametrize("name", ["od", "ie-od", "od+kd"])
def test_overhaul_needs_a_teacher_with_margins(refuses, name):
    refuses(lambda: make_config(methods=("kd", name), teacher="shufflenet-v1"), name, "shufflenet-v1-crd", "batch norm")
    assert make_config(methods=(name,), teacher="vgg13", student="shufflenet-v1")
    assert make_config(methods=("kd",), teacher="shufflenet-v1")


def test_presets_are_the_protocols():
    paper = make_config(preset="paper")
    assert (paper.epochs, paper.batch_size, paper.lr, paper.weight_decay, paper.nesterov) == (160, 128, 0.1, 5e-4, True)
    assert [share * 160 for share in paper.milestones] == [80, 120]
    crd = make_config(preset="crd")
    assert (crd.epochs, crd.batch_size, crd.lr, crd.weight_decay, crd.nesterov) == (240, 64, 0.05, 5e-4, False)
    assert [share * 240 for share in crd.milestones] == [150, 180, 210]
    assert paper.validation_fraction == crd.validation_fraction == 0
    assert paper.schedule == crd.schedule == "multi-step"
    assert make_config(preset="quick") == make_config()


def test_what_is_given_wins_over_the_preset(refuses):
    assert make_config(preset="paper", epochs=3, lr=None).epochs == 3
    assert make_config(preset="paper", epochs=3, lr=None).lr == 0.1
    refuses(lambda: make_config(preset="papers"), "papers", "paper")


@pytest.mark.parametrize("text", ["0,1,2", "0, 1, 2", "0 1 2", "0;1;2", ",0,1,2,"])
def test_lists_may_be_text(text):
    assert make_config(seeds=text).seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": "0,x"}, ["0,x", "whole numbers"]),
        ({"milestones": "half"}, ["half", "0.5,0.75"]),
        ({"milestones": "0.75,0.5"}, ["0.75, 0.5", "larger"]),
        ({"milestones": (0.5, 0.5)}, ["larger"]),
        ({"milestones": "1.5"}, ["1.5"]),
        ({"inheritance_share": 1.1}, ["1.1"]),
        ({"validation_fraction": 1}, ["1"]),
        ({"distance": "l3"}, ["l3", "cosine"]),
        ({"inheritance_weight": -1}, ["-1"]),
        ({"auto_encoder": "perhaps"}, ["perhaps"]),
    ],
)
def test_options_that_cannot_be_are_refused(refuses, values, words):
    refuses(lambda: make_config(**values), *words)


@pytest.mark.parametrize(("given", "expected"), [("auto", "auto"), ("3", 3), (1, 1)])
def test_threads_are_a_number_or_auto(given, expected):
    config = make_config(threads=given)
    assert config.threads == expected
    assert RunConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize("given", [0, "-1", "two", "1.5", "", 100_000])
def test_other_threads_are_refused(given, refuses):
    refuses(lambda: make_config(threads=given), "Threads", f"'{given}'", "'auto'")


@pytest.mark.parametrize("field", ["epochs", "lr", "image_memory", "resolution", "threads"])
@pytest.mark.parametrize("value", [True, False])
def test_yes_and_no_are_no_numbers(field, value, refuses):
    refuses(lambda: make_config(**{field: value}), f"'{value}'")


def test_the_preset_for_photographs_says_what_it_leaves_to_choose():
    config, text = make_config(preset="photos"), PRESETS["photos"].text
    assert (config.resolution, config.teacher_from, config.student_from) == (224, "auto", None)
    assert "at 224 pixels" in text
    assert "pretrained weights, which you choose" in text


@pytest.mark.parametrize("preset", [5, ["quick"], {}, True])
def test_a_preset_is_a_name(preset, refuses):
    refuses(lambda: make_config(preset), "Unknown preset", "quick")


@pytest.mark.parametrize("field", SAID_BY_LABEL)
def test_errors_name_settings_as_the_page_does(field):
    assert SAID_BY_LABEL[field].lower() == label(field).lower()
