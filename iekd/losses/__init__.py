"""Loss terms, one file per paper: each is one formula on tensors, student first, teacher second."""

from iekd.losses.at import AttentionTransferLoss
from iekd.losses.dist import RelationLoss
from iekd.losses.dkd import DecoupledKnowledgeDistillationLoss
from iekd.losses.dml import MutualLearningLoss
from iekd.losses.ft import FactorTransferLoss, ReconstructionLoss
from iekd.losses.ie import ExplorationLoss, InheritanceLoss
from iekd.losses.kd import KnowledgeDistillationLoss
from iekd.losses.od import OverhaulLoss
from iekd.losses.rkd import RelationalAngleLoss, RelationalDistanceLoss

__all__ = [
    "AttentionTransferLoss",
    "DecoupledKnowledgeDistillationLoss",
    "ExplorationLoss",
    "FactorTransferLoss",
    "InheritanceLoss",
    "KnowledgeDistillationLoss",
    "MutualLearningLoss",
    "OverhaulLoss",
    "ReconstructionLoss",
    "RelationLoss",
    "RelationalAngleLoss",
    "RelationalDistanceLoss",
]
