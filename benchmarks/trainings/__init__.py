"""The workloads of the training benchmark: a job for `vivace.train`, and the same training as others write it."""
