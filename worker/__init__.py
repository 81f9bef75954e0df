"""Celery in, facts out: claims jobs and supervises a trainer process for each. No torch in this process."""
