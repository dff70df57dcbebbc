"""The requests that we make of a bucket, each tried within bounds, each refusal in our words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from modelyard.core.settings import ArtifactsSettings
from modelyard.storage.aws.refusals import code_of
from modelyard.storage.s3.client import Client
from modelyard.storage.s3.location import Location
from modelyard.storage.s3.refusals import NOT_OURS, WrongLengthError, in_our_words
from modelyard.storage.s3.retry import Retry

BLOCK_BYTES = 256 * 1024
CHECKSUM = "SHA256"
"""S3 refuses a part whose bytes are not those that left here."""


class StoppedError(Exception):
    """Another part of the same operation failed."""


class Objects:
    """One bucket. All methods may be called from several threads; UnavailableError("store_unavailable")."""

    def __init__(self, settings: ArtifactsSettings, location: Location) -> None:
        self.location = location
        self._client = Client(settings)
        self._encryption = encryption(settings)

    def exists(self, key: str, retry: Retry) -> bool:
        """Whether the object is there. By listing: asking for an object that is absent is "denied" to whoever may not
        list the whole bucket, and says nothing of a bucket that is absent."""

        def look() -> Any:
            return self._s3.list_objects_v2(Bucket=self.location.bucket, Prefix=key, MaxKeys=1)

        with in_our_words(self.location, "s3:ListBucket"):
            found = retry.run(look)
        return any(each["Key"] == key for each in found.get("Contents", ()))

    def read(self, key: str, most_bytes: int, retry: Retry) -> bytes | None:
        """A small object, None if it is absent; WrongLengthError beyond `most_bytes`."""

        def get() -> bytes:
            content = bytearray()
            for block in _blocks(self._s3.get_object(Bucket=self.location.bucket, Key=key), retry):
                content += block
                if len(content) > most_bytes:
                    raise WrongLengthError(f"more than {most_bytes} bytes")
            return bytes(content)

        with in_our_words(self.location, "s3:GetObject"):
            try:
                return retry.run(get)
            except Exception as error:
                if code_of(error) == "NoSuchKey":
                    return None
                raise

    def read_range(
        self,
        key: str,
        start: int,
        end: int,
        total: int,
        write: Callable[[int, bytes], object],
        retry: Retry,
        stop: threading.Event | None = None,
    ) -> None:
        """Gives the bytes from `start` to before `end` to `write(offset, bytes)`, in order and once each: where the
        answer was cut, the next request begins behind the last byte that came.

        WrongLengthError if the object is not of `total` bytes, or absent. StoppedError once `stop` is set.
        """
        at = start

        def get() -> None:
            nonlocal at
            wanted = f"bytes={at}-{end - 1}"
            answer = self._s3.get_object(Bucket=self.location.bucket, Key=key, Range=wanted)
            if answer.get("ContentRange") != f"bytes {at}-{end - 1}/{total}":
                length = answer.get("ContentRange", "").rpartition("/")[2] or answer.get("ContentLength")
                answer["Body"].close()
                raise WrongLengthError(f"{length} bytes")
            for block in _blocks(answer, retry):
                if stop is not None and stop.is_set():
                    raise StoppedError
                write(at, block)
                at += len(block)

        with in_our_words(self.location, "s3:GetObject"):
            try:
                retry.run(get)
            except Exception as error:
                if code_of(error) in ("NoSuchKey", "InvalidRange"):
                    raise WrongLengthError("no such bytes") from None
                raise

    def put(self, key: str, content: bytes, retry: Retry) -> bool:
        """Writes a small object unless its key is taken; whether it did."""

        def put() -> None:
            self._s3.put_object(
                Bucket=self.location.bucket,
                Key=key,
                Body=content,
                IfNoneMatch="*",
                ChecksumAlgorithm=CHECKSUM,
                **self._encryption,
            )

        return self._written(put, retry)

    def begin(self, key: str, retry: Retry) -> str:
        """Begins a multipart upload; its identifier."""

        def create() -> Any:
            return self._s3.create_multipart_upload(
                Bucket=self.location.bucket, Key=key, ChecksumAlgorithm=CHECKSUM, **self._encryption
            )

        with in_our_words(self.location, "s3:PutObject"):
            return str(retry.run(create)["UploadId"])

    def put_part(self, key: str, upload: str, number: int, content: bytes, retry: Retry) -> dict[str, Any]:
        """Sends one part; what `complete` wants to know of it."""

        def send() -> Any:
            return self._s3.upload_part(
                Bucket=self.location.bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                Body=content,
                ChecksumAlgorithm=CHECKSUM,
            )

        with in_our_words(self.location, "s3:PutObject"):
            answer = retry.run(send)
        sums = {name: answer[name] for name in ("ChecksumSHA256",) if name in answer}
        return {"PartNumber": number, "ETag": answer["ETag"], **sums}

    def complete(self, key: str, upload: str, parts: Sequence[Mapping[str, Any]], retry: Retry) -> bool:
        """Makes the parts an object unless its key is taken; whether it did."""

        def complete() -> None:
            self._s3.complete_multipart_upload(
                Bucket=self.location.bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": list(parts)},
                IfNoneMatch="*",
            )

        return self._written(complete, retry)

    def abort(self, key: str, upload: str) -> None:
        """Gives the parts back, if that is possible; the bucket's lifecycle does it otherwise."""
        with suppress(Exception):
            self._s3.abort_multipart_upload(Bucket=self.location.bucket, Key=key, UploadId=upload)

    def _written(self, write: Callable[[], None], retry: Retry) -> bool:
        with in_our_words(self.location, "s3:PutObject"):
            try:
                retry.run(write)
            except Exception as error:
                if code_of(error) in NOT_OURS:
                    return False
                raise
        return True

    @property
    def _s3(self) -> Any:
        return self._client.get()


def encryption(settings: ArtifactsSettings) -> dict[str, str]:
    """The headers of every write. Without a key's name the bucket's own is used, or the account's for S3."""
    if settings.encryption == "bucket":
        return {}
    named = {"SSEKMSKeyId": settings.kms_key_id} if settings.kms_key_id else {}
    return {"ServerSideEncryption": settings.encryption, **named}


def _blocks(answer: Any, retry: Retry) -> Iterator[bytes]:
    """The body, as it comes: a read that waits for a whole block would wait for ever on a store that dribbles. Raises
    if less comes than was announced."""
    left = int(answer["ContentLength"])
    with answer["Body"] as raw:  # urllib3's response: botocore's own has no read1
        while left:
            retry.check()
            block = raw.read1(min(BLOCK_BYTES, left))
            if not block:
                raise _cut_short()
            left -= len(block)
            yield block
        raw.read()  # nothing: but only then is the connection given back for the next request


def _cut_short() -> Exception:
    from urllib3.exceptions import ProtocolError

    made: Exception = ProtocolError("cut short")
    return made
