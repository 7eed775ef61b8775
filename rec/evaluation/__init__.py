"""What trained models are measured by: tasks, records of examples, baselines, comparisons."""
