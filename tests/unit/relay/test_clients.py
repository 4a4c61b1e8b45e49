"""The table of clients: limits that hold for all workers, and counts that never drift."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from v6fwd.relay.clients import BUCKET, KEY_SIZE, Clients, ClientTable, Refusal


class Clock:
    """Time in the test's hands."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    """A client's key, with zeros in it as real ones have."""
    return b"\xd1" * 15 + b"\6" + number.to_bytes(8, "big") + bytes(8)


def flows_of(clients: Clients, client: bytes) -> int:
    """How many flows a client has over all workers: read as clients.py describes the table."""
    table = clients._table
    memory, size = table.memory, table.slot_size
    for at in range(0, table.buckets * BUCKET * size, size):
        if memory[at + 8 : at + 8 + KEY_SIZE] == client:
            return sum(struct.unpack_from(f"={table.workers}I", memory, at + 8 + KEY_SIZE))
    return 0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> Iterator[ClientTable]:
    table = ClientTable(workers=2, slots=4096)
    yield table
    table.close()


@pytest.fixture
def workers(table: ClientTable, clock: Clock) -> list[Clients]:
    return [Clients(table, worker, clock) for worker in range(table.workers)]


def test_a_key_is_found_in_its_field_alone() -> None:
    """The bytes before it, a time, may look like its begin: from the first of the table on."""
    table = ClientTable(slots=BUCKET)
    here = Clients(table, 0, lambda: 0.0)
    table.memory[:KEY_SIZE] = key(1)
    assert flows_of(here, key(1)) == 0
    assert here.enter(key(1), 0, 0) >= 0
    assert flows_of(here, key(1)) == 1
    assert here.enter(key(1), 1, 0) == Refusal.FLOWS
    table.close()


def test_a_key_across_two_fields_hides_no_client_behind_it() -> None:
    """The search goes on at the next field, not at the next slot's end."""
    table = ClientTable(slots=BUCKET)
    here = Clients(table, 0, lambda: 0.0)
    second = table.slot_size + 8
    table.memory[second : second + KEY_SIZE] = key(1)
    table.memory[second - KEY_SIZE : second] = key(1)  # it ends where the next one begins
    assert here._find(key(1), 0) == table.slot_size
    table.close()


def test_one_worker_alone_needs_no_locks() -> None:
    table = ClientTable(workers=1)
    assert table.fd == -1
    table.close()


@pytest.mark.parametrize("change", [-1, 1])
def test_nobody_changes_the_tables_size(table: ClientTable, change: int) -> None:
    """A worker that could shrink it would end all others by SIGBUS."""
    size = os.fstat(table.fd).st_size
    assert size
    with pytest.raises(PermissionError):
        os.ftruncate(table.fd, size + change)


def test_a_worker_keeps_the_descriptor_of_the_locks() -> None:
    """Whatever its number is; a table of one worker has none."""
    for number, kept in ((0, (0,)), (7, (7,)), (-1, ())):
        clients = Clients(cast("ClientTable", SimpleNamespace(fd=number)), 0, lambda: 0.0)
        assert clients.descriptors == kept


def test_so_many_flows_and_no_more(workers: list[Clients]) -> None:
    here = workers[0]
    slots = [here.enter(key(1), 3, 0) for _ in range(3)]
    assert min(slots) >= 0
    assert here.enter(key(1), 3, 0) == Refusal.FLOWS
    here.leave(slots.pop())
    assert here.enter(key(1), 3, 0) >= 0


def test_the_limit_is_for_all_workers_together(workers: list[Clients]) -> None:
    here, there = workers
    slots = [here.enter(key(1), 2, 0), there.enter(key(1), 2, 0)]
    assert here.enter(key(1), 2, 0) == there.enter(key(1), 2, 0) == Refusal.FLOWS
    there.leave(slots[1])
    assert here.enter(key(1), 2, 0) >= 0
    assert flows_of(here, key(1)) == flows_of(there, key(1)) == 2


def test_a_limit_is_one_clients_own(workers: list[Clients]) -> None:
    for number in range(1000):
        assert workers[number % 2].enter(key(number), 1, 0) >= 0
    assert all(workers[0].enter(key(number), 1, 0) == Refusal.FLOWS for number in range(1000))


