"""Deleted tokenizers

Revision: 0009, after 0008.
"""

import sqlalchemy as sa

from alembic import op
from core.database import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("tokenizers", sa.Column("deleted_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("tokenizers", "deleted_at")
