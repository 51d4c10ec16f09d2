"""Services of workers that are no arms: they measure the machine, or a program under a profiler."""
