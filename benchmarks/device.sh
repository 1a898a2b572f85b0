#!/usr/bin/env bash
# The engine on a GPU, measured on a machine that has no network and little installed: Linux, an
# NVIDIA GPU, Python 3.12, PyTorch and JAX. The most important part comes first; after BENCH_SECONDS,
# by default eight minutes, the rest is left out. All of it takes about fifteen.
#
#   benchmarks/device.sh pack FOLDER          here: wheels and data for FOLDER, about 60 MB
#   benchmarks/device.sh run FOLDER RESULTS   there: JSON lines in RESULTS, and a table
#
# `pack` takes the data from DATASET_MIRROR. Where FOLDER holds airbench94_muon.py (KellerJordan's
# cifar10-airbench, MIT), that runs on the same pixels. BENCH_LIMIT=600 takes so many images and one
# epoch: a rehearsal, which runs on a CPU as well.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:?pack or run} folder=$(realpath "${2:?a folder}")

if [ "$what" = pack ]; then
  mkdir -p "$folder/wheels"
  names='keras|filelock|optree|namex|pydantic|pydantic-core|annotated-types|typing-inspection|typing-extensions|ruamel-yaml|platformdirs|configobj'
  grep -oE "^($names)==[0-9.]+" requirements/run.txt | xargs python3 -m pip download --quiet \
    --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest "$folder/wheels"
  exec python3 -m benchmarks.device pack "$folder"
fi

results=$(realpath "${3:?a file for the results}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ ! -d "$folder/wheels" ] || python3 -m pip install --quiet --no-index --no-deps --no-compile \
  --target "$work/site" "$folder"/wheels/*.whl
export PYTHONPATH="$work/site:$PWD" PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
export KERAS_BACKEND=jax XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=3
export XDG_CACHE_HOME="$work/cache" BENCH_DATA="$work/data" BENCH_RESULTS="$results"

end=$((SECONDS + ${BENCH_SECONDS:-470}))
part() {   # SECONDS NAME ARGUMENT…: one part in a process of its own; what fails stops no other
  local most=$1 left=$((end - SECONDS)); shift
  [ "$left" -lt "$most" ] && most=$left
  if [ "$most" -le 5 ]; then echo "$*: no time left"; return; fi
  echo "== $* (at most $most s)"
  GPU_LOCK_FOLDER=$(mktemp -d -p "$work") timeout "$most" python3 -m benchmarks.device "$@" \
    || echo "$*: ended with $?"
}

# Everything is imported once: what is missing is missing everywhere.
python3 -m benchmarks.device check
part 60 prepare "$folder/data.tar"
part 30 roof
part 60 engine wide cold
part 30 engine wide disk
part 30 engine wide warm
part 50 engine wide2000 warm
part 60 engine fast seeds
tutorials="mnist.cnn cifar10_images.cnn fashion_mnist.cnn fashion_mnist.dense cifar10_images.dense cifar10_images.cnn_bn"
for name in $tutorials; do part 40 tutorial engine "$name"; done
for name in $tutorials; do part 40 tutorial bare "$name"; done
part 200 full cifar10_images.cnn_bn
[ ! -f "$folder/airbench94_muon.py" ] || part 100 anchor "$folder/airbench94_muon.py"
part 70 backbone
part 40 profile
# Side by side, as nothing here is timed: further seeds, to see whether both sides learn the same.
for name in mnist.cnn fashion_mnist.dense cifar10_images.dense; do
  part 150 tutorial engine "$name" 1 30 &
  for first in 1 2 3 4; do part 150 tutorial bare "$name" $first 12 4 & done
done
part 60 tests
wait
python3 -m benchmarks.device results
