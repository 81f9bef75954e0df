"""Uploaded tokenizers

Revision: 0006, after 0005.
"""

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The table was there before, and nothing could fill it."""
    for name in ("format", "end_of_text", "content_sha256"):
        op.add_column("tokenizers", sa.Column(name, sa.String(), nullable=False, server_default=""))
    op.add_column("tokenizers", sa.Column("lossless", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Undo."""
    for name in ("lossless", "content_sha256", "end_of_text", "format"):
        op.drop_column("tokenizers", name)
