"""Save-now and deletion

Revision: 0003, after 0002.
"""

import sqlalchemy as sa

from alembic import op
from core.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("save_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("deleted_at", UtcDateTime(), nullable=True))
    deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index("ix_jobs_deleted", "jobs", ["deleted_at"], sqlite_where=deleted, postgresql_where=deleted)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_jobs_deleted", table_name="jobs")
    op.drop_column("jobs", "deleted_at")
    op.drop_column("jobs", "save_requested")
