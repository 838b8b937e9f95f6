"""A model from the Hub in three lines of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iekd.data.decoding import ImageSource
from iekd.errors import DataError
from iekd.hub.contents import gathered
from iekd.hub.pull import pulled
from iekd.hub.push import Pushed, machine_token, push
from iekd.inference.compare import compare
from iekd.inference.predict import Prediction, load_predictor
from iekd.models.artifact import CARD, ModelCard


class Student:
    """A saved model: `card` says what it is, `model` is the torch module, `predict` takes one image.

    student = iekd.Student.from_pretrained("ann/resnet20-pets")
    print(student.predict("photo.jpg").top)
    """

    def __init__(self, folder: Path | str) -> None:
        """Raises UserError if the folder holds no usable model."""
        self.folder = Path(folder)
        self._predictor = load_predictor(self.folder)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, token: str | None = None) -> Student:
        """A model of the Hub, or of a folder on this machine.

        Args:
            name: ORG/NAME, or a folder with a model in it.
            revision: a branch, a tag or a commit; None for the newest.
            token: for a repository that is not public; None: the machine's, if there is one.
        Raises:
            UserError: there is none, or it cannot be used.
        """
        if (Path(name) / CARD).is_file():
            return cls(name)
        return cls(pulled(f"{name}@{revision}" if revision else str(name), token))

    @property
    def card(self) -> ModelCard:
        return self._predictor.card

    @property
    def model(self) -> Any:
        """The torch module in evaluation mode: normalised images (B,C,H,W) -> .logits (B,K)."""
        return self._predictor.model

    def predict(self, image: ImageSource) -> Prediction:
        """The classes that the model sees in an image, best first.

        Args:
            image: a path, bytes of a file, a PIL image or an array (H,W,C) uint8.
        Raises:
            DataError: it is no image that can be read.
        """
        result = compare({"student": self.folder}, [("", image)])[0]
        if result.error is not None:
            raise DataError(result.error)
        return result.predictions["student"]

    def push_to_hub(
        self, repo: str, *, private: bool = False, license: str = "", token: str | None = None, force: bool = False
    ) -> Pushed:
        """Push this model; `iekd push RUN` also tells how it compares with the others of its run.

        Args:
            repo: ORG/NAME; made if it does not exist.
            private: make it so that only its owner sees it; without: as the owner's default is, public for most.
            license: of the weights, as the Hub names it, such as "mit"; empty: none is named.
            token: with write permission; None: that of this machine.
            force: also where the repository holds something else.
        Returns:
            Where it is on the Hub now.
        Raises:
            UserError: it did not work; says what is on the Hub now.
        """
        with gathered("student", repo, model=self.folder, license=license) as contents:
            return push(contents, repo, token or machine_token(), private=private, force=force)
