"""What programs send to `compare` and what they get; see answers.py."""

from __future__ import annotations

from typing import Annotated, Optional

from pydantic import WithJsonSchema
from typing_extensions import NotRequired, TypedDict

from iekd.results.agreement import FILTERS
from iekd.ui.shared.answers import EXAMPLE_ID, HOW_SENT, UPLOADED, UploadedFile, says, sent_file

ModelRefs = Annotated[
    list[str],
    says(
        examples=[[f"{EXAMPLE_ID}/teacher", f"{EXAMPLE_ID}/ie-ft-seed0/onnx"]],
        description="a list of texts, models in place of all those of the run: RUN/LEARNER, RUN/LEARNER/onnx for its "
                    "export, or the name of a shipped model",
    ),
]  # fmt: skip
ModelFiles = Annotated[
    Optional[list[UploadedFile]],
    WithJsonSchema(
        {
            "type": "array", "items": UPLOADED, "examples": [[sent_file("model.onnx")]],
            "description": "a list of uploaded files, more models, as ONNX or as the zips of run_files, each "
                           f"{HOW_SENT}; only of whoever runs the page",
        }
    ),
]  # fmt: skip
RightAnswers = Annotated[
    list[str],
    says(
        examples=[["cat", ""]],
        description="a list of texts, the right class of each image in the order in which they come back, '' where it "
                    "is not known; without it the folders in zips that are named as classes say it",
    ),
]  # fmt: skip
Show = Annotated[
    str,
    says(
        examples=["differ"],
        description=f"a text, which images come back: {', '.join(FILTERS)}; all but the first two need right answers",
    ),
]  # fmt: skip


class Guess(TypedDict):
    """One class and how likely a model thinks it is."""

    label: Annotated[str, says(description="name of the class")]
    score: Annotated[float, says(description="probability, 0 to 1")]


class ImagePredictions(TypedDict):
    """What the models predict for one image."""

    name: Annotated[str, says(description="the file's name, and where it is in its zip")]
    predictions: Annotated[
        dict[str, list[Guess]],
        says(description="the most likely classes by model: teacher, baseline, ie-ft, ..., or as it was named"),
    ]
    right: Annotated[NotRequired[str], says(description="its right class; absent where that is not known")]
    error: Annotated[NotRequired[str], says(description="why the image could not be read; absent if it could")]
    unlike: Annotated[
        NotRequired[str], says(description="a sentence where the image is unlike the training images; else absent")
    ]


class Agreement(TypedDict):
    """How many of all images the models agree on, and how many they have right."""

    images: Annotated[int, says(description="images that could be read")]
    broken: Annotated[int, says(description="images that could not be read")]
    agree: Annotated[int, says(description="images for which all models predict the same class")]
    differ: Annotated[int, says(description="the other images")]
    labelled: Annotated[int, says(description="images whose right class is known")]
    right: Annotated[dict[str, int], says(description="by model, how many of those it has right")]


class Comparison(TypedDict):
    """Predictions of all models for all images."""

    images: Annotated[list[ImagePredictions], says(description="one for each image, in the order they were sent")]
    summary: Annotated[Agreement, says(description="of all images, also those that were not asked for")]
    not_compared: Annotated[
        dict[str, str], says(description="models that were left out, each with the reason, such as other classes")
    ]
    notes: Annotated[list[str], says(description="what was noticed in zips, as sentences")]
