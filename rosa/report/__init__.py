"""Tables and figures, made from the records alone: nothing here loads a model, and nothing imports torch."""
