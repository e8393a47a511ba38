"""The mini scale, for work offline: generated texts, and small models that the project pretrains on them."""
