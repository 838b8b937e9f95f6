#!/usr/bin/env bash
# Everything that is claimed of a GPU, measured in under ten minutes on a machine that has torch and torchvision and can
# download nothing:
#
#   benchmarks/gpu.sh
#
# Tests of the GPU; resnet56 -> resnet20 beside a conventional loop (goals: 10 times as fast, an epoch of 50,000 images
# in 1.5 s); four methods in lock-step against one, four seeds against one (goals: at most twice the time); accuracy in
# float32 and bfloat16 on real images; how time and memory grow; and the speeds again with each acceleration left out.
# Every part has a time limit, and one that fails does not stop the others.
#
# Results: files in $OUT (unset: benchmarks/out): summary.md first. Other variables: PYTHON; LIMIT, seconds for all of it;
# PARTS, which of tests, speeds, accuracy, growth and without to measure (unset: all). One call may be too short for all:
# PARTS="tests speeds accuracy", then PARTS="growth without" with another OUT, fit into ten minutes each.
# IEKD_BENCH_DATA, a folder with train/<class>/* and test/<class>/* (else cifar10-jpeg.tar.xz in ../shared/data, or no
# accuracies); SMALL=1, everything at a size for trying it on a CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 COLUMNS=160
python=${PYTHON:-python3}
out=${OUT:-benchmarks/out}
limit=${LIMIT:-570}
parts=" ${PARTS:-tests speeds accuracy growth without} "
mkdir -p "$out" || exit 1
rm -f "$out"/{summary,growth}.md "$out"/{speeds,accuracy}.jsonl "$out"/{tests,log}.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "$*" | tee -a "$out/log.txt"; }

# limited SECONDS COMMAND...: run it, for at most so long and no longer than is left of the whole; 124 out of time
limited() {
  local left=$((limit - SECONDS)) most=$1
  shift
  [ "$left" -gt 5 ] || return 124
  timeout -k 5 "$((left < most ? left : most))" "$@"
}

failed() { # STATUS NAME
  if [ "$1" = 124 ]; then say "$2: out of time"; else say "$2: failed with status $1, see log.txt"; fi
}

missing=$("$python" - <<'PY'
import importlib.util
names = {"PIL": "pillow", **{n: n for n in (
    "torch", "torchvision", "numpy", "scipy", "pydantic", "typer", "rich", "safetensors", "psutil")}}
print(", ".join(package for name, package in names.items() if importlib.util.find_spec(name) is None))
PY
) || exit 1
if [ -n "$missing" ]; then
  say "These Python packages are missing: $missing. Put them on PYTHONPATH, then start again."
  exit 1
fi

if [ -n "${SMALL:-}" ]; then
  common=(--dataset cifar10 --resolution 8 --teacher resnet14 --student resnet8 --batch-size 16 --steps 2)
  few=() fewer=()
  growth=(--images 64,128 --learners 1,2 --students resnet8,resnet14 --epochs 1,2 --steps 2 --resolution 8
    --teacher resnet8 --student resnet8 --batch-size 16)
  accuracy=(--resolution 16 --teacher resnet8 --student resnet8 --epochs 1 --teacher-epochs 1 --auto-encoder-epochs 1
    --batch-size 32 --seeds 0)
else
  common=(--dataset cifar10 --teacher resnet56 --student resnet20 --batch-size 128)
  few=(--steps 150) fewer=(--steps 60) # where many are compared
  growth=(--teacher resnet56 --student resnet20)
  accuracy=(--teacher resnet20 --student resnet8 --epochs 10 --teacher-epochs 10 --auto-encoder-epochs 2 --seeds 0,1,2)
fi

