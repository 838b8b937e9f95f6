"""Trained models as files for other programs, each with a certificate that says what was checked.

Knows the folders of saved models, not the runs that they belong to.
"""

from iekd.export.certificate import Certificate
from iekd.export.formats import FORMATS, Format, Job, register
from iekd.export.write import export_model

__all__ = ["FORMATS", "Certificate", "Format", "Job", "export_model", "register"]
