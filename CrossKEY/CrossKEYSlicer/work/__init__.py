"""What is computed: the worker process, and one job at a time."""
