#!/usr/bin/env bash
# sbatch --nodes=N cluster/slurm.sh train CONFIG key=value ...: a Ray node on each node of the job, `rec` on the first.
#
# In the environment, if wanted:
#   REC_HEAD_ADDRESS  address of the first node that the others reach (default: the first of `hostname -I`)
#   REC_WAIT_S        seconds to wait for all nodes (default: 300)
#   REC_REQUEUE=1     queues the job again when its time is nearly over; the same command goes on
#SBATCH --job-name=rec
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=rec-%j.log
#SBATCH --signal=B:TERM@120
set -euo pipefail
umask 077

if [ "$#" -eq 0 ]; then
  echo "usage: sbatch --nodes=N cluster/slurm.sh COMMAND CONFIG key=value ..." >&2
  exit 2
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
count=${#nodes[@]}
read -r first _ < <(hostname -I)
address=${REC_HEAD_ADDRESS:-$first}
port=$((20000 + SLURM_JOB_ID % 10000)) # what a job before left behind has another one
folder=/tmp/rec-$SLURM_JOB_ID
export RAY_ADDRESS=$address:$port RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# In the environment, never in a command: commands are seen by everybody on a node.
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
export RAY_AUTH_TOKEN

workers='' command='' again=0
# shellcheck disable=SC2317
finish() {
  trap - EXIT
  if [ -n "$workers" ]; then
    kill -TERM "$workers" 2>/dev/null || true
    wait "$workers" 2>/dev/null || true
  fi
  ray stop --grace-period 10 >/dev/null 2>&1 || true
  timeout 30 srun --overlap --nodes="$count" --ntasks="$count" rm -rf -- "$folder" || true
  if [ "$again" = 1 ]; then
    scontrol requeue "$SLURM_JOB_ID" || true
  fi
}
# shellcheck disable=SC2317
told() {
  again=${REC_REQUEUE:-0}
  if [ -n "$command" ]; then
    kill -TERM "$command" 2>/dev/null || true
  else
    exit 143
  fi
}
trap finish EXIT
trap told TERM

ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$SLURM_CPUS_ON_NODE" \
  --temp-dir="$folder" --include-dashboard=false
if [ "$count" -gt 1 ]; then
  # Each node counts its own CPUs. The quotes keep the variable for there.
  # shellcheck disable=SC2016
  srun --overlap --nodes="$((count - 1))" --ntasks="$((count - 1))" --nodelist="$(IFS=,; echo "${nodes[*]:1}")" \
    bash -c 'exec ray start --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_ON_NODE" --block' &
  workers=$!
fi
python - "$count" "${REC_WAIT_S:-300}" <<'END'
import sys
import time

import ray

count, patience_s = int(sys.argv[1]), float(sys.argv[2])
ray.init(log_to_driver=False, logging_level="ERROR")
end = time.monotonic() + patience_s
while (there := sum(node["Alive"] for node in ray.nodes())) < count:
    if time.monotonic() > end:
        raise SystemExit(f"{there} of {count} nodes came up in {patience_s:g} s; their part of the log says why")
    time.sleep(1)
END

rec "$@" &
command=$!
status=0
wait "$command" || status=$?
# A notice ends the wait before the command has ended.
while kill -0 "$command" 2>/dev/null; do
  status=0
  wait "$command" || status=$?
done
exit "$status"