def test_a_rate_has_a_second_worth_at_once(workers: list[Clients], clock: Clock) -> None:
    here, there = workers
    both = [here, there] * 5
    assert all(worker.enter(key(1), 0, 10) >= 0 for worker in both)
    assert here.enter(key(1), 0, 10) == there.enter(key(1), 0, 10) == Refusal.RATE
    assert here.enter(key(2), 0, 10) >= 0
    clock.now += 0.1
    assert there.enter(key(1), 0, 10) >= 0
    assert here.enter(key(1), 0, 10) == Refusal.RATE
    clock.now += 3600
    assert sum(here.enter(key(1), 0, 10) >= 0 for _ in range(20)) == 10


@pytest.mark.parametrize("rate", [0.001, 0.5, 1, 1.5])
def test_a_low_rate_has_one_at_once(workers: list[Clients], clock: Clock, rate: float) -> None:
    here = workers[0]
    assert here.enter(key(1), 0, rate) >= 0
    assert here.enter(key(1), 0, rate) == Refusal.RATE
    clock.now += 1 / rate
    assert here.enter(key(1), 0, rate) >= 0
    assert here.enter(key(1), 0, rate) == Refusal.RATE


@pytest.mark.parametrize("rate", [0.3, 7, 1000, 1e6])
def test_a_steady_client_within_its_rate_is_never_refused(
    workers: list[Clients], clock: Clock, rate: float
) -> None:
    for _ in range(2000):
        slot = workers[0].enter(key(1), 0, rate)
        assert slot >= 0
        workers[0].leave(slot)
        clock.now += 1 / rate


def test_a_refusal_costs_nothing(workers: list[Clients], clock: Clock) -> None:
    here = workers[0]
    assert here.enter(key(1), 0, 1) >= 0
    for _ in range(100):
        assert here.enter(key(1), 0, 1) == Refusal.RATE
    clock.now += 1
    assert here.enter(key(1), 0, 1) >= 0


def test_a_worker_that_is_dead_has_no_flows(table: ClientTable, workers: list[Clients]) -> None:
    here, there = workers
    for number in range(100):
        assert here.enter(key(number), 2, 0) >= 0
        assert there.enter(key(number), 2, 0) >= 0
    table.forget_worker(1)
    assert all(flows_of(here, key(number)) == 1 for number in range(100))
    again = Clients(table, 1, Clock())
    assert all(again.enter(key(number), 2, 0) >= 0 for number in range(100))
    assert all(here.enter(key(number), 2, 0) == Refusal.FLOWS for number in range(100))


# ---- no room ---------------------------------------------------------------------------------


@pytest.fixture
def small(clock: Clock) -> Iterator[Clients]:
    """A table of one bucket."""
    table = ClientTable(slots=1)
    yield Clients(table, 0, clock)
    table.close()


def test_a_full_table_serves_those_it_knows(small: Clients) -> None:
    slots = [small.enter(key(number), 2, 0) for number in range(BUCKET)]
    assert small.enter(key(BUCKET), 2, 0) == Refusal.ROOM
    assert all(small.enter(key(number), 2, 0) >= 0 for number in range(BUCKET))
    assert all(flows_of(small, key(number)) == 2 for number in range(BUCKET))
    small.leave(slots[7])
    assert small.enter(key(BUCKET), 2, 0) == Refusal.ROOM  # a flow of it is still there
    assert small.enter(key(7), 2, 0) >= 0


def test_who_has_no_flow_gives_way(small: Clients) -> None:
    slots = [small.enter(key(number), 1, 0) for number in range(BUCKET)]
    small.leave(slots[7])
    assert small.enter(key(BUCKET), 1, 0) >= 0
    assert small.enter(key(7), 1, 0) == Refusal.ROOM
    assert all(flows_of(small, key(number)) == (number != 7) for number in range(BUCKET))


def test_the_rate_that_was_paid_up_longest_ago_is_forgotten(small: Clients, clock: Clock) -> None:
    for number in range(BUCKET):
        small.leave(small.enter(key(number), 0, 0.001))
        clock.now += 1
    assert small.enter(key(BUCKET), 0, 0.001) >= 0
    assert small.enter(key(1), 0, 0.001) == Refusal.RATE
    assert small.enter(key(0), 0, 0.001) >= 0


