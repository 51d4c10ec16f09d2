"""The models of the benchmark: each file gives a Workload and its budget."""
