"""Archives as a stranger would forge them: entries, headers and checksums, mended or not.

Headers are written here byte by byte, as `tarfile` would not write most of them. As with
payloads, nearly all have their checksums computed anew, so that they reach as far as they can.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

from steerlab.registry import Store
from tests.fuzz import hostile, payloads
from tests.registry.test_broken_rows import CHANGES
from tests.registry.test_runs import run

BLOCK = 512


@dataclass
class Member:
    """An entry. size, link: as its header has them; None is the truth."""

    name: bytes
    data: bytes
    kind: bytes = b"0"
    size: bytes | None = None
    link: bytes = b""

    def packed(self, sound: bool = True) -> bytes:
        """Header and data; `sound` is whether the header's own checksum is true."""
        size = f"{len(self.data):011o}\0".encode() if self.size is None else self.size
        prefix, name = _split(self.name)
        header = bytearray(BLOCK)
        for at, field in (
            (0, name[:100]),
            (100, b"0000644\0" + b"0000000\0" * 2 + size[:12].ljust(12, b"\0") + b"0" * 11),
            (148, b" " * 8),
            (156, self.kind + self.link[:100]),
            (257, b"ustar\x0000"),
            (345, prefix[:155]),
        ):
            header[at : at + len(field)] = field
        header[148:156] = f"{sum(header) + (not sound):06o}\0 ".encode()
        return bytes(header) + self.data + bytes(-len(self.data) % BLOCK)


def pack(members: list[Member], sums: bytes | None = None) -> bytes:
    """The archive; with true checksums at its end, or others."""
    listed = sums_of(members) if sums is None else sums
    last = Member(b"SHA256SUMS", listed)
    return b"".join(m.packed() for m in (*members, last)) + bytes(2 * BLOCK)


def sums_of(members: list[Member]) -> bytes:
    """As sha256sum writes them."""
    return b"".join(f"{sha256(m.data).hexdigest()}  ".encode() + m.name + b"\n" for m in members)


@cache
def bases() -> tuple[list[Member], ...]:
    """A few vectors; a family and two models; a whole store; nothing."""
    files = [payloads.whole(parts) for parts in payloads.bases()]
    loose = [_payload(data) for data in files]
    return loose[:1], loose[1:5], [Member(b"registry.db", registry()), *_stored()], []


def forged(random: Random) -> bytes:
    """An archive that was tampered with."""
    members = deepcopy(random.choice(bases()))
    kind = random.choice(("payload", "payload", "member", "member", "registry", "sums", "bytes"))
    sums: bytes | None = None
    if kind == "payload":
        for member in random.sample(members, min(len(members), random.choice((1, 1, 3)))):
            if member.name != b"registry.db":
                member.data = _any_payload(random)
    elif kind == "member":
        for _ in range(random.choice((1, 1, 2))):
            random.choice(_CHANGES)(random, members)
    elif kind == "registry":
        members = [m for m in deepcopy(bases()[2]) if m.name != b"registry.db"]
        members.insert(0, Member(b"registry.db", hostile_registry(random)))
    elif kind == "sums":
        sums = _lying(random, sums_of(members))
    if random.random() < 0.1:
        sums = sums_of(random.choice(bases()))
    made = pack(members, sums)
    if kind == "bytes" or random.random() < 0.05:
        made = _change_bytes(random, made, members)
    return made


def hostile_registry(random: Random) -> bytes:
    """A registry.db whose rows, schema or bytes no steerlab wrote."""
    if random.random() < 0.2:
        return hostile.change_bytes(random, registry(), payloads.whole(payloads.bases()[0]))
    if random.random() < 0.1:
        return random.choice((b"", b"x", b"SQLite format 3\0", bytes(8192), registry()[:4096]))
    return hostile_with(*random.sample(_REGISTRY_CHANGES, random.choice((1, 1, 3))))


def hostile_with(first: str, *more: str) -> bytes:
    """A registry.db after changes that the schema or SQLite itself forbid."""
    with closing(sqlite3.connect(":memory:")) as raw, raw:
        raw.deserialize(registry())
        raw.execute("PRAGMA ignore_check_constraints = ON")
        raw.execute("PRAGMA writable_schema = ON")
        raw.executescript(first)
        for change in more:
            with suppress(sqlite3.Error):  # the one before may have taken its table away
                raw.executescript(change)
        raw.commit()
        return raw.serialize()


@cache
def registry() -> bytes:
    """The registry of a small store."""
    return _store()[0]


def _stored() -> list[Member]:
    return [Member(name, data) for name, data in _store()[1]]


@cache
def _store() -> tuple[bytes, list[tuple[bytes, bytes]]]:
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "store")
        love = store.save("love", payloads.vector(1), tags=["feeling"], note="the first")
        anger = store.save("anger", payloads.vector(2))
        store.save("warm", love - 0.5 * anger)
        store.runs.save(run())
        files = sorted(store.path.glob("payloads/**/*.safetensors"))
        named = [(f.relative_to(store.path).as_posix().encode(), f.read_bytes()) for f in files]
        with closing(sqlite3.connect(store.path / "registry.db")) as raw:
            raw.execute("PRAGMA journal_mode = DELETE")  # in memory there is no log
            return raw.serialize(), named


