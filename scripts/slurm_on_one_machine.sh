#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine for the time of one command: slurm_on_one_machine.sh COMMAND [ARGUMENT ...]
# Needs slurm-wlm and munge (Debian, Ubuntu: apt-get install slurm-wlm munge) and root; no systemd, nothing outside a
# temporary folder is written. Each node has as many cores as the machine. Ends with the command's exit code.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
for program in munged slurmctld slurmd; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || {
        echo "slurm_on_one_machine.sh: no $program here; apt-get install slurm-wlm munge" >&2
        exit 2
    }
done
[ "$(id -u)" = 0 ] || { echo "slurm_on_one_machine.sh: slurmd must be started as root" >&2; exit 2; }
export PATH=$PATH:/usr/sbin:/sbin

folder=$(mktemp -d)
host=$(hostname -s)
port=$((20000 + $$ % 20000))
daemons=()
stop() {
    scancel --user "$(id -un)" 2>/dev/null || true
    for ((index = ${#daemons[@]} - 1; index >= 0; index--)); do
        kill "${daemons[index]}" 2>/dev/null || true
        wait "${daemons[index]}" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 130' INT TERM

mkdir "$folder/state" "$folder/n1" "$folder/n2"
chmod 755 "$folder"
dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 2>/dev/null
chmod 400 "$folder/munge.key"
cat >"$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=6
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=30
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_min_interval=0
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$(nproc)
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=$(nproc)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

munged --foreground --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
    --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed" --log-file="$folder/munged.log" \
    >"$folder/munged.out" 2>&1 &
daemons+=($!)
for _ in $(seq 100); do [ -S "$folder/munge.socket" ] && break || sleep 0.1; done
slurmctld -D >"$folder/slurmctld.log" 2>&1 &
daemons+=($!)
for node in n1 n2; do
    slurmd -D -N "$node" >"$folder/$node.log" 2>&1 &
    daemons+=($!)
done
for _ in $(seq 300); do
    [ "$(sinfo --noheader --format %D --states idle 2>/dev/null)" = 2 ] && break || sleep 0.1
done
[ "$(sinfo --noheader --format %D --states idle)" = 2 ] || {
    echo "slurm_on_one_machine.sh: the nodes did not come up" >&2
    tail -n 20 "$folder"/*.log "$folder"/*.out >&2
    exit 2
}
"$@"
