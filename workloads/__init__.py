"""What is measured: one folder per workload, found by folder."""
