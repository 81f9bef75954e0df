"""The tokenizer a job reads with

Revision: 0007, after 0006.
"""

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("tokenizer_id", sa.String(), nullable=True))
    op.create_index("ix_jobs_tokenizer_id", "jobs", ["tokenizer_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_jobs_tokenizer_id", table_name="jobs")
    op.drop_column("jobs", "tokenizer_id")
