"""What a job is: its spec, its states, its log, its checkpoints. No HTTP, no torch."""
