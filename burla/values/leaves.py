"""Inputs <-> batches of leaves.

A batch is cut lazily from any iterable and never changes again. An input that is mutable is a
pickle of its own, so that a function which changes one input cannot change another; numbers,
strings and tuples of them share one pickle per leaf; `range` and NumPy arrays are sliced and never
unrolled.
"""

import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any, overload

from .explain import describe_error, why_not_picklable
from .frames import Frames, NotLoadableError, Pieces, take_apart_plain
from .pickling import InputPickler, Sent, load_definitions, loads, refresh_dispatch_table
from .shared_memory import SHARE_BYTES_MIN

LEAF_INPUTS_MAX = 256  # a span that needs one input makes its whole leaf travel
LEAF_ATOMS_MAX = 16384  # the same for plain numbers and texts: unpickled in 0.5 ms
LEAF_BYTES_MAX = 1 << 16  # the same; a bigger input is alone in its leaf
LEAF_BYTES_AIM = LEAF_BYTES_MAX * 7 // 8  # of the next leaf, if inputs are as long as those before
BATCH_INPUTS_FIRST = 8  # so that work starts at once
BATCH_INPUTS_FIRST_LAZY = 1  # who knows when an iterator gives its second
BATCH_GROWTH = 8
BATCH_INPUTS_MAX = 1 << 16
BATCH_BYTES_MAX = 1 << 20  # no new leaf is begun beyond
BATCH_WAIT_S = 0.003  # what was pulled is sent after this long, however slow the iterator is

ATOMS = frozenset((int, float, str, bytes, bool, type(None), complex))  # immutable, hold nothing

Check = Callable[[Sequence[Any], int], None]  # (inputs, index of the first): raises TypeError


class InputNotLoadableError(NotLoadableError):
    """The input at `offset` of a leaf cannot be unpickled here; the others can."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Leaf:
    """A run of inputs pickled together.

    One of SHARE_BYTES_MIN and more may alias the input until its frames are taken, or it is put
    down in memory; nothing else may happen before.
    """

    count: int
    body: tuple[bytes, ...] | Pieces

    @property
    def frames(self) -> Frames:
        """Return the frames to send."""
        return self.body.cut() if isinstance(self.body, Pieces) else self.body

    @property
    def bytes(self) -> int:
        """Return the size of all frames."""
        return self.body.size if isinstance(self.body, Pieces) else sum(map(len, self.body))


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive inputs that are sent together."""

    start: int  # index of the first input
    count: int
    leaves: tuple[Leaf, ...]
    bytes: int  # of all frames


def are_atoms(values: Sequence[Any]) -> bool:
    """Return whether all are immutable builtins, or tuples of such: sharing does no harm."""
    kinds = set(map(type, values))
    if kinds <= ATOMS:
        return True
    if tuple not in kinds or not kinds <= _ATOMS_AND_TUPLE:
        return False
    tuples = values if len(kinds) == 1 else [v for v in values if type(v) is tuple]
    return ATOMS.issuperset(map(type, chain.from_iterable(tuples)))


_ATOMS_AND_TUPLE = ATOMS | {tuple}
_NUMBERS = frozenset((int, float, bool))


