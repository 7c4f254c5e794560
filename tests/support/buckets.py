"""A real S3 server in a thread of the tests, and buckets on it."""

from __future__ import annotations

import json
import logging
from typing import Any, Self
from uuid import uuid4

import boto3
import httpx
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class S3Server:
    """A context manager. `admin` is boto3's client, which may do everything. Its requests are not logged."""

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.admin = self._client("s3")
        self._keys: tuple[str, str] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self.demand_no_keys()  # whether keys are checked is a setting of all servers of this process
        self._server.stop()

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="admin",
            aws_secret_access_key="admin",
        )

    def bucket(self, **objects: bytes) -> str:
        """The name of a new bucket with these objects."""
        name = f"b-{uuid4().hex[:12]}"
        self.admin.create_bucket(Bucket=name)
        for key, content in objects.items():
            self.put(name, key, content)
        return name

    def put(self, bucket: str, key: str, content: bytes, media_type: str = "text/markdown") -> None:
        """Write one object."""
        self.admin.put_object(Bucket=bucket, Key=key, Body=content, ContentType=media_type)

    def fill(self, bucket: str, names: list[str]) -> None:
        """Many small objects at once, put behind the server's back: a thousand requests would take half a minute."""
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for name in names:
            backend.put_object(bucket, name, name.encode())

    def demand_keys(self) -> tuple[str, str]:
        """From now on keys and signatures are checked, those of `admin` too: a key and secret that may do all."""
        if self._keys is None:
            iam = self._client("iam")
            name = f"reader-{uuid4().hex[:12]}"  # users, too, are of all servers of this process
            iam.create_user(UserName=name)
            iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
            key = iam.create_access_key(UserName=name)["AccessKey"]
            self._keys = key["AccessKeyId"], key["SecretAccessKey"]
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0").raise_for_status()
        return self._keys

    def demand_no_keys(self) -> None:
        """Undo `demand_keys`."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"inf").raise_for_status()
