"""What a section of the settings is, and the section of models: publishing, loading, signatures, the jail."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class Section(BaseModel):
    """One table of the configuration; frozen, unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelsSettings(Section):
    """Publishing and loading."""

    max_version_bytes: int = Field(8 * 1024 * MIB, ge=1024, description="Largest version that can be published.")
    publish_timeout_s: float = Field(120, gt=0, description="Parse, warm-up and example of a publish, together.")
    publish_memory_bytes: int = Field(8 * 1024 * MIB, ge=64 * MIB, description="Memory of the publish check's process.")
    trusted_types: tuple[str, ...] = Field((), description="Types that a skops file may hold beyond the safe ones.")
    require_signature: bool = Field(False, description="Only versions of trusted signers are published and loaded.")
    trusted_signers: tuple[str, ...] = Field(
        (), description="Public keys and certificates of who may sign versions: PEM, `ed25519:BASE64`, or a file of it."
    )
    unsafe_formats: tuple[Literal["python", "pickle"], ...] = Field(
        (), description="Formats whose files are programs, allowed from trusted signers, in a jail: `python`, `pickle`."
    )
    jail_memory_bytes: int = Field(
        2 * 1024 * MIB, ge=256 * MIB, description="Memory of a jailed process; of a shared one, beside the model."
    )
    jail_tensor_bytes: int = Field(
        128 * MIB,
        ge=MIB,
        le=4096 * MIB,
        description="Most bytes of a run's inputs, and of its outputs, in another process.",
    )
    shared_from_bytes: int = Field(
        256 * MIB,
        ge=0,
        description="Versions at least so large are held once for all workers, in one process; 0: never.",
    )
    max_run_s: float = Field(
        60, gt=0, description="A run longer than this hangs: its worker is replaced, or its own process."
    )
    unhealthy_deaths: int = Field(5, ge=1, description="Workers, or processes of a version, that may die in its run.")
    unhealthy_within_s: float = Field(60, gt=0, description="The time in which those deaths count.")
    max_threads: int | None = Field(None, ge=1, description="Threads for numeric libraries; from the cgroup if unset.")
    parallel_loads: int | None = Field(
        None, ge=1, le=64, description="Versions that a worker loads at once; as many as it has processors, at most 4."
    )
    admission: bool = Field(True, description="Refuse a version, or traffic to it, that would not fit into memory.")
    memory_bytes: int | None = Field(
        None,
        ge=MIB,
        description="Memory for all models of a host; three quarters of the machine's, or of its cgroup's, if unset.",
    )
    max_idle_versions: int = Field(
        32,
        ge=0,
        description="Versions without traffic that stay in memory; others are loaded once a request names them.",
    )
    pinned: tuple[str, ...] = Field(
        (),
        description="Versions that stay in memory without traffic: `model/version`, or `model` for all of them.",
    )
