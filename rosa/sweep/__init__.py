"""Many runs: their jobs, a local pool, SLURM, progress and status."""
