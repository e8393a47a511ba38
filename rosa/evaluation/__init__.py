"""Evaluation of trained models: metrics of their predictions, decoding, and scores of generated text."""
