"""Where teachers come from, how they are trained, and what students begin with: a part of RunConfig."""

from __future__ import annotations

from pydantic import BaseModel

from iekd.config.settings import setting
from iekd.models.source import AUTO

TEACHER = "Teacher"  # heading of settings


class TeacherSettings(BaseModel):
    """The weights of the networks before students are trained."""

    teacher_epochs: int = setting(
        30, "passes that train a teacher where none is at hand; 0: none, a trained one must be there", ge=0, le=10_000,
        group=TEACHER,
        only_for="teachers that the run trains", used_when=lambda config: config.may_train_teacher, step_time=False,
        trains_teacher="always",
    )  # fmt: skip
    teacher_lr: float | None = setting(
        None, "peak learning rate of a teacher's training or fine-tuning; unset: the students'", gt=0, le=100,
        group=TEACHER, label="Teacher's learning rate", only_for="teachers that the run trains",
        used_when=lambda config: config.may_train_teacher, step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    teacher_backbone: float = setting(
        0.1, "share of the learning rate that layers with pretrained weights get while a teacher is fine-tuned", gt=0,
        le=1, group=TEACHER, label="Teacher's slower layers", only_for="teachers that are fine-tuned",
        used_when=lambda config: config.may_fine_tune_teacher, step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    teacher_from: str = setting(
        AUTO, "auto (shipped, of an earlier run, or trained first), train, pretrained (of timm, torchvision, the Hub), "
        "hf:ORG/NAME, run:ID, run:ID/LEARNER, or the path of a file of weights or of a model's folder; a teacher of "
        "other classes is fine-tuned first, and pretrained always", group=TEACHER, label="Teacher comes from",
        step_time=False,
    )  # fmt: skip
    student_from: str | None = setting(
        None, "first weights of every student: pretrained, hf:ORG/NAME, run:ID, run:ID/LEARNER, or the path of a file "
        "of weights or of a model's folder; unset: random", group=TEACHER, label="Student starts from", step_time=False,
    )  # fmt: skip
    more_teachers: tuple[str, ...] = setting(
        (), "further teachers, with commas: the logits of all are averaged, the features are the first one's",
        group=TEACHER,
    )  # fmt: skip
    more_teachers_from: tuple[str, ...] = setting(
        (), "where each of them comes from, as teacher from, with commas; unset: auto for each", group=TEACHER,
        only_for="several teachers", used_when=lambda config: bool(config.more_teachers), step_time=False,
    )  # fmt: skip
    teacher_mean: tuple[float, ...] | None = setting(
        None, "mean of the pixels (0..1) that a teacher's file was trained with; unset: the file's own, the library's "
        "or the dataset's", group=TEACHER, step_time=False,
    )  # fmt: skip
    teacher_std: tuple[float, ...] | None = setting(
        None, "standard deviation of those pixels", group=TEACHER, step_time=False
    )
