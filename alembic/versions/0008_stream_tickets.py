"""Stream tickets

Revision: 0008, after 0007.
"""

import sqlalchemy as sa

from alembic import op
from core.database import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "tickets",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"]),
        sa.PrimaryKeyConstraint("job_id", "sha256"),
    )
    op.create_index("ix_tickets_expires_at", "tickets", ["expires_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_tickets_expires_at", table_name="tickets")
    op.drop_table("tickets")
