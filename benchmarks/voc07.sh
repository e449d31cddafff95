#!/bin/sh
# The paper's row: VGG16, trained on VOC2007 trainval, measured on VOC2007 test by VOC2007's rules (69.9 in the paper).
#
#   benchmarks/voc07.sh VOCDEVKIT VGG16_WEIGHTS [OUT] [options of frcnn train]
#
# VOCDEVKIT      the folder that holds VOC2007/, with trainval and test unpacked into it
# VGG16_WEIGHTS  ImageNet weights of VGG16 as torchvision publishes them, with the classifier (vgg16-397923af.pth)
# OUT            where the run is written; default: runs
#
# 70,000 steps of one picture at rate 0.001, with flips, as in the paper's code; a GPU with 6 GB is enough.
# Result of this script: not measured.
set -eu
devkit=${1:?the folder that holds VOC2007}
weights=${2:?a file with the ImageNet weights of VGG16}
out=${3:-runs}
shift 2
[ $# -eq 0 ] || shift
frcnn=${FRCNN:-frcnn}

"$frcnn" train "$devkit/VOC2007" --recipe vgg16 --backbone-weights "$weights" \
    --train trainval --val none --steps 70000 --batch 1 --seed 0 \
    --set train.schedule=step --out "$out" --name voc07 "$@"
"$frcnn" eval "$out/voc07" "$devkit/VOC2007" --split test --protocol voc07 --out "$out/voc07/test"
