"""Trained models as files for other programs, each with a certificate that says what was checked.

Knows the folders of saved models, not the runs that they belong to.
"""

from iekd.export.certificate import Certificate
from iekd.export.formats import FORMATS, ExportJob, Format, register
from iekd.export.write import export_model

__all__ = ["FORMATS", "Certificate", "ExportJob", "Format", "export_model", "register"]
