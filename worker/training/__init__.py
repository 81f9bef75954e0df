"""The trainer: a process of its own that knows torch and the spec, and no job, table or queue."""
