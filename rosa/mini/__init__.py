"""The offline stand-in: generated texts, and the small models that the project pretrains on them."""
