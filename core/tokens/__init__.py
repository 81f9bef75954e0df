"""From rows to what the model sees, written once: for the trainer, the preview and the plan alike."""