class AtomsPickler:
    """Pickles lists of which `are_atoms` is true, in little more time than the pickling takes."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self.write = self._written.append
        self._strict = _StrictPickler(self, 5)

    def dump(self, values: list[Any]) -> bytes | None:
        """Return one pickle of the list; None: it holds something else."""
        if values and type(values[0]) in _NUMBERS:
            # Looking at each type would take as long as pickling: only builtins come through the
            # strict pickler, and of those it remembers all but numbers, None and ().
            try:
                self._strict.dump(values)
                if len(self._strict.memo.copy()) == 1:  # the list itself
                    return b"".join(self._written)
            except (_NotBuiltinError, RecursionError):
                pass
            finally:
                self._strict.clear_memo()
                self._written.clear()
        return pickle.dumps(values, 5) if are_atoms(values) else None


class _StrictPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        raise _NotBuiltinError


class _NotBuiltinError(Exception):
    """Something is not exactly of a builtin type."""


def cut_batches(
    inputs: Iterable[Any],
    sent: Sent | None = None,
    check: Check | None = None,
    clock_s: Callable[[], float] = time.monotonic,
    room: Callable[[], int] | None = None,
    index_of: Callable[[int], int] = int,
    first: int = 0,
) -> Iterator[Batch]:
    """Yield all inputs in batches, pulling from `inputs` no more than each batch needs.

    Args:
        inputs: any iterable; what it raises comes out as it is.
        sent: what `dump_function` has sent with the function, so that it isn't sent again.
        check: told the inputs before they are pickled.
        clock_s: the clock for BATCH_WAIT_S.
        room: how many inputs may be pulled now; one always is. None: any number.
        index_of: which index errors name for one of these inputs.
        first: index of the first one, of an iterator of which others were cut before.

    Raises:
        TypeError: an input cannot be pickled, or `check` refused it; the text names its index.
    """
    start, limit = first, BATCH_INPUTS_FIRST
    total = None  # how many there are, where that is known
    if type(inputs) is list or type(inputs) is tuple:
        packer, total = Packer(sent, index_of), len(inputs)
        packer.run = 1 if inputs and _is_big(inputs[0]) else LEAF_INPUTS_MAX
        take, check = _take_slices(inputs, packer, check), None  # done there
    elif type(inputs) is range:
        take = _take_range(inputs)
    elif is_sliceable_array(inputs):
        take = _take_array(inputs)
    else:
        limit = BATCH_INPUTS_FIRST_LAZY
        take = _take_one_by_one(iter(inputs), Packer(sent, index_of), check, clock_s)
        check = None  # done there
    while start != total:
        count_max = limit if total is None else min(limit, total - start)
        if room is not None:
            count_max = max(1, min(count_max, room()))
        batch = _cut_batch(take, start, count_max, check, clock_s)
        if batch is None:
            return
        start += batch.count
        limit = min(limit * BATCH_GROWTH, BATCH_INPUTS_MAX)
        given = [batch]
        del batch  # nothing is held here of what it may alias, while others go on
        yield given.pop()


def is_lazy(inputs: object) -> bool:
    """Return whether inputs are had only by advancing an iterator, which may use them up."""
    return type(inputs) not in (list, tuple, range) and not is_sliceable_array(inputs)


# take(start, count_max, until_s) -> the next leaves; [] at the end of the inputs
_Take = Callable[[int, int, float], Sequence[Leaf]]


def _cut_batch(
    take: _Take, start: int, limit: int, check: Check | None, clock_s: Callable[[], float]
) -> Batch | None:
    until_s = clock_s() + BATCH_WAIT_S
    leaves: list[Leaf] = []
    count = size = 0
    while count < limit and size < BATCH_BYTES_MAX and (not leaves or clock_s() < until_s):
        taken = take(start + count, limit - count, until_s)
        if not taken:
            break
        if check is not None:
            check(load_leaf(taken[0].frames)[:1], start + count)
        for leaf in taken:
            leaves.append(leaf)
            count += leaf.count
            size += leaf.bytes
    return Batch(start, count, tuple(leaves), size) if leaves else None


def is_sliceable_array(inputs: object) -> bool:
    """Return whether these are a NumPy array whose slices say all about its rows."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or type(inputs) is not getattr(numpy, "ndarray", None):
        return False
    array: Any = inputs
    return array.ndim >= 1 and not array.dtype.hasobject


def _is_big(value: object) -> bool:
    """Return whether it is plain that the value has SHARE_BYTES_MIN bytes and more."""
    if type(value) in _NUMBERS:
        return False
    if type(value) in (bytes, bytearray, str):
        return len(value) >= SHARE_BYTES_MIN  # type: ignore[arg-type]  # they have lengths
    return is_sliceable_array(value) and value.nbytes >= SHARE_BYTES_MIN  # type: ignore[attr-defined]


def _take_range(inputs: range) -> _Take:
    def take(start: int, count_max: int, until_s: float) -> Sequence[Leaf]:
        part = inputs[start : start + count_max]
        return [Leaf(len(part), (pickle.dumps(part, 5),))] if part else []

    return take


