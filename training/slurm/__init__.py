"""Training runs as SLURM jobs: `train.sbatch`, and `python -m training.slurm`, which writes and submits one like it."""
