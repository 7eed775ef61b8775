#!/usr/bin/env bash
# sbatch --nodes=N cluster/slurm.sh CONFIG key=value ...: one Ray node per Slurm node, then `rec train`.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
set -euo pipefail
umask 077

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=6379
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(openssl rand -hex 32)}

srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$address" --port="$port" --disable-usage-stats --block &
sleep 15
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$head" \
    ray start --address="$address:$port" --block &
  sleep 15
fi

RAY_ADDRESS="$address:$port" rec train "$@"
