"""What the numbers of README.md and docs/ come from. Each prints a ratio of things measured side by side in one run."""
