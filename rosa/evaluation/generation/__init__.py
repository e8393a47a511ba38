"""Decode prompts, and keep the hypotheses with the settings that made them."""
