"""Tables, figures and the report page, from the records alone: no model is loaded, and torch is not imported."""
