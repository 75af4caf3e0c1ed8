"""What a restart, or a look after damage, finds of a job in its files. Pure.

Nothing is believed that does not fit its checksum. What is damaged is left out, or cut off where
nothing can be read behind it; what it held is missing then, and run again. At a start only the last
segments of a log are read as a whole, which a crash may have torn; of others the heads.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct, field
from msgspec.structs import replace

from burla.protocol import messages as m
from burla.protocol.store_messages import StoreOpened
from burla.protocol.stored_records import Read, Record, scan

from . import leaves
from .effects import Log
from .leaves import LeafAt
from .progress import OutcomeRecord, Progress

InputRecord = StoreOpened | m.OpenJob | m.Inputs | m.InputPiece | m.InputsEnd


class Segment(Struct, frozen=True):
    """One file of a log."""

    number: int
    size: int
    read: Read
    trusted: int = 0  # bodies up to here were safe long ago: they are looked at when they are read


class BatchAt(Struct, frozen=True):
    """A batch, and where it lies."""

    number: int
    start: int
    stop: int
    segment: int
    at: int
    end: int
    size: int  # bytes of its payload, and of its big leaves
    leaves: tuple[LeafAt, ...] = ()  # big ones, which come behind it

    @classmethod
    def of(
        cls, said: m.Inputs, segment: int, at: int, end: int, size: int, big: tuple[LeafAt, ...]
    ) -> "BatchAt":
        """Return a batch whose record with `size` bytes of payload lies at a place."""
        stop = said.start + sum([leaf.count for leaf in said.leaves])
        size += sum([leaf.size for leaf in big])
        return cls(said.batch, said.start, stop, segment, at, end, size, big)

    def is_whole(self) -> bool:
        """Return whether all pieces of its big leaves are on the disk."""
        return not any([leaf.missing for leaf in self.leaves])

    def held_bytes(self) -> int:
        """Return how many bytes who has it holds: nobody does big leaves."""
        return self.size - sum([leaf.size for leaf in self.leaves])


class Place(Struct):
    """Where the next record of a log goes."""

    segment: int = 0
    at: int = 0
    size: int = 0  # bytes of all segments


class Damage(Struct, frozen=True):
    """What was found to be wrong."""

    log: Log
    segment: int
    at: int
    is_cut: bool  # nothing can be read from there on to the end of the segment
    size: int


class Found(Struct):
    """All that there is of a job."""

    opened: StoreOpened | None = None
    spec: m.OpenJob | None = None  # without its environment
    spec_at: tuple[int, int] = (0, 0)  # where it lies with the function, and where that ends
    batches: list[BatchAt] = field(default_factory=list)  # also those of which pieces are missing
    leaves: dict[int, LeafAt] = field(default_factory=dict)  # big ones of these, by first input
    total: int | None = None
    blobs: frozenset[bytes] = frozenset()  # of its user, that are whole
    progress: Progress = field(default_factory=Progress)
    places: dict[Log, Place] = field(default_factory=lambda: {log: Place() for log in Log})
    damages: list[Damage] = field(default_factory=list)


def find(inputs: Iterable[Segment], outcomes: Iterable[Segment]) -> Found:
    """Return what the segments of a job hold, each in their order."""
    found = Found()
    for segment, record in _records(found, Log.INPUTS, inputs):
        _note_input(found, segment, record)
    for _, record in _records(found, Log.OUTCOMES, outcomes):
        note_outcome(found.progress, record)
    return found


def note_outcome(progress: Progress, record: Record) -> None:
    """Take note of what one record says of the outcomes of a job."""
    said = record.message(OutcomeRecord)
    if isinstance(said, OutcomeRecord):
        progress.note(said, record.end - record.body_at)


def _note_input(found: Found, segment: Segment, record: Record) -> None:
    said = record.message(InputRecord)
    match said:
        case StoreOpened():
            found.opened = said
        case m.OpenJob():
            found.spec, found.spec_at = replace(said, environment=b""), (record.at, record.end)
        case m.Inputs():
            add_batch(found, said, segment.number, record)
            if said.total is not None:
                found.total = said.total
        case m.InputPiece():
            if (leaf := found.leaves.get(said.leaf)) is not None:
                leaf.put(said.start // leaves.PIECE_BYTES, (segment.number, record.at))
        case m.InputsEnd():
            found.total = said.total
        case _:
            pass


def add_batch(found: Found, said: m.Inputs, segment: int, record: Record) -> None:
    """Take note of where a batch lies; one that was written twice counts once."""
    if found.batches and said.batch <= found.batches[-1].number:
        return
    big = tuple([LeafAt(said.batch, leaf) for leaf in said.leaves if leaf.size])
    found.leaves |= {leaf.start: leaf for leaf in big}
    size = record.end - record.body_at
    found.batches.append(BatchAt.of(said, segment, record.at, record.end, size, big))


def _records(
    found: Found, log: Log, segments: Iterable[Segment]
) -> Iterable[tuple[Segment, Record]]:
    place = found.places[log]
    for segment in segments:
        end = 0
        last: Record | None = None
        for record in scan(segment.read, trusted=segment.trusted):
            end = record.end
            if record.is_whole:
                yield segment, record
            else:
                size = record.end - record.at
                found.damages.append(Damage(log, segment.number, record.at, False, size))
            last = record
        if last is not None and not last.is_whole and end == segment.size:
            end = last.at  # the torn or changed end of the file: cut, and written anew
            found.damages[-1] = Damage(log, segment.number, end, True, segment.size - end)
        elif end < segment.size:
            found.damages.append(Damage(log, segment.number, end, True, segment.size - end))
        place.segment, place.at = segment.number, end
        place.size += end


def told(damages: Iterable[Damage], cut: Callable[[Damage], None]) -> list[str]:
    """Cut what is to be cut; return what to say of each, for the log."""
    lines = []
    for one in damages:
        if one.is_cut:
            cut(one)
        how = "cut off" if one.is_cut else "passed over"
        where = f"{one.log}-{one.segment} from byte {one.at} on"
        lines.append(f"{one.size} damaged bytes of {where} are {how}: what they held is run again")
    return lines
