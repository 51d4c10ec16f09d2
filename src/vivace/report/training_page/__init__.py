"""The page of a training: its figures, and what stands around them, drawn from the document of run.json alone."""
