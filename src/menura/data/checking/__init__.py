"""Finding what is wrong with a dataset before anything is learnt from it."""

from menura.data.checking.check import check_dataset
from menura.data.checking.report import Finding, Place, Report

__all__ = ["Finding", "Place", "Report", "check_dataset"]
