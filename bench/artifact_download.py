"""`python -m bench.artifact_download`: an artifact out of an object store, by the artifact store (each byte hashed) and
by boto3's `download_file`, in turns, with the same size of parts and as many connections; from moto's server and from
one that sends files (bench/object_store.py), each on the other core.

`--gib 5` sends and fetches an artifact of that size instead, through the second server, each in a process of its own,
and prints the most memory that each took. It needs three times the artifact's size on the disk of `--folder`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.servers import CLIENT_CORE, HERE, SERVER_CORE, free_port, started
from modelyard.core.clock import SystemClock
from modelyard.core.settings import ArtifactsSettings
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.storage.artifacts import open_artifacts
from modelyard.storage.s3.download import Download
from modelyard.storage.s3.location import Location
from modelyard.storage.s3.objects import Objects
from modelyard.storage.s3.retry import Retry
from modelyard.testing import manifest

MIB = 1024 * 1024
BUCKET, FILE = "models", "weights.bin"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}  # fmt: skip
TIMEOUT_S = 3600.0


def made(folder: Path, size_bytes: int) -> tuple[str, Manifest]:
    """A version of one file, in `folder`: its digest and its manifest."""
    folder.mkdir(parents=True)
    seen, block = hashlib.sha256(), os.urandom(MIB)
    with (folder / FILE).open("wb") as file:
        for number in range(size_bytes // MIB):
            piece = number.to_bytes(8, "big") + block[8:]
            file.write(piece)
            seen.update(piece)
    whole = msgspec.structs.replace(manifest({FILE: b""}), files=(FileEntry(FILE, seen.hexdigest(), size_bytes),))
    (folder / "manifest.json").write_bytes(msgspec.json.encode(whole))
    return whole.digest(), whole


def settings(url: str, **more: Any) -> ArtifactsSettings:
    """A store in the bucket of this server."""
    return ArtifactsSettings(url=f"s3://{BUCKET}", endpoint_url=url, encryption="bucket", timeout_s=TIMEOUT_S, **more)


@contextmanager
def moto(_folder: Path) -> Iterator[str]:
    """Moto's server, with the bucket."""
    import boto3

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, core=CLIENT_CORE):
        boto3.session.Session().client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
        yield url


@contextmanager
def files(folder: Path) -> Iterator[str]:
    """The server that sends files, with the bucket."""
    port = free_port()
    (folder / BUCKET).mkdir(parents=True)
    command = map(str, (sys.executable, HERE / "object_store.py", folder, ArtifactsSettings().part_bytes, port))
    with started(list(command), port, core=CLIENT_CORE):
        yield f"http://127.0.0.1:{port}"


def by_us(chosen: ArtifactsSettings, digest: str, whole: Manifest, folder: Path) -> None:
    """The files, hashed, as a fetch of the cache has them written."""
    location = Location.parse(chosen.url or "")
    (folder / FILE).touch()
    os.truncate(folder / FILE, whole.files[0].size_bytes)
    retry = Retry(chosen.attempts, chosen.timeout_s, SystemClock())
    Download(Objects(chosen, location), digest, folder, retry).run(whole, chosen.part_bytes, chosen.connections)


def by_boto3(chosen: ArtifactsSettings, digest: str, _whole: Manifest, folder: Path) -> None:
    """boto3 as its documentation does it."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    config = Config(max_pool_connections=chosen.connections, response_checksum_validation="when_required")
    client = boto3.session.Session().client("s3", endpoint_url=chosen.endpoint_url, config=config)
    parts = TransferConfig(
        multipart_threshold=chosen.part_bytes, multipart_chunksize=chosen.part_bytes, max_concurrency=chosen.connections
    )
    key = Location.parse(chosen.url or "").key(digest, FILE)
    client.download_file(BUCKET, key, str(folder / FILE), Config=parts)


Fetch = Callable[[ArtifactsSettings, str, Manifest, Path], None]
WAYS: dict[str, Fetch] = {"modelyard": by_us, "boto3": by_boto3}


def compared(url: str, folder: Path, version: Path, digest: str, whole: Manifest, passes: int) -> None:
    """Prints MiB a second of each way in each pass, and their medians."""
    chosen = settings(url)
    open_artifacts(chosen, folder / "data", SystemClock()).put(digest, version)
    size_mib = whole.files[0].size_bytes / MIB
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(passes):
        for name, fetch in WAYS.items():
            with tempfile.TemporaryDirectory(dir=folder) as target:
                begun, cpu = time.perf_counter(), time.process_time()
                fetch(chosen, digest, whole, Path(target))
                took, cpu = time.perf_counter() - begun, time.process_time() - cpu
                assert (Path(target) / FILE).stat().st_size == whole.files[0].size_bytes
            rates[name].append(size_mib / took)
            print(f"pass {number + 1}: {name:9} {size_mib / took:8,.0f} MiB/s, CPU {cpu / size_mib * 1e3:.2f} ms a MiB")
    ours, theirs = map(statistics.median, rates.values())
    print(f"medians: modelyard {ours:,.0f} MiB/s, boto3 {theirs:,.0f} MiB/s, ratio {ours / theirs:.2f}", flush=True)


def large(url: str, folder: Path, digest: str) -> None:
    """Sends and fetches the version, each in a process of its own."""
    for what in ("put", "open"):
        command = [sys.executable, "-m", "bench.artifact_download", "--alone", what, url, str(folder), digest]
        subprocess.run(["taskset", "-c", SERVER_CORE, *command], check=True, timeout=2 * TIMEOUT_S)


def alone(what: str, url: str, folder: Path, digest: str) -> None:
    """One operation, and the most memory that this process took."""
    store = open_artifacts(settings(url, cache_bytes=1 << 40), folder / "data", SystemClock())
    store.has(digest)  # boto3 is imported
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.perf_counter()
    if what == "put":
        store.put(digest, folder / "version")
    else:
        store.open(digest)
    took = time.perf_counter() - begun
    size_mib = (folder / "version" / FILE).stat().st_size / MIB
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what:4} {size_mib:,.0f} MiB in {took:.1f} s ({size_mib / took:,.0f} MiB/s): "
        f"at most {most:.0f} MiB of memory, {before:.0f} before",
        flush=True,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench.artifact_download", description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--gib", type=float, default=0, help="one artifact of this size, and its memory")
    parser.add_argument("--folder", type=Path, help="where there is room; the system's temporary folder if unset")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    if asked.alone:
        what, url, folder, digest = asked.alone
        alone(what, url, Path(folder), digest)
        return
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-", dir=asked.folder) as name:
        folder = Path(name)
        size_bytes = int(asked.gib * 1024 or asked.mib) * MIB
        digest, whole = made(folder / "version", size_bytes)
        if asked.gib:
            with files(folder / "store") as url:
                large(url, folder, digest)
            return
        os.sched_setaffinity(0, {int(SERVER_CORE)})
        for server in (moto, files):
            print(f"{size_bytes // MIB} MiB from {server.__name__}; load {os.getloadavg()[0]:.1f}", flush=True)
            with server(folder / server.__name__) as url:
                compared(url, folder / f"of-{server.__name__}", folder / "version", digest, whole, asked.passes)


if __name__ == "__main__":
    main()
