#!/usr/bin/env bash
# What only an accelerator can show, in one go: throughput of populations, accuracy of 20 seeds, and both published
# studies at their full schedules, ten seeds an arm. From the repository's root, with MNIST prepared in the cache:
#
#     tests/benchmarks/accelerator.sh OUT [throughput] [accuracy] [eva6] [eva4]
#
# Without a list it does all four. OUT gets tables, logs with wall times, and the studies' reports. It needs JAX and what
# kernorm needs, but not TensorFlow.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?"Usage: $0 OUT [throughput] [accuracy] [eva6] [eva4]"}
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

for part in "${@:-throughput accuracy eva6 eva4}"; do
    for name in $part; do
        case $name in
        eva4 | eva6) work=(study "$name") ;;
        throughput | accuracy) work=("$name") ;;
        *) echo "A part is throughput, accuracy, eva6 or eva4. Received: $name." >&2 && exit 2 ;;
        esac
        began=$SECONDS
        "${work[@]}" 2>&1 | tee "$out/$name.log"
        echo "$name: $((SECONDS - began)) s" | tee -a "$out/seconds.log"
    done
done
