"""Lists of all owners' jobs, as administrators see them

Revision: 0012, after 0011.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_jobs_by_status", "jobs", ["status", "id"])
    op.create_index("ix_job_tags_by_tag", "job_tags", ["tag", "job_id"])
    op.create_index("ix_job_tags_by_status", "job_tags", ["tag", "status", "job_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_job_tags_by_status", "job_tags")
    op.drop_index("ix_job_tags_by_tag", "job_tags")
    op.drop_index("ix_jobs_by_status", "jobs")
