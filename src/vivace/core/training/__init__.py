"""The nouns of training: the job, the rig that a plan makes of it, and what a proof of parity says."""
