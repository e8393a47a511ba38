"""Decode prompts, and store the hypotheses with the settings that produced them."""
