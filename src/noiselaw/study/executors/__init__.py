"""Where runs execute: this machine, a Ray cluster, a Slurm cluster. One small protocol for all (`protocol.py`)."""
