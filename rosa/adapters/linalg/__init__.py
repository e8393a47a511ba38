"""Linear algebra of subspaces: pure functions of arrays."""