# bench NAME OPTIONS...: iekd bench as one line "NAME <tab> JSON" of speeds.jsonl
bench() {
  local name=$1 status
  shift
  say "--- $name: iekd bench $*"
  limited 150 "$python" -m iekd bench "${common[@]}" "$@" --json >"$work/answer" 2>"$work/errors"
  status=$?
  cat "$work/errors" >>"$out/log.txt"
  if [ "$status" = 0 ]; then
    printf '%s\t%s\n' "$name" "$(tail -n 1 "$work/answer")" >>"$out/speeds.jsonl"
  else
    failed "$status" "$name"
  fi
  return "$status"
}

# without NAME FLAG OPTIONS...: the same with one acceleration left out
without() {
  local name=$1 flag=$2
  shift 2
  # shellcheck disable=SC2086 # an option and its value
  bench "$name, $flag" "$@" $flag
}

wanted() { [[ $parts == *" $1 "* ]]; }

wanted tests && say "--- tests marked cuda"
if ! wanted tests; then :; elif "$python" -c 'import pytest' 2>/dev/null; then
  # the page has no tests of the GPU, and what it needs (gradio) need not be here
  limited 120 "$python" -m pytest -m cuda tests --ignore tests/ui --continue-on-collection-errors -p no:cacheprovider --durations=5 >"$out/tests.txt" 2>&1
  status=$?
  # pytest: 5 means that no test was chosen
  if [ "$status" = 5 ]; then say "there are no tests marked cuda"; elif [ "$status" != 0 ]; then failed "$status" tests; fi
  tail -n 3 "$out/tests.txt"
else
  say "pytest is not here: no tests"
fi

lockstep=(--only ours --methods baseline,ie-ft,ft,kd)
seeds=(--only ours --methods ie-ft --seeds 0,1,2,3)
if wanted speeds; then
  bench "ie-ft" --methods ie-ft || say "ie-ft: no result"
  bench "four methods" "${lockstep[@]}" ${few[@]+"${few[@]}"} || say "four methods: no result"
  bench "four seeds" "${seeds[@]}" ${few[@]+"${few[@]}"} || say "four seeds: no result"
fi

wanted accuracy && say "--- accuracy, fp32 against bf16"
archive=$(ls {..,.}/shared/data/cifar10-jpeg.tar.xz 2>/dev/null | head -n 1)
data=${IEKD_BENCH_DATA:-}
if wanted accuracy && [ -z "$data" ] && [ -n "$archive" ]; then
  # tar alone needs xz, which a bare machine may lack
  unpack='import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="data")'
  mkdir "$work/images" && limited 60 "$python" -c "$unpack" "$archive" "$work/images" || failed $? "unpacking the images"
  train=$(find "$work/images" -type d -name train | head -n 1)
  data=${train%/train}
fi
if wanted accuracy && [ -n "$data" ] && [ -n "${SMALL:-}" ]; then
  (cd "$data" && for class in {train,test}/*/; do
    mkdir -p "$work/few/$class" && find "$class" -type f | sort | head -n 20 | xargs -I{} cp {} "$work/few/$class"
  done)
  data=$work/few
fi
if ! wanted accuracy; then :; elif [ -n "$data" ]; then
  for precision in fp32 bf16; do
    limited 120 "$python" -m iekd train --dataset "folder:$data" --methods baseline,ie-ft "${accuracy[@]}" \
      --precision "$precision" --name "$precision" --runs-dir "$work/runs" --json >"$work/answer" 2>>"$out/log.txt"
    status=$?
    if [ "$status" = 0 ]; then
      printf '%s\t%s\n' "$precision" "$(tail -n 1 "$work/answer")" >>"$out/accuracy.jsonl"
    else
      failed "$status" "accuracy, $precision"
    fi
  done
  cat "$work"/runs/2*/log.txt >>"$out/log.txt"
else
  say "no images: set IEKD_BENCH_DATA to a folder with train/ and test/"
fi

if wanted growth; then
  say "--- growth"
  limited 180 "$python" benchmarks/growth.py "${growth[@]}" >"$out/growth.md" 2>>"$out/log.txt" || failed $? growth
fi

if wanted without; then # what tells most comes first: time may run out
  without "four seeds" --no-stack "${seeds[@]}" ${fewer[@]+"${fewer[@]}"}
  without "four methods" --no-graph "${lockstep[@]}" ${fewer[@]+"${fewer[@]}"}
  for flag in "--precision fp32" --no-graph --eager; do
    without "ie-ft" "$flag" --only ours --methods ie-ft ${fewer[@]+"${fewer[@]}"}
  done
  without "four seeds" "--precision fp32" "${seeds[@]}" ${fewer[@]+"${fewer[@]}"}
  without "four methods" "--precision fp32" "${lockstep[@]}" ${fewer[@]+"${fewer[@]}"}
  without "four seeds" --no-graph "${seeds[@]}" ${fewer[@]+"${fewer[@]}"}
  without "four methods" --eager "${lockstep[@]}" ${fewer[@]+"${fewer[@]}"}
  without "ie-ft" --compile --only ours --methods ie-ft ${fewer[@]+"${fewer[@]}"} # with one more, to see whether it pays
fi

"$python" - "$out" <<'PY' | tee "$out/summary.md"
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])