def _payload(data: bytes) -> Member:
    digest = sha256(data).hexdigest()
    return Member(f"payloads/{digest[:2]}/{digest}.safetensors".encode(), data)


def _any_payload(random: Random) -> bytes:
    if random.random() < 0.5:
        return payloads.friendly(random)
    return payloads.forged(random)[0]


_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x"
_COLUMNS = "SELECT *, zeroblob(9) FROM hidden"
_REGISTRY_CHANGES = (
    *CHANGES.values(),
    *(f"UPDATE alembic_version SET version_num = {v}" for v in ("9999", "'x'", "x'ff'", "'0001'")),
    *(
        "UPDATE alembic_version SET version_num = '٣'",
        "UPDATE alembic_version SET version_num = '²'",
    ),
    *("DELETE FROM alembic_version", "DROP TABLE alembic_version", "DROP TABLE vector"),
    "INSERT INTO alembic_version VALUES ('0001')",
    "CREATE TRIGGER t AFTER INSERT ON vector BEGIN DELETE FROM vector; END",
    "CREATE TRIGGER t AFTER UPDATE ON tag BEGIN SELECT RAISE(ABORT, 'two\nlines\x1b[31m'); END",
    "ALTER TABLE vector RENAME TO hidden; CREATE VIEW vector AS " + _COLUMNS,
    f"DROP TABLE tag; CREATE VIEW tag AS {_ENDLESS} AS vector_id, x AS tag FROM c",
    "DROP TABLE alembic_version;"
    f"CREATE VIEW alembic_version AS {_ENDLESS} AS version_num FROM c WHERE x < 0",
    "CREATE VIRTUAL TABLE extra USING fts5(x)",
    "ALTER TABLE vector ADD COLUMN extra TEXT AS (hex(zeroblob(200000000)))",
    "ALTER TABLE run ADD COLUMN extra TEXT AS (hex(zeroblob(200000000)))",
    "CREATE INDEX extra ON vector (hex(note) || 'x')",
    "CREATE TABLE \"\x1b[31m\" (x); CREATE TABLE 'two\nlines' (x)",
    "UPDATE sqlite_master SET sql = 'CREATE TABLE vector (x)' WHERE name = 'vector'",
    "UPDATE sqlite_master SET sql = 'two\nlines' WHERE name = 'model'",
    "UPDATE sqlite_master SET rootpage = 2 WHERE name = 'vector'",
    "UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT) WHERE name = 'tag'",
    "UPDATE vector SET name = name || char(27) || '[31m' || char(10)",
    "UPDATE vector SET path = 'payloads/' || char(10) || '.safetensors'",
    "UPDATE vector SET path = '/etc/passwd'",
    "UPDATE vector SET path = 'payloads/../../../etc/passwd'",
    "UPDATE vector SET path = '.lock'; UPDATE vector SET key = 'x' || char(10)",
    "UPDATE vector SET note = hex(zeroblob(2000000))",
    "UPDATE model SET name = '../../x', source = char(27)",
    "UPDATE operand SET parent_id = child_id",
    "PRAGMA user_version = 2147483647; PRAGMA application_id = 1",
)

_NAMES = (
    *(b"../x", b"/etc/passwd", b"..", b".", b"", b"/", b"payloads", b"payloads/", b"payloads/.."),
    *(b"payloads/../../x.safetensors", b"payloads/./a.safetensors", b"payloads//a.safetensors"),
    *(b"payloads/.lock", b"payloads/.tmp-a.safetensors", b"payloads\\a.safetensors"),
    *(b"registry.db-wal", b"registry.db-journal", b".lock", b".undo/x", b"./registry.db"),
    *(b"REGISTRY.DB", b"registry.db/x", b"payloads/a.safetensors/b.safetensors"),
    *(b"payloads/a.safetensors/b/c.safetensors", b"payloads/a.safetensors", b"store/registry.db"),
    *(b"payloads/\xff.safetensors", b"payloads/\xed\xa0\x80.safetensors", b"C:\\x"),
    *(b"payloads/" + b"a" * n + b".safetensors" for n in (79, 80, 120, 230)),
    *(b"payloads/" + b"a/" * n + b"a.safetensors" for n in (40, 70, 110)),
    *(b"payloads/" + b"b" * 140 + b"/" + b"a" * 80 + b".safetensors", b"SHA256SUMS"),
)
_SIZES = (
    *(b"", b"-0000000001\0", b"9" * 12, b"00000000000 ", b"77777777777\0", b" " * 12, b"\xff" * 12),
    *(b"\x80" + (2**n).to_bytes(11, "big") for n in (0, 9, 33, 60, 63, 87)),
    *(b"\xff" + (2**88 - n).to_bytes(11, "big") for n in (1, 512, 2**60)),
    *(f"{n:011o}\0".encode() for n in (0, 1, 511, 512, 513, 100_000)),
    *("٣".encode(), b"0x10\0", b"1e3\0", b"\0000001000000"),
)
_KINDS = tuple(bytes([kind]) for kind in b"\x001234567LKSxgXNVMDA? \xff")
_LINKS = (
    b"/etc/passwd",
    b"../../x",
    b"registry.db",
    b"/dev/sda",
    b"payloads/a.safetensors",
    b"\xff",
)
_EXTENDED = (
    *(b"26 path=../../etc/passwd\n\n", b"9 size=0\n", b"25 size=1152921504606846976\n"),
    *(b"30 GNU.sparse.major=1\n", b"99999999999999999999 path=x\n", b"x", b"\n", b"../../x\0"),
)


