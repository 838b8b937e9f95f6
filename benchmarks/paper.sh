#!/usr/bin/env bash
# The paper's claim on CIFAR-10, resnet56 -> resnet20, 160 epochs, three seeds: is every IE form above its plain form?
#
#   benchmarks/paper.sh FOLDER [more options of iekd table]
#
# FOLDER holds train/<class>/* and test/<class>/*. Meant for a GPU; what is already trained is used again when the
# command is repeated, so it may be interrupted. To try it on a CPU: benchmarks/paper.sh FOLDER --epochs 1
# --teacher-epochs 1 --auto-encoder-epochs 1 --limit-train 512 --seeds 0,1
set -euo pipefail
folder=$1
shift
exec python -m iekd table --preset paper --dataset "folder:$folder" --pairs resnet56:resnet20 --seeds 0,1,2 \
  --methods baseline,kd,at,ft,od,dml,dkd,dist,ie-at,ie-ft,ie-od,ie-dml,ie-ft+kd "$@"
