"""The service's own numbers, for Prometheus: over the jobs of all owners, so for a key with the admin scope."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.dependencies import Admin, TheResources
from app.openapi import problems

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    operation_id="get_service_metrics",
    summary="Read the service's numbers in Prometheus' text format",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
def metrics(_: Admin, resources: TheResources) -> Response:
    """Return jobs by status, failures by code, the queue's age, watchers, and what this process has sent."""
    return Response(resources.telemetry.text(), media_type=CONTENT_TYPE_LATEST)
