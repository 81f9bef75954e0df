"""What is installed without torch serves: the wheel with the API's dependencies alone, in an environment of its own."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import httpx
import pyarrow
import pyarrow.parquet

from tests.services import RedisServer, wait_for

ROOT = Path(__file__).parents[2]


def test_the_api_starts_and_migrates_from_a_wheel_without_torch(tmp_path: Path, redis: RedisServer) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--constraint",
        str(ROOT / "requirements.lock"),
        str(ROOT),
    ]
    subprocess.run(install, check=True)
    has_torch = subprocess.run([str(python), "-c", "import torch"], capture_output=True, check=False)
    assert has_torch.returncode != 0

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EPOCHD_", "PYTHON"))}
    environment |= {"EPOCHD_DATA_DIR": str(tmp_path / "data"), "EPOCHD_REDIS_URL": redis.url}
    bin_folder = python.parent
    subprocess.run([str(bin_folder / "epochd"), "migrate"], env=environment, cwd=tmp_path, check=True)
    socket = tmp_path / "api.sock"
    parquet = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"input_ids": [[1, 2]]}), parquet)
    api = subprocess.Popen(
        [str(bin_folder / "uvicorn"), "--factory", "app.main:app", "--uds", str(socket)], env=environment, cwd=tmp_path
    )
    try:
        wait_for(socket.exists, seconds=60, what="the API's socket")
        key = (tmp_path / "data" / "key").read_text().strip()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost") as client:
            for name, content in (("a.txt", b"some text"), ("a.parquet", parquet.getvalue())):
                dataset = client.post(
                    "/datasets", files={"file": (name, content)}, headers={"Authorization": f"Bearer {key}"}, timeout=60
                )
                assert dataset.status_code == 201, dataset.text
                assert dataset.json()["rows"] == 1
    finally:
        api.terminate()
        api.wait(30)
