"""Linear algebra of subspaces, as pure functions of tensors and arrays."""