def test_keys_are_found_only_where_they_stand() -> None:
    """Zeros of one field and the next look like a key of zeros, and columns like other keys."""
    table = ClientTable(workers=16, slots=BUCKET)
    clients = Clients(table, 15, Clock())
    slots = {number: clients.enter(key(number), 0, 0) for number in range(BUCKET)}
    assert len(set(slots.values())) == BUCKET
    assert clients.enter(key(BUCKET), 0, 0) == Refusal.ROOM
    assert all(flows_of(clients, key(number)) == 1 for number in slots)
    table.close()


def test_the_last_bucket_is_one_like_the_others() -> None:
    """What looks for a key there must not look past the end of the memory."""
    table = ClientTable()
    clients = Clients(table, 0, Clock())
    last = (key(number) for number in range(10**6) if table.bucket_of(key(number)) == 1023)
    for _ in range(BUCKET):
        assert clients.enter(next(last), 1, 0) >= 0
    assert table.buckets == 1024
    assert clients.enter(next(last), 1, 0) == Refusal.ROOM
    table.close()


def test_memory_is_taken_as_clients_come() -> None:
    table = ClientTable(workers=8)
    assert os.fstat(table.fd).st_blocks == 0
    table.close()


# ---- counts never drift ----------------------------------------------------------------------

WORKERS = st.integers(0, 2)
NUMBERS = st.integers(0, 2 * BUCKET)


class Table(RuleBasedStateMachine):
    """Any order of coming, going and dying: the table counts what a plain Counter counts."""

    @initialize(slots=st.sampled_from([BUCKET, 4 * BUCKET]))
    def make(self, slots: int) -> None:
        self.clock = Clock()
        self.table = ClientTable(workers=3, slots=slots)
        self.workers = [Clients(self.table, worker, self.clock) for worker in range(3)]
        self.slots: list[tuple[int, int, int]] = []

    @rule(worker=WORKERS, number=NUMBERS, most=st.integers(0, 3), rate=st.sampled_from([0.0, 2.0]))
    def come(self, worker: int, number: int, most: int, rate: float) -> None:
        there = self.flows(number)
        slot = self.workers[worker].enter(key(number), most, rate)
        if slot >= 0:
            assert not most or there < most
            self.slots.append((worker, number, slot))
        else:
            assert slot != Refusal.FLOWS or there >= most > 0
            assert slot != Refusal.RATE or rate
            assert slot != Refusal.ROOM or not there

    @rule(worker=WORKERS, first=st.integers(0, BUCKET), count=st.integers(0, BUCKET))
    def come_in_numbers(self, worker: int, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.come(worker, number, 0, 0.0)

    @rule(which=st.integers(min_value=0))
    def go(self, which: int) -> None:
        if self.slots:
            worker, _, slot = self.slots.pop(which % len(self.slots))
            self.workers[worker].leave(slot)

    @rule(worker=WORKERS)
    def die(self, worker: int) -> None:
        self.table.forget_worker(worker)
        self.slots = [taken for taken in self.slots if taken[0] != worker]

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "table"):
            counted = Counter(number for _, number, _ in self.slots)
            numbers = {*counted, 0, 1, BUCKET}
            assert {number: self.flows(number) for number in numbers} == {
                number: counted[number] for number in numbers
            }

    def flows(self, number: int) -> int:
        """What the table says."""
        return flows_of(self.workers[0], key(number))

    def teardown(self) -> None:
        if hasattr(self, "table"):
            self.table.close()


Table.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTable = Table.TestCase


# ---- real workers ----------------------------------------------------------------------------

MOST = 5
TURNS = 3000


def come_and_go(table: ClientTable, worker: int, *, forever: bool) -> None:
    """Without a pause, and never more at once than there may be."""
    clients = Clients(table, worker, Clock())
    turn = 0
    while forever or turn < TURNS:
        turn += 1
        client = key(turn % 3)
        slots = [clients.enter(client, MOST, 0) for _ in range(MOST)]
        table.lock(table.bucket_of(client))  # nobody enters while the columns are added up
        assert flows_of(clients, client) <= MOST
        table.unlock(table.bucket_of(client))
        for slot in slots:
            if slot >= 0:
                clients.leave(slot)


