"""What programs send to the endpoints and what they get: the types from which every schema and table is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

from pydantic import Field, WithJsonSchema
from typing_extensions import NotRequired, TypedDict  # pydantic cannot use typing's before Python 3.12

from iekd.config.run import ABOUT, RunConfig
from iekd.data.refusals import INNER, OUTER
from iekd.export import FORMATS
from iekd.export.web import WEB

says = Field  # of a value: Annotated[int, says(description="...")] is what a program reads


def _settings() -> dict[str, Any]:
    """The schema of a run's settings: those that stand first by name, the others by the types that they may have."""
    known = RunConfig.model_json_schema()["properties"]
    first = {
        name: {key: value for key, value in known[name].items() if key not in ("title", "group")}
        for name, about in ABOUT.items()
        if not about.group
    }
    single = [{"type": kind} for kind in ("string", "number", "boolean")]
    several = {"type": "array", "items": {"anyOf": single[:2]}}
    return {
        "type": "object", "properties": first, "additionalProperties": {"anyOf": [*single, several]},
        "description": "an object of settings, such as {'epochs': 10}; list_settings has all of them",
        "examples": [{"epochs": 10}],
    }  # fmt: skip


def sent_file(path: str) -> dict[str, Any]:
    """A file of the server as Gradio wants it in an answer."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


UPLOADED = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "as the answer to the upload names it"},
        "meta": {
            "type": "object",
            "properties": {"_type": {"const": "gradio.FileData"}},
            "required": ["_type"],
            "description": "says that this is a file",
        },
    },
    "required": ["path", "meta"],
}


def is_file(schema: dict[str, Any]) -> bool:
    """Whether a value of this schema is a file that was uploaded."""
    return schema.get("properties") == UPLOADED["properties"]


def takes_files(schema: dict[str, Any]) -> bool:
    """Whether a value is an uploaded file or a list of them."""
    return is_file(schema) or is_file(schema.get("items", {}))


EXAMPLE_ID = "20260131-120000-a1b2c3"
HOW_SENT = "as the answer to an upload names it: {'path': ..., 'meta': {'_type': 'gradio.FileData'}}"

# what programs send
RunId = Annotated[str, says(description="a text, the id of a run", examples=[EXAMPLE_ID])]
Name = Annotated[
    Optional[str],
    WithJsonSchema({"type": "string", "description": "a text, shown as its name; '' for the name it was started with"}),
]
Note = Annotated[
    Optional[str],
    WithJsonSchema({"type": "string", "description": "a text of yours, such as why you started it; '' for none"}),
]
Starred = Annotated[
    Optional[bool], WithJsonSchema({"type": "boolean", "description": "true or false, whether it has a star"})
]
RunIds = Annotated[
    list[str],
    says(description="a list of two to eight texts, ids of runs", examples=[[EXAMPLE_ID, f"{EXAMPLE_ID[:-1]}4"]]),
]
Settings = Annotated[dict[str, Any], WithJsonSchema(_settings())]
Key = Annotated[
    str,
    says(description="a text of your choice; the same key starts one run, however often it is sent", examples=["1"]),
]
Details = Annotated[
    bool, says(description="true for an object with warnings, time and memory in place of the id alone")
]
Models = Annotated[
    str,
    says(
        default="", examples=[EXAMPLE_ID],
        description="a text, the id of a run, ID/SEED for another of its seeds, or '' for the shipped models",
    ),
]  # fmt: skip
UploadedFile = Annotated[str, WithJsonSchema(UPLOADED)]  # a method gets the path
Images = Annotated[
    list[UploadedFile],
    says(
        description=f"a list of uploaded files, images or zips of them, each {HOW_SENT}; 500 images at most, 100 of a "
                    "visitor",
        examples=[[sent_file("cat.png")]],
    ),
]  # fmt: skip
Archive = Annotated[
    str,
    WithJsonSchema({**UPLOADED, "description": f"an uploaded zip, {HOW_SENT}", "examples": [sent_file("images.zip")]}),
]
Classes = Annotated[
    str,
    says(
        default="", examples=[INNER],
        description=f"a text, '{OUTER}' or '{INNER}': which folders are the classes, where folders lie in folders; '' "
                    "where that is clear",
    ),
]  # fmt: skip
Learner = Annotated[str, says(description="a text, teacher or a student such as ie-ft-seed0", examples=["ie-ft-seed0"])]
ModelName = Annotated[
    str,
    says(
        examples=["ie-ft"],
        description="a text, teacher or a method such as ie-ft; '' for the usual choice: the plain student and the "
                    "first IE student",
    ),
]  # fmt: skip
FormatName = Annotated[
    str,
    says(
        description=f"a text, one of {', '.join(FORMATS)}, or {WEB}: a page of the teacher and all students",
        examples=["onnx"],
    ),
]
Lines = Annotated[int, says(description="a whole number, how many lines of the end; 1000 at most")]

Seeds = Annotated[int, says(description="a whole number, how many seeds to add")]

State = Literal["queued", "running", "stopping", "stopped", "finished", "failed", "lost"]
Seconds = Optional[float]


class RunStatus(TypedDict):
    """One run as it is now."""

    run: Annotated[str, says(description="the run's id")]
    name: Annotated[str, says(description="a label of its owner; may be empty")]
    state: Annotated[
        State, says(description="queued, running, stopping, stopped, finished, failed, or lost: its process is gone")
    ]
    stage: Annotated[str, says(description="loading, teacher, auto-encoder, students or evaluation")]
    progress: Annotated[float, says(description="0 to 1, over the whole run")]
    eta_seconds: Annotated[Seconds, says(description="time left, in seconds; null while unknown")]
    eta_range: Annotated[
        Optional[list[float]], says(description="the shortest and the longest time left to expect, in seconds")
    ]
    images_per_second: Annotated[Optional[float], says(description="training images, of all students together")]
    seconds: Annotated[Seconds, says(description="time taken so far, in seconds, earlier attempts included")]
    device: Annotated[str, says(description="where it trains: cpu, cuda or mps")]
    dataset: Annotated[str, says(description="the dataset's name")]
    accuracies: Annotated[
        dict[str, float], says(description="newest test accuracy of each student in percent, such as ie-ft-seed0: 87.9")
    ]
    error: Annotated[Optional[str], says(description="why it failed, as a sentence")]
    diverged: Annotated[
        dict[str, str], says(description="students whose numbers became NaN or infinite, each with a sentence")
    ]
    warnings: Annotated[list[str], says(description="what makes the result worth little, as sentences")]


class Forecast(TypedDict):
    """What a run would take, and what to be warned of."""

    warnings: Annotated[list[str], says(description="what speaks against starting it like this, as sentences")]
    notes: Annotated[list[str], says(description="what was noticed in the dataset's files, as sentences")]
    seconds: Annotated[int, says(description="expected time, in seconds")]
    seconds_range: Annotated[list[int], says(description="the shortest and the longest time to expect, in seconds")]
    basis: Annotated[str, says(description="what the time is computed from, in words")]
    memory_bytes: Annotated[int, says(description="memory for models and batches, in bytes")]
    trains_teacher: Annotated[bool, says(description="whether the run has to train its teacher first")]
    classes: Annotated[list[str], says(description="names of the classes, in the order of their labels")]


class Started(Forecast):
    """A run that was started, with what it will take."""

    run: Annotated[str, says(description="the run's id")]


Start = Annotated[Union[str, Started], says(description="the run's id; with details, an object that has it as `run`")]


class Deleted(TypedDict):
    """A run that is gone."""

    run: Annotated[str, says(description="the run's id")]
    deleted: Annotated[bool, says(description="true")]


class ComparedRun(TypedDict):
    """The results of one of several runs."""

    run: Annotated[str, says(description="the run's id")]
    name: Annotated[str, says(description="a label of its owner; may be empty")]
    state: Annotated[State, says(description="queued, running, stopping, stopped, finished, failed or lost")]
    teacher_accuracy: Annotated[Optional[float], says(description="in percent; null without a teacher or a report")]
    plain_accuracy: Annotated[Optional[float], says(description="of the baseline, in percent, mean over its seeds")]
    method: Annotated[str, says(description="the method with the highest accuracy among the others; may be empty")]
    accuracy: Annotated[Optional[float], says(description="of that method, in percent, mean over its seeds")]
    gain: Annotated[Optional[float], says(description="that method minus the baseline, in points")]
    interval: Annotated[Optional[list[float]], says(description="95 % interval of the gain: from, to")]
    interval_over: Annotated[str, says(description="seeds or test images: what the interval is over; may be empty")]
    seeds: Annotated[int, says(description="how many seeds the gain is a mean of")]
    too_weak: Annotated[
        str,
        says(description="a sentence where the networks are at chance level, so that the gain says nothing; else ''"),
    ]


class DifferentSetting(TypedDict):
    """A setting that is not the same in all runs."""

    name: Annotated[str, says(description="its key in the settings of start")]
    values: Annotated[
        list[Union[str, float, bool, list[Union[str, float]], None]],
        says(description="its value in each run, in the order of `runs`; null: unset"),
    ]


class RunsComparison(TypedDict):
    """Runs side by side."""

    runs: Annotated[list[ComparedRun], says(description="one for each run, in the order of the ids")]
    settings: Annotated[list[DifferentSetting], says(description="the settings that differ; all others are the same")]


TestImage = TypedDict(
    "TestImage",
    {
        "row": Annotated[int, says(description="its row in the test split")],
        "image": Annotated[str, says(description="its file's name without folders, or its row")],
        "class": Annotated[str, says(description="its label")],
        "predicted": Annotated[str, says(description="the class that is predicted")],
        "confidence": Annotated[NotRequired[float], says(description="probability of it, 0 to 1; absent if not known")],
    },
)
Confused = TypedDict(
    "Confused",
    {
        "class": Annotated[str, says(description="the right class")],
        "predicted": Annotated[str, says(description="the class that is predicted")],
        "first": Annotated[int, says(description="for how many images by the first model")],
        "second": Annotated[int, says(description="for how many images by the second model")],
    },
)
Percent = Optional[float]
ClassGain = TypedDict(
    "ClassGain",
    {
        "class": Annotated[str, says(description="the class")],
        "images": Annotated[int, says(description="its test images")],
        "first": Annotated[Percent, says(description="percentage of them that the first model classifies correctly")],
        "second": Annotated[Percent, says(description="the same of the second model")],
        "gain": Annotated[Percent, says(description="second minus first, in percentage points")],
    },
)


class CalibrationBin(TypedDict):
    """The images whose confidence is above `low` and at most `high`."""

    low: Annotated[float, says(description="0 to 1")]
    high: Annotated[float, says(description="0 to 1")]
    images: Annotated[int, says(description="how many")]
    confidence: Annotated[Optional[float], says(description="mean confidence, 0 to 1; null without images")]
    accuracy: Annotated[Optional[float], says(description="share that is right, 0 to 1; null without images")]


class ModelCalibration(TypedDict):
    """Whether a model is as sure as it is right."""

    ece: Annotated[float, says(description="expected calibration error, 0 to 1")]
    confidence: Annotated[float, says(description="mean confidence, 0 to 1")]
    accuracy: Annotated[float, says(description="share that is right, 0 to 1")]
    bins: Annotated[list[CalibrationBin], says(description="of equal width, from 0 to 1")]


class TestSetFound(TypedDict):
    """Two models on a whole test set."""

    models: Annotated[list[str], says(description="the models that can be compared")]
    first: Annotated[str, says(description="the model that is compared")]
    second: Annotated[str, says(description="the model that it is compared with")]
    images: Annotated[int, says(description="test images")]
    classes: Annotated[list[str], says(description="names of the classes, in the order of rows and columns")]
    confusion: Annotated[
        dict[str, list[list[int]]],
        says(description="by model, images by right class (rows) and predicted class (columns)"),
    ]
    difference: Annotated[list[list[int]], says(description="the second matrix minus the first")]
    confused: Annotated[list[Confused], says(description="the pairs of classes whose confusion changes most")]
    class_accuracy: Annotated[list[ClassGain], says(description="each class, the largest gain first")]
    calibration: Annotated[
        dict[str, ModelCalibration], says(description="by model; empty where probabilities are not known")
    ]
    without: Annotated[str, says(description="why probabilities are not known, as a sentence; empty where they are")]
    mistakes: Annotated[dict[str, list[TestImage]], says(description="the most confident mistakes by model")]
    agreeing: Annotated[list[str], says(description="the models that suspicious labels were found with")]
    suspicious: Annotated[
        list[TestImage], says(description="images for which all of them agree on another class than the label")
    ]


class RunFile(TypedDict):
    """Something to download."""

    name: Annotated[str, says(description="teacher, a student such as ie-ft-seed0, or answers.csv")]
    address: Annotated[str, says(description="where to GET it, relative to the page's own address")]
    bytes: Annotated[int, says(description="size of the weights or of the file, in bytes")]


class Exported(TypedDict):
    """A model as a file for other programs, with the main findings of its certificate."""

    run: Annotated[str, says(description="the run's id")]
    model: Annotated[str, says(description="which of its models")]
    format: Annotated[str, says(description="format of the file")]
    address: Annotated[str, says(description="where to GET a zip of it, relative to the page's own address")]
    bytes: Annotated[int, says(description="size of the file, or of all files of a page, in bytes")]
    accuracy: Annotated[Optional[float], says(description="test accuracy of the file itself, in percent")]
    difference: Annotated[float, says(description="largest difference of a probability from the original model's")]
    warnings: Annotated[list[str], says(description="what should be known before it is used, as sentences")]
    not_checked: Annotated[list[str], says(description="what could not be checked, and why, as sentences")]


class DatasetRow(TypedDict):
    """A dataset that can be trained on."""

    name: Annotated[str, says(description="what `dataset` of start takes")]
    title: Annotated[str, says(description="its name on the page")]
    train_images: Annotated[int, says(description="training images")]
    test_images: Annotated[int, says(description="test images")]
    classes: Annotated[int, says(description="number of classes")]
    channels: Annotated[int, says(description="1 for grey images, 3 for colour")]
    resolution: Annotated[int, says(description="side of the square images, in pixels")]
    note: Annotated[str, says(description="such as how much has to be downloaded first")]


class ModelRow(TypedDict):
    """A network that can teach or learn."""

    name: Annotated[str, says(description="what `teacher` and `student` of start take")]
    params: Annotated[int, says(description="parameters, for 10 classes in colour")]
    macs: Annotated[float, says(description="multiply-accumulates for an image of 32 x 32 pixels")]


class MethodRow(TypedDict):
    """A way to teach a student."""

    name: Annotated[str, says(description="what `methods` of start takes; most also with '+kd' at the end")]
    summary: Annotated[str, says(description="what it does, in a few words")]
    paper: Annotated[str, says(description="title, authors and year; empty for training on labels only")]
    needs_teacher: Annotated[bool, says(description="whether the run needs a teacher for it")]
    settings: Annotated[list[str], says(description="names of the settings that only some methods use and this does")]


class SettingRow(TypedDict):
    """One setting of a run."""

    name: Annotated[str, says(description="its key in the settings of start")]
    description: Annotated[str, says(description="what it is, with its unit")]
    group: Annotated[str, says(description="its heading on the page; empty for the few that stand first")]
    type: Annotated[str, says(description="integer, number, string, boolean or array; or several of them; null: unset")]
    default: Annotated[
        Union[str, float, bool, list[Union[str, float]], None], says(description="what it is if it is left out")
    ]
    choices: Annotated[NotRequired[list[str]], says(description="the only values it may have")]
    minimum: Annotated[NotRequired[float], says(description="smallest value")]
    maximum: Annotated[NotRequired[float], says(description="largest value")]
    above: Annotated[NotRequired[float], says(description="it has to be larger than this")]
    below: Annotated[NotRequired[float], says(description="it has to be smaller than this")]


def schema_words(schema: dict[str, Any]) -> str:
    """The type of a schema in a word or two: "number", "integer or null"."""
    return " or ".join(part["type"] for part in schema.get("anyOf", [schema]))


def setting_rows() -> list[SettingRow]:
    """Every setting, from the schema of RunConfig."""
    rows = []
    for name, known in RunConfig.model_json_schema()["properties"].items():
        parts = [part for part in known.get("anyOf", [known]) if part.get("type") != "null"]
        row: SettingRow = {
            "name": name, "description": known["description"], "group": known["group"],
            "type": schema_words(known), "default": known["default"],
        }  # fmt: skip
        for part in parts:
            if choices := part.get("enum") or ([part["const"]] if "const" in part and len(parts) == 1 else None):
                row["choices"] = choices
            if "minimum" in part:
                row["minimum"] = part["minimum"]
            if "maximum" in part:
                row["maximum"] = part["maximum"]
            if "exclusiveMinimum" in part:
                row["above"] = part["exclusiveMinimum"]
            if "exclusiveMaximum" in part:
                row["below"] = part["exclusiveMaximum"]
        rows.append(row)
    return rows
