"""The bodies of answers about datasets and uploads, as clients see them."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from core.models import Dataset


class RowWarning(BaseModel):
    """What is to be known of a row: that it will be skipped, say, and why."""

    line: int
    message: str


class LengthSpan(BaseModel):
    """How many rows have a length of this span: in tokens where rows are token ids, in characters elsewhere."""

    model_config = ConfigDict(populate_by_name=True)

    from_: int = Field(alias="from")
    to: int
    rows: int


class DatasetReport(BaseModel):
    """What the look through the file found: the first warnings, and numbers over all rows.

    A dataset that an earlier version looked through has no more than the warnings.
    """

    warnings: list[RowWarning]
    skipped_rows: int
    duplicate_rows: int | None = Field(default=None, description="rows that an earlier row equals")
    duplicates_are_estimated: bool = Field(default=False, description="true where there are more than a million rows")
    characters: int | None = None
    tokens: int | None = None
    lengths: list[LengthSpan] = []


class DatasetBody(BaseModel):
    """An uploaded dataset. `report_url` lists every warning."""

    id: str
    filename: str
    format: str
    encoding: str
    split: str
    bytes: int
    sha256: str
    rows: int
    columns: list[str]
    created_at: datetime
    report: DatasetReport
    report_url: str

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetBody":
        """Return a dataset as clients see it."""
        format_, _, encoding = dataset.format.partition("+")
        columns = dataset.model_dump(include=cls.model_fields.keys() - {"format", "encoding", "report_url"})
        url = f"/datasets/{dataset.id}/report"
        return cls.model_validate({**columns, "format": format_, "encoding": encoding or "utf-8", "report_url": url})


class UploadBody(BaseModel):
    """A file on its way: `offset` of its `bytes` are here. Once it is complete `dataset` names what it became."""

    id: str
    filename: str
    bytes: int
    sha256: str
    offset: int
    dataset: str | None
    expires_at: datetime


class DatasetPage(BaseModel):
    """Datasets, newest first."""

    data: list[DatasetBody]
    next_cursor: str | None

    @classmethod
    def of(cls, found: list[Dataset], limit: int) -> "DatasetPage":
        """Return the page of up to `limit` rows of a query for one more."""
        data = [DatasetBody.of(row) for row in found[:limit]]
        return cls(data=data, next_cursor=data[-1].id if len(found) > limit else None)