def lines(name):
    path = out / name
    pairs = (line.split("\t", 1) for line in path.read_text().splitlines()) if path.exists() else ()
    return {key: json.loads(value) for key, value in pairs}


speeds = lines("speeds.jsonl")
if speeds:
    one = next(iter(speeds.values()))
    print(f"# {one['machine']['device']}, torch {one['machine']['versions']['torch']}, {one['date']}\n")
    print(f"`{one['command']}`\n")


def goal(what, value, most=None, least=None, unit=""):
    met = value <= most if least is None else value >= least
    bound = f"at most {most}" if least is None else f"at least {least}"
    print(f"- {what}: {value:.2f}{unit} (goal: {bound}{unit}): {'met' if met else 'NOT met'}")


def step(report, name):
    return report["ours"][name]["seconds_per_step"]


if "ie-ft" in speeds:
    found = speeds["ie-ft"]
    goal("ie-ft, times as fast as the conventional loop", found["times_as_fast"]["ie-ft"], least=10)
    goal("ie-ft, 50,000 images", step(found, "ie-ft") * (50_000 // found["batch_size"]), most=1.5, unit=" s")
    if found["roofline"]["fraction"]:
        print(f"- share of the roofline: {found['roofline']['fraction']:.1%}; memory {found['memory'] / 1e9:.2f} GB")
for name, report in speeds.items():
    if name in ("four methods", "four seeds"):
        goal(f"{name} against ie-ft alone", step(report, "together") / step(report, "ie-ft"), most=2)
print("\n| measurement | variant | precision | images/s | range | ms per step | conventional images/s |\n" + "|---" * 7 + "|")
for name, report in speeds.items():
    for variant, speed in report["ours"].items():
        if variant == "together" and len(report["learners"]) == 1:
            continue
        low, high = min(speed["rounds"]), max(speed["rounds"])
        theirs = report["conventional"].get(variant)
        print(f"| {name} | {variant} | {report['precision']} | {speed['images_per_second']:,.0f} | {low:,.0f} to {high:,.0f} | "
              f"{1e3 * speed['seconds_per_step']:.2f} | {format(theirs['images_per_second'], ',.0f') if theirs else ''} |")
for precision, report in lines("accuracy.jsonl").items():
    said = [f"{r['method']} seed {r['seed']} {r['accuracy_last']:.2f} %" for r in report["learners"]]
    print(f"\n{precision}: teacher {report['teacher']['accuracy']:.2f} %, " + ", ".join(said))
PY
# a speed that an acceleration has fallen back from is not what it seems to be
fallen=$(grep -hoE "(could not be recorded|cannot be stacked|cannot be compiled|torch.compile)[^;]*" "$out/log.txt" | sort | uniq -c)
[ -z "$fallen" ] || printf '\nFell back:\n\n%s\n' "$fallen" | tee -a "$out/summary.md"
say "$SECONDS s; results are in $out"
