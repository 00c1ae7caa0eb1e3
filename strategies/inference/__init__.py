"""Loading, scoring, sampling and exporting a version's model: one way for evaluation, export and serving."""