def _take_array(inputs: Any) -> _Take:
    row_bytes = max(1, inputs[:1].nbytes)

    def take(start: int, count_max: int, until_s: float) -> Sequence[Leaf]:
        part = inputs[start : start + min(count_max, max(1, LEAF_BYTES_MAX // row_bytes))]
        return [_leaf(len(part), take_apart_plain(part))] if len(part) else []

    return take


def _take_slices(inputs: Sequence[Any], packer: "Packer", check: Check | None) -> _Take:
    def take(start: int, count_max: int, until_s: float) -> Sequence[Leaf]:
        values = inputs[start : start + min(count_max, packer.run)]
        if check is not None and values:
            check(values, start)
        return packer.pack(values, start)

    return take


def _take_one_by_one(
    inputs: Iterator[Any], packer: "Packer", check: Check | None, clock_s: Callable[[], float]
) -> _Take:
    """Take each input as it is when it is pulled: the next one may be the same object, changed.

    A generator may fill one list again and again, and a cursor its row. So what can change is
    pickled before the next is pulled; only what cannot is gathered and pickled together.
    """

    def each(first: Any, index: int, count_max: int, until_s: float) -> Iterator[Any]:
        for at, value in enumerate(chain((first,), islice(inputs, count_max - 1)), index):
            if check is not None:
                check((value,), at)
            yield value
            if clock_s() > until_s:
                return

    def take(start: int, count_max: int, until_s: float) -> Sequence[Leaf]:
        atoms: list[Any] = []
        changeable = []  # one at most
        kind: type | None = (
            None  # of the last one, if it says enough: this may loop a million times
        )
        for value in islice(inputs, min(count_max, packer.run)):
            if type(value) is not kind:
                if not are_atoms((value,)):
                    changeable.append(value)
                    break
                kind = type(value) if type(value) is not tuple else None
            atoms.append(value)
            if clock_s() > until_s:
                break
        if check is not None and atoms:
            check(atoms, start)
        leaves = packer.pack(atoms, start)
        if changeable:
            at = start + len(atoms)
            count_max = min(count_max - len(atoms), LEAF_INPUTS_MAX)
            leaves += packer.pack_each(each(changeable[0], at, count_max, until_s), at)
        return leaves

    return take


class Packer:
    """Pickles inputs into leaves."""

    def __init__(self, sent: Sent | None, index_of: Callable[[int], int] = int) -> None:
        self._index_of = index_of
        self.run = LEAF_INPUTS_MAX  # how many inputs are likely to fit into a leaf
        self._atoms = AtomsPickler()
        self._sent = sent
        self._pieces = Pieces()
        self._pickler: Any = None  # an InputPickler; many jobs need none

    def pack(self, values: Sequence[Any], start: int) -> list[Leaf]:
        """Return the leaves of these inputs, the first of which has index `start`."""
        if not values:
            return []
        values = values if type(values) is list else list(values)
        if len(values) == 1 and type(values[0]) in (bytes, str) and _is_big(values[0]):
            self.run = 1  # nothing is gained if the next, as big, waits for others
            return [_leaf(1, take_apart_plain(values))]  # uncopied
        data = self._atoms.dump(values)
        return self.pack_each(values, start) if data is None else self._pack_atoms(values, data)

    def _pack_atoms(self, values: list[Any], data: bytes) -> list[Leaf]:
        count = len(values)
        if len(data) <= LEAF_BYTES_MAX:
            likely = LEAF_BYTES_AIM * count // len(data)
            self.run = min(LEAF_ATOMS_MAX, max(1, count, likely))
            return [Leaf(count, (data,))]
        if count == 1:
            return [_leaf(1, take_apart_plain(values))]
        self.run = half = count // 2
        return [
            leaf
            for part in (values[:half], values[half:])
            for leaf in self._pack_atoms(part, pickle.dumps(part, 5))
        ]

    def pack_each(self, values: Iterable[Any], start: int) -> list[Leaf]:
        """Return the leaves of one input or more, each pickled before the next is asked for.

        An iterator is left after an input of SHARE_BYTES_MIN and more, of which nothing is copied.
        """
        leaves: list[Leaf] = []
        run: list[bytes] = []
        size = 0
        needed: dict[str, bytes] = {}
        self.run = LEAF_INPUTS_MAX
        if self._pickler is None:
            self._pickler = InputPickler(self._pieces, self._pieces.hold, self._sent or Sent())
        for offset, value in enumerate(values):
            refresh_dispatch_table()  # pulling the input may have registered its type
            data, buffers = self._pickle(value, start + offset)
            data_bytes = sum(map(len, data))
            alone = buffers or data_bytes > LEAF_BYTES_MAX
            if run and (alone or size + data_bytes > LEAF_BYTES_MAX):
                leaves.append(_leaf_of(len(run), needed, run))
                run, size, needed = [], 0, {}
            if alone:
                held = [pickle.PickleBuffer(view) for view in buffers]
                parts = [pickle.PickleBuffer(piece) for piece in data]
                leaves.append(_leaf_of(1, self._pickler.definitions, parts, held))
                if isinstance(values, Iterator) and leaves[-1].bytes >= SHARE_BYTES_MIN:
                    break
            else:
                run.append(data[0] if len(data) == 1 else b"".join(data))
                size += data_bytes
                needed |= self._pickler.definitions
        if run:
            leaves.append(_leaf_of(len(run), needed, run))
        elif leaves[-1].bytes >= SHARE_BYTES_MIN:
            self.run = 1
        return leaves

    def _pickle(self, value: Any, index: int) -> tuple[list[Any], list[memoryview]]:
        """Return the pickle of one input and its big buffers; valid until the next call."""
        self._pieces.data.clear()
        self._pieces.buffers.clear()
        self._pickler.definitions = {}
        try:
            self._pickler.dump(value)
        except Exception as error:
            index = self._index_of(index)
            why = why_not_picklable(value, f"input {index}", error, self._pickler.by_value)
            raise TypeError(f"input {index} cannot be sent: {why}") from error
        finally:
            self._pickler.clear_memo()
        return self._pieces.written(), self._pieces.buffers


# --- a leaf on the wire: the pickle of a list, range or array, or of a tuple as in _leaf_of -------

_RUN, _ALONE = 1, 2


def _leaf_of(
    count: int,
    definitions: dict[str, bytes],
    data: Sequence[Any],
    buffers: Sequence[pickle.PickleBuffer] | None = None,
) -> Leaf:
    if buffers is None:
        sizes = [len(one) for one in data]
        return _leaf(count, take_apart_plain((_RUN, definitions, sizes, b"".join(data))))
    return _leaf(count, take_apart_plain((_ALONE, definitions, list(data), list(buffers))))


def _leaf(count: int, pieces: Pieces) -> Leaf:
    return Leaf(count, pieces if pieces.size >= SHARE_BYTES_MIN else tuple(pieces.cut()))


def load_leaf(frames: Frames) -> Sequence[Any]:
    """Return the inputs of a leaf: a list, range or array, or a sequence that unpickles when asked.

    Slicing it, or asking for one input, raises InputNotLoadableError for an input that cannot be
    unpickled here; the others can be had.

    Raises:
        NotLoadableError: none of them can be had.
    """
    try:
        body = loads(frames)
        if type(body) is not tuple:
            inputs: Sequence[Any] = body
            return inputs
        kind, definitions, first, second = body
        load_definitions(definitions)
    except NotLoadableError:
        raise
    except Exception as error:
        raise NotLoadableError(describe_error(error)) from error
    if kind == _RUN:
        ends = list(accumulate(first))
        view = memoryview(second)
        starts = [0, *ends[:-1]]
        return PickledInputs([view[i:j] for i, j in zip(starts, ends, strict=True)])
    data = first[0] if len(first) == 1 else b"".join(first)
    return PickledInputs([data], second)


class PickledInputs(Sequence[Any]):
    """Inputs that are unpickled, each time anew, when they are asked for."""

    def __init__(self, pickles: Sequence[Any], buffers: Sequence[Any] = ()) -> None:
        self._pickles = pickles
        self._buffers = buffers

    def __len__(self) -> int:
        return len(self._pickles)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self._load(i) for i in range(*at.indices(len(self._pickles)))]
        return self._load(range(len(self._pickles))[at])

    def _load(self, offset: int) -> Any:
        try:
            return pickle.loads(self._pickles[offset], buffers=self._buffers)
        except Exception as error:
            raise InputNotLoadableError(offset, describe_error(error)) from error
