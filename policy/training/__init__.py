"""How every method is trained: one loop, checkpoints, several processes, stopping, scalars, losses."""
