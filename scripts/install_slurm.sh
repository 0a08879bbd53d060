#!/usr/bin/env bash
# Slurm's programs for `make test-cluster`, where they are missing: from Debian or Ubuntu's packages, as root.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "installing slurm-wlm and munge ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
else
    echo "make test-cluster needs slurm-wlm and munge, and root to start them (Debian, Ubuntu: apt-get install slurm-wlm munge)" >&2
    exit 1
fi
