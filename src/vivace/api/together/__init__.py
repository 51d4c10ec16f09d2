"""Trainings on several processes: what each rank does, and how the front door speaks to all of them."""
