#!/bin/sh
# The usual row of ResNet-50 with a pyramid: COCO train2017 for 90,000 steps of 16 pictures ("1x"), measured on val2017
# (37.9 in detectron2's model zoo).
#
#   benchmarks/coco1x.sh COCO RESNET50_WEIGHTS [OUT] [options of frcnn train]
#
# COCO              the folder that holds annotations/, train2017/ and val2017/
# RESNET50_WEIGHTS  ImageNet weights of ResNet-50 as torchvision publishes them (resnet50-0676ba61.pth)
# OUT               where the run is written; default: runs
# DEVICES           environment: number of GPUs, 1, 2, 4 or 8; default: 1. A step holds 16 pictures whatever it is.
#
# Result of this script: not measured.
set -eu
coco=${1:?the folder that holds annotations, train2017 and val2017}
weights=${2:?a file with the ImageNet weights of ResNet-50}
out=${3:-runs}
devices=${DEVICES:-1}
shift 2
[ $# -eq 0 ] || shift
frcnn=${FRCNN:-frcnn}

"$frcnn" train "$coco" --recipe r50-fpn --backbone-weights "$weights" \
    --train train --val none --steps 90000 --batch 2 --devices "$devices" --seed 0 \
    --set train.accumulate=$((8 / devices)) --set train.schedule=step --out "$out" --name coco1x "$@"
"$frcnn" eval "$out/coco1x" "$coco" --split val --out "$out/coco1x/val"
