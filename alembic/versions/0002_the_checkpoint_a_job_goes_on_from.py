"""The checkpoint a job goes on from

Revision: 0002, after 0001.
"""

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("base_checkpoint", sa.String(), nullable=True))
    op.create_index("ix_jobs_base_checkpoint", "jobs", ["base_checkpoint"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_jobs_base_checkpoint", table_name="jobs")
    op.drop_column("jobs", "base_checkpoint")
