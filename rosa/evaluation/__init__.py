"""What a trained model is worth: metrics over its predictions."""