@contextlib.contextmanager
def forked(table: ClientTable, worker: int, *, forever: bool) -> Iterator[int]:
    """A worker in a process of its own; gone when the block is left."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            come_and_go(table, worker, forever=forever)
            status = 0
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:This process")  # multi-threaded: threads of other tests' rigs
def test_workers_that_run_and_die_at_the_same_time() -> None:
    """Two do their turns; a third is killed again and again, in whatever it is doing."""
    table = ClientTable(workers=3, slots=BUCKET)
    with (
        forked(table, 0, forever=False) as first,
        forked(table, 1, forever=False) as second,
    ):
        for _ in range(20):
            with forked(table, 2, forever=True) as victim:
                clients = Clients(table, 2, Clock())
                while not flows_of(clients, key(0)) + flows_of(clients, key(1)):
                    pass
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                table.forget_worker(2)
        statuses = [os.waitpid(pid, 0)[1] for pid in (first, second)]
    assert statuses == [0, 0]
    clients = Clients(table, 0, Clock())
    assert [flows_of(clients, key(number)) for number in range(3)] == [0, 0, 0]
    assert all(clients.enter(key(0), MOST, 0) >= 0 for _ in range(MOST))
    table.close()


def locked_for_others(table: ClientTable, buckets: range) -> list[int]:
    """The buckets that another process finds locked."""
    child = os.fork()
    if not child:
        found = 0
        for number, bucket in enumerate(buckets):
            try:
                fcntl.lockf(table.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, bucket)
            except OSError:
                found |= 1 << number
        os._exit(found)
    found = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [bucket for number, bucket in enumerate(buckets) if found >> number & 1]


def test_a_lock_is_on_one_bucket(table: ClientTable) -> None:
    assert locked_for_others(table, range(3, 9)) == []
    table.lock(5)
    assert locked_for_others(table, range(3, 9)) == [5]
    table.lock(6)
    table.unlock(5)
    assert locked_for_others(table, range(3, 9)) == [6]
    table.unlock(6)
    assert locked_for_others(table, range(3, 9)) == []


def test_a_table_whose_descriptor_is_0_has_locks() -> None:
    """As in a process that was started without standard input."""
    child = os.fork()
    if not child:
        os.close(0)
        table = ClientTable(workers=2)
        table.lock(5)
        locked = [table.fd, *locked_for_others(table, range(4, 7))]
        table.unlock(5)
        left = locked_for_others(table, range(4, 7))
        table.close()
        is_closed = table.fd == -1
        os._exit(0 if (locked, left, is_closed) == ([0, 5], [], True) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("most", [0, 1])
def test_who_enters_has_the_lock_from_the_first_look_to_the_last_write(
    table: ClientTable, workers: list[Clients], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    here, seen = workers[0], []
    here.enter(key(1), most, 1)
    bucket = table.bucket_of(key(1))
    buckets = range(bucket, bucket + 1)
    find, pay = here._find, here._pay

    def look(client: bytes, bucket: int) -> int:
        seen.append(locked_for_others(table, buckets))
        return find(client, bucket)

    def write(slot: int, rate: float) -> bool:
        seen.append(locked_for_others(table, buckets))
        return pay(slot, rate)

    monkeypatch.setattr(here, "_find", look)
    monkeypatch.setattr(here, "_pay", write)
    here.enter(key(1), most, 1)
    assert seen == [[bucket]] * (1 if most else 2)
    assert locked_for_others(table, buckets) == []


def test_entering_leaves_no_lock(table: ClientTable, workers: list[Clients]) -> None:
    workers[0].enter(key(1), 1, 0)
    workers[0].enter(key(1), 1, 0)  # refused
    bucket = table.bucket_of(key(1))
    assert locked_for_others(table, range(bucket, bucket + 1)) == []


@pytest.mark.parametrize(("count", "size"), [(1, 48), (2, 48), (3, 56), (4, 56), (5, 64)])
def test_slots_are_aligned_and_no_larger_than_that(count: int, size: int) -> None:
    """A time has 8 bytes, and casts want it at a multiple of that."""
    table = ClientTable(workers=count, slots=BUCKET)
    assert table.slot_size == size
    table.close()


def test_nothing_is_left_of_a_table() -> None:
    before = len(os.listdir("/proc/self/fd"))
    table = ClientTable(workers=2)
    fd = table.fd
    assert Clients(table, 0, Clock()).descriptors == (fd,)
    table.close()
    assert table.fd == -1
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_size_of_a_key() -> None:
    """The keys above are as long as those of a Admission."""
    assert len(key(0)) == KEY_SIZE
