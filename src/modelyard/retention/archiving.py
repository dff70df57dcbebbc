"""Days that leave the database go to the archive first.

A record is deleted only once the file that holds it is durable. A process that dies in between leaves it in both: the
next sweep finds its id in the file, writes it no second time, and deletes it; until then readers take each id once.
"""

from __future__ import annotations

from collections.abc import Callable

from modelyard.core.lease import Fence
from modelyard.retention.ports import Archive, Cutoffs, Deleted, LeavingRecords, Partition

CHUNK = 500
"""Records that are read at once."""


class Archiver:
    """Moves what is due, partition by partition."""

    def __init__(self, leaving: LeavingRecords, archive: Archive, batch: int) -> None:
        self._leaving = leaving
        self._archive = archive
        self._batch = batch

    def run(
        self,
        cutoffs: Cutoffs,
        fence: Fence | None,
        most_batches: int | None,
        still_alone: Callable[[], None],
        going_on: Callable[[], bool],
    ) -> tuple[Deleted, int, bool]:
        """Moves what is older than the cutoff, until `most_batches` were deleted or `going_on()` says no. What was
        deleted, in how many batches, and whether more waits. `still_alone` keeps the lease, and raises once another
        process has it: before each file is seen, and after each batch."""
        predictions = outcomes = batches = 0
        by_partition: dict[Partition, set[str]] = {}
        self._archive.begin()
        while (partition := self._leaving.next_partition(cutoffs)) is not None:
            # Once a partition: what this sweep writes is deleted, and never looked up.
            if partition not in by_partition:
                by_partition = {one: ids for one, ids in by_partition.items() if one.day == partition.day}
                by_partition[partition] = self._archive.ids(partition)
            known = by_partition[partition]
            chunks = self._leaving.leaving(cutoffs, partition, CHUNK)
            part = self._archive.write(partition, chunks, known, still_alone)
            for start in range(0, len(part.ids), self._batch):
                if batches == most_batches:
                    return Deleted(predictions, outcomes), batches, True
                some = part.ids[start : start + self._batch]
                gone = self._leaving.delete_archived(cutoffs, some, part.file or _before(partition.day), fence)
                known |= set(some).difference(gone.ids)  # a hold came meanwhile, and may go again
                predictions, outcomes = predictions + gone.predictions, outcomes + gone.outcomes
                batches += 1
                still_alone()
                if not going_on():
                    return Deleted(predictions, outcomes), batches, True
        return Deleted(predictions, outcomes), batches, False


def _before(day: str) -> str:
    """Files of an earlier sweep that did not end."""
    return f"day={day}"
