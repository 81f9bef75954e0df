"""`GET /jobs/{id}/logs`: what a job's trainers wrote."""

from tests.app.served import ON_SQLITE, Api


@ON_SQLITE
def test_the_owner_reads_what_each_attempt_wrote(api: Api) -> None:
    worker = api.worker()
    address = f"/jobs/{worker.job_id}/logs"
    assert api.http.get(address).json() == {"data": []}
    worker.write(1, "one")
    worker.write(900, "of many\nthe last")
    worker.requeue_and_claim()
    worker.write(1, "again")
    told = api.http.get(address).json()["data"]
    assert [(row["attempt"], row["lines"], row["text"]) for row in told] == [
        (2, 1, "again"),
        (1, 900, "of many\nthe last"),
    ]
    foreign = api.http.get(address, headers=api.other_key("someone else"))
    assert (foreign.status_code, api.http.get(address, headers={"Authorization": ""}).status_code) == (404, 401)
