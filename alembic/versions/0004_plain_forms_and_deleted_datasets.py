"""Plain forms and deleted datasets

Revision: 0004, after 0003.
"""

import sqlalchemy as sa

from alembic import op
from core.database import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("datasets", sa.Column("plain_format", sa.String(), nullable=True))
    op.add_column("datasets", sa.Column("plain_bytes", sa.BigInteger(), nullable=True))
    op.add_column("datasets", sa.Column("plain_sha256", sa.String(), nullable=True))
    op.add_column("datasets", sa.Column("deleted_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    """Undo."""
    for name in ("deleted_at", "plain_sha256", "plain_bytes", "plain_format"):
        op.drop_column("datasets", name)