def _rename(random: Random, members: list[Member]) -> None:
    if members:
        name = random.choice(_NAMES)
        if random.random() < 0.4:
            text = hostile.text(random).encode(errors="surrogatepass")
            name = b"payloads/" + text.replace(b"\0", b"") + b".safetensors"
        random.choice(members).name = name


def _retype(random: Random, members: list[Member]) -> None:
    if members:
        member = random.choice(members)
        member.kind, member.link = random.choice(_KINDS), random.choice(_LINKS)


def _lie_of_size(random: Random, members: list[Member]) -> None:
    if members:
        random.choice(members).size = random.choice(_SIZES)


def _extend(random: Random, members: list[Member]) -> None:
    """What GNU and PAX put before a header, to say more of it."""
    kind = random.choice((b"L", b"K", b"x", b"g", b"X", b"S"))
    at = random.randrange(len(members) + 1)
    members.insert(at, Member(b"././@LongLink", random.choice(_EXTENDED), kind))


def _repeat(random: Random, members: list[Member]) -> None:
    if members:
        again = deepcopy(random.choice(members))
        if random.random() < 0.5:
            again.name = again.name.replace(b".safetensors", b".2.safetensors")
        members.insert(random.randrange(len(members) + 1), again)


def _drop(random: Random, members: list[Member]) -> None:
    if members:
        members.pop(random.randrange(len(members)))


def _mix(random: Random, members: list[Member]) -> None:
    members += deepcopy(random.choice(bases()))
    random.shuffle(members)


def _insert(random: Random, members: list[Member]) -> None:
    data = random.choice((b"", b"x", b"x" * 511, bytes(512), bytes(1536), b"x" * 100_000))
    members.insert(random.randrange(len(members) + 1), Member(random.choice(_NAMES), data))


_CHANGES: tuple[Callable[[Random, list[Member]], None], ...] = (
    *(_rename, _rename, _retype, _lie_of_size, _extend, _repeat, _drop, _mix, _insert),
)


def _lying(random: Random, sums: bytes) -> bytes:
    """Checksums that are not those of the files."""
    lines = sums.splitlines(keepends=True)
    match random.randrange(8):
        case 0:
            return b""
        case 1:
            random.shuffle(lines)
            return b"".join(lines)
        case 2:
            return b"".join(lines[1:])
        case 3:
            return sums + f"{'0' * 64}  payloads/more.safetensors\n".encode()
        case 4:
            return sums.replace(b"\n", b"\r\n").replace(b"  ", b" *")
        case 5:
            return sums.upper()
        case 6:
            return sums * random.choice((2, 1000))
        case _:
            return hostile.change_bytes(random, sums or b"x", b"\xff\x1b[31m\n" * 9)


def _change_bytes(random: Random, made: bytes, members: list[Member]) -> bytes:
    """Bytes anywhere, a header's with its checksum mended or not, a cut, more at the end."""
    match random.randrange(5):
        case 0:
            at = random.randrange(len(made) // BLOCK) * BLOCK
            header = bytearray(made[at : at + BLOCK])
            for _ in range(random.choice((1, 2, 8))):
                header[random.randrange(345)] = random.randrange(256)
            header[148:156] = b" " * 8
            header[148:156] = f"{sum(header):06o}\0 ".encode()
            return made[:at] + bytes(header) + made[at + BLOCK :]
        case 1:
            return made[: random.randrange(len(made) + 1)]
        case 2:
            return made + random.choice((b"x", b"x" * 10_000, bytes(10_240), made))
        case 3 if members:
            at = random.randrange(len(members))
            broken = b"".join(m.packed(sound=i != at) for i, m in enumerate(members))
            return broken + made[len(broken) :]
        case _:
            return hostile.change_bytes(random, made, pack(random.choice(bases())))


def _split(name: bytes) -> tuple[bytes, bytes]:
    """ustar's two parts of a name, where it is long."""
    if len(name) > 100 and (at := name.find(b"/", len(name) - 101)) >= 0:
        return name[:at], name[at + 1 :]
    return b"", name
