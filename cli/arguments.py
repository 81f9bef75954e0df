"""What several commands take: ids, which a shell can complete, and `--json`."""

from typing import Annotated

import typer

from cli import completion

JobId = Annotated[
    str,
    typer.Argument(metavar="JOB", help="The job's id, as `epochd jobs` shows it.", autocompletion=completion.job_ids),
]
DatasetId = Annotated[
    str, typer.Argument(metavar="DATASET", help="The dataset's id.", autocompletion=completion.dataset_ids)
]
AsJson = Annotated[bool, typer.Option("--json", help="For other programs: JSON, one document a line.")]
