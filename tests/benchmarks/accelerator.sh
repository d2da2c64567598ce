#!/usr/bin/env bash
# What only an accelerator can show, in one go: throughput of populations, accuracy of 20 seeds, and both published
# studies at their full schedules, ten seeds an arm. From the repository's root, with MNIST prepared in the cache:
#
#     tests/benchmarks/accelerator.sh OUT [throughput] [accuracy] [eva6] [eva4] [recipes]
#
# Without a list it does the first four. OUT gets tables, logs with wall times, and the studies' reports. `recipes` tries
# leads for a better recipe, and for one of few epochs, on validation images. It needs JAX and what kernorm needs, but not
# TensorFlow.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?"Usage: $0 OUT [throughput] [accuracy] [eva6] [eva4] [recipes]"}
shift
mkdir -p "$out"
export KERAS_BACKEND=jax XLA_PYTHON_CLIENT_PREALLOCATE=false

throughput() { python3 -m tests.benchmarks.population --out "$out"; }
# In float32 throughout, and as JAX multiplies by default, which is with fewer digits on some devices.
accuracy() {
    JAX_DEFAULT_MATMUL_PRECISION=highest python3 -m tests.benchmarks.population --accuracy 20 --out "$out/float32"
    python3 -m tests.benchmarks.population --accuracy 20 --out "$out/default_precision"
}
study() { python3 -m kernorm.study "$1" --seeds 10 --population auto --workers 3 --reports-dir "$out/reports"; }
# Each changes one setting of a recipe, or one step of its augmentation.
recipes() {
    local long='--recipe best' short='--recipe quick'
    python3 -m tests.benchmarks.recipes --seeds 3 --population \
        "$long" "$long --ema 0" "$long --ema 0.9995" "$long --elastic 8" "$long --elastic 16" \
        "$long --batch-size 32 --learning-rate 0.02" "$long --learning-rate 0.02" "$long --learning-rate 0.05" \
        "$long --rotation 10 --zoom 0.1 --shear 5" "$long --rotation 12 --zoom 0.12 --shear 7" "$long --epochs 20" \
        "$short" "$short --learning-rate 0.04" "$short --learning-rate 0.05" "$short --ema 0.995" \
        "$short --batch-size 32" "$short --batch-size 128 --learning-rate 0.04"
    cp reports/recipes_tried.csv "$out/"
}

for part in "${@:-throughput accuracy eva6 eva4}"; do
    for name in $part; do
        case $name in
        eva4 | eva6) work=(study "$name") ;;
        throughput | accuracy | recipes) work=("$name") ;;
        *) echo "A part is throughput, accuracy, eva6, eva4 or recipes. Received: $name." >&2 && exit 2 ;;
        esac
        began=$SECONDS
        "${work[@]}" 2>&1 | tee "$out/$name.log"
        echo "$name: $((SECONDS - began)) s" | tee -a "$out/seconds.log"
    done
done
