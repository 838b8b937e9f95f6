"""Loss terms, one file per paper: each is one formula on tensors, student first, teacher second."""

from iekd.losses.ft import FactorTransferLoss, ReconstructionLoss
from iekd.losses.ie import ExplorationLoss, InheritanceLoss
from iekd.losses.kd import KnowledgeDistillationLoss

__all__ = [
    "ExplorationLoss",
    "FactorTransferLoss",
    "InheritanceLoss",
    "KnowledgeDistillationLoss",
    "ReconstructionLoss",
]
