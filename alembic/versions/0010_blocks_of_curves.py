"""Blocks of curves, and the state of a job beside its tags

Revision: 0010, after 0009.
"""

import sqlalchemy as sa

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Of every 100 batches; of a batch that ran again, the run under the highest fence.
_BLOCKS_OF_ALL_JOBS = """
INSERT INTO curve_blocks
SELECT job_id, (batch - 1) / 100, max(epoch), max(batch), max(step), count(batch), sum(learning_rate),
       count(loss), sum(loss), min(loss), max(loss), count(accuracy), sum(accuracy), count(grad_norm), sum(grad_norm)
FROM events AS run
WHERE type = 'batch' AND NOT EXISTS (
    SELECT 1 FROM events AS later
    WHERE later.job_id = run.job_id AND later.type = 'batch' AND later.batch = run.batch AND later.fence > run.fence
)
GROUP BY job_id, (batch - 1) / 100
"""


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "curve_blocks",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("batches", sa.Integer(), nullable=False),
        sa.Column("learning_rate_sum", sa.Float(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("loss_sum", sa.Float(), nullable=True),
        sa.Column("loss_min", sa.Float(), nullable=True),
        sa.Column("loss_max", sa.Float(), nullable=True),
        sa.Column("accuracies", sa.Integer(), nullable=False),
        sa.Column("accuracy_sum", sa.Float(), nullable=True),
        sa.Column("grad_norms", sa.Integer(), nullable=False),
        sa.Column("grad_norm_sum", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "block"),
    )
    op.execute(_BLOCKS_OF_ALL_JOBS)
    op.add_column("job_tags", sa.Column("status", sa.String(), nullable=False, server_default=""))
    op.execute("DELETE FROM job_tags WHERE job_id IN (SELECT id FROM jobs WHERE deleted_at IS NOT NULL)")
    op.execute("UPDATE job_tags SET status = (SELECT status FROM jobs WHERE jobs.id = job_tags.job_id)")
    op.create_index("ix_job_tags_listing_by_status", "job_tags", ["owner_id", "tag", "status", "job_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_job_tags_listing_by_status", table_name="job_tags")
    op.drop_column("job_tags", "status")
    op.drop_table("curve_blocks")
