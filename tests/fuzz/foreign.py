"""Vector files of other programs, tampered with in their bytes and in their structure."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from safetensors.numpy import save

from steerlab.errors import SteerlabError
from steerlab.interop import gguf, json_files, recognise, torch_files
from steerlab.interop.foreign import Asserted, Foreign, bind
from steerlab.interop.torch_writer import dumped
from tests.fuzz import hostile
from tests.interop.samples import HIDDEN, ONE, POSITIONS, ROWS, STACK, gguf_file, npy
from tests.registry.samples import TINY, vector

SAID = (
    Asserted(),
    Asserted(layer=3),
    Asserted(layer_from="input"),
    Asserted(layer_from="output", layers=slice(0, 6)),
)


def read(path: Path) -> None:
    """A file that is accepted gives vectors, or is told to lack something; nothing else."""
    for found in recognise.read(path):
        _bound(found, path)


def _bound(found: Foreign, path: Path) -> None:
    refused: SteerlabError | None = None
    for said in SAID:
        try:
            made = bind(found, TINY, str(path), said, model_named=False)
        except SteerlabError as error:
            refused = error
            continue
        assert made.model == TINY
        assert "\n" not in str(made.recipe)
        return
    assert refused is not None
    raise refused


def _gguf(random: Random) -> bytes:
    keys = {
        f"glp.{hostile.text(random)[:20]}": hostile.text(random)[:50]
        .encode("utf-8", "replace")
        .decode()
    }
    bases = (
        gguf_file(ROWS),
        gguf_file(ROWS, {"glp.mode": "add", "general.name": "calm"}),
        gguf.write_glp(vector(1, 2, 3), 1.0),
    )
    made = bytearray(random.choice(bases))
    if random.random() < 0.2:
        return gguf_file(ROWS, {k.encode("utf-8", "replace").decode(): v for k, v in keys.items()})
    if random.random() < 0.5:  # a number of the structure: a count, a length, a type, an offset
        at = random.randrange(4, max(5, len(made) - 8))
        number = random.choice((0, 1, 2, 9, 255, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1))
        made[at : at + 8] = struct.pack("<Q", number)
    return bytes(made) if random.random() < 0.4 else _changed(random, bytes(made), bases)


def _npy(random: Random) -> bytes:
    bases = tuple(map(npy, (ONE, STACK, HIDDEN, POSITIONS)))
    made = random.choice(bases)
    if random.random() < 0.5:
        old, new = random.choice(_HEADERS)
        made = made.replace(old, new, 1)
    return _changed(random, made, bases)


_HEADERS = (
    (b"'<f4'", b"'|O8'"),
    (b"'<f4'", b"'<V9'"),
    (b"'<f4'", b"'>f8'"),
    (b"(8,)", b"(-1,)"),
    (b"(8,)", b"(9**9,)"),
    (b"(8,)", b"(2305843009213693952,)"),
    (b"(6, 8)", b"(0, 8)"),
    (b"(6, 8)", b"(48, 1)"),
    (b"False", b"True"),
)


def _npz(random: Random) -> bytes:
    arrays = {key: npy(random.choice((ONE, ONE, STACK))) for key in _some_keys(random)}
    if random.random() < 0.5:
        arrays[random.choice(list(arrays))] = _npy(random)
    made = _packed(random, {f"{key}.npy": data for key, data in arrays.items()})
    return made if random.random() < 0.7 else _changed(random, made, (made,))


_KEYS = (
    "1",
    "2",
    "layer_3",
    "blocks.2.hook_resid_pre",
    "model.layers.4",
    "calm",
    "",
    "../x",
    "1e9",
)


def _some_keys(random: Random) -> tuple[str, ...]:
    """Keys that go together, or any."""
    if random.random() < 0.7:
        return random.choice((("1", "3"), ("layer_2",), ("model.layers.1", "model.layers.4")))
    return tuple(random.sample(_KEYS, 3))


def _pt(random: Random) -> bytes:
    made = dumped(dict(zip(_some_keys(random), STACK, strict=False)))
    if random.random() < 0.3:
        made = torch_files.write_lm_eval(vector(1, 1, 2), 2.0)
    with zipfile.ZipFile(io.BytesIO(made)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    pickle = parts["archive/data.pkl"]
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        at = random.randrange(2, len(pickle))
        changed = random.choice(
            (
                pickle[:at] + random.choice(_OPCODES) + pickle[at:],
                pickle[:at] + random.choice(_OPCODES) + pickle[at + 1 :],
                pickle.replace(*random.choice(_TEXTS), 1),
                hostile.change_bytes(random, pickle, pickle),
            )
        )
        pickle = changed if len(changed) > 3 else pickle
    parts["archive/data.pkl"] = pickle
    if random.random() < 0.1:
        parts["archive/data/0"] = random.choice((b"", b"x", bytes(40), parts["archive/data/0"] * 9))
    made = _packed(random, parts)
    return made if random.random() < 0.8 else _changed(random, made, (made,))


_OPCODES = (
    *(
        b"(",
        b"t",
        b"}",
        b"]",
        b")",
        b"N",
        b"R",
        b"b",
        b"Q",
        b"u",
        b"s",
        b"a",
        b"e",
        b".",
        b"0",
        b"2",
    ),
    *(b"cos\nsystem\n", b"\x81", b"\x93", b"h\x00", b"q\x00", b"r\xff\xff\xff\x7f", b"\x94"),
    *(
        b"X\xff\xff\xff\x7f",
        b"\x8d" + b"\xff" * 8,
        b"\x96" + b"\xff" * 7 + b"\x00",
        b"J\xff\xff\xff\xff",
    ),
    *(
        b"I9\n",
        b"L9L\n",
        b"F9\n",
        b"S'a'\n",
        b"Pid\n",
        b"ios\nsystem\n",
        b"\x8b\xff\xff\xff\x7f",
        b"l",
        b"d",
    ),
    *(
        b"\x8a\xff" + b"\x7f" * 255,
        b"G" + b"\x7f" * 8,
        b"(((((",
        b"}" * 500,
        b"\x85" * 500,
        b"]" * 500 + b"e",
    ),
)
_TEXTS = (
    (b"FloatStorage", b"LongStorage"),
    (b"FloatStorage", b"BFloat16Storage"),
    (b"FloatStorage", b"QInt8Storage"),
    (b"ctorch\n", b"cos\n"),
    (b"_rebuild_tensor_v2", b"_rebuild_parameter"),
    (b"_rebuild_tensor_v2", b"_rebuild_device_tensor_from_numpy"),
    (b"J\x08\x00\x00\x00", b"J\xff\xff\xff\x7f"),
    (b"J\x08\x00\x00\x00", b"J\x00\x00\x00\x00"),
    (b"J\x01\x00\x00\x00", b"J\x00\x00\x00\x00"),
    (b"J\x01\x00\x00\x00", b"J\xff\xff\xff\xff"),
    (b"J\x00\x00\x00\x00", b"J\x09\x00\x00\x00"),
    (b"action", b"bias"),
    (b"X\x03\x00\x00\x00add", b"N"),
    (b"storage", b"garbage"),
)


def _json(random: Random) -> bytes:
    lens = {"activations": STACK[:2].tolist(), "layer_indices": [0, 3], "scale": 2.0}
    pedia = json.loads(json_files.write_neuronpedia(vector(1, 3), 1.0))
    svec = {"model_type": "llama", "directions": {str(n): r.tolist() for n, r in ROWS.items()}}
    tree = [random.choice((svec, pedia, [lens, {**lens, "norm_match": False}]))]
    for _ in range(random.choice((0, 1, 1, 3))):
        hostile.change_tree(random, tree)
    text = hostile.dumps(tree[0]) if tree else ""
    if random.random() < 0.15:
        text = hostile.change_json(random, text)
    return text.encode()


def _safetensors(random: Random) -> bytes:
    tensors = {key: random.choice((ONE, ONE, STACK)) for key in _some_keys(random)}
    if random.random() < 0.2:  # a fit of saklas
        tensors = {"node_coords": STACK[:2, :1].copy(), "layer_1.basis": STACK[:1]}
    cfg = {"cfg": json.dumps({"method": "mean_diff", "coeff": 1.5})}
    made = save(tensors, metadata=random.choice((None, None, cfg, {"cfg": hostile.dumps(1)})))
    length = int.from_bytes(made[:8], "little")
    head = json.loads(made[8 : 8 + length])
    for _ in range(random.choice((0, 1, 1, 2))):
        hostile.change_tree(random, head)
    text = hostile.dumps(head).encode()
    if random.random() < 0.1:
        text = hostile.change_json(random, text.decode()).encode()
    claimed = random.choice((len(text),) * 9 + (2**31, 2**60, 2**64 - 1, 0, len(text) + 1))
    made = struct.pack("<Q", claimed) + text + made[8 + length :]
    return made if random.random() < 0.8 else _changed(random, made, (made,))


def _packed(random: Random, parts: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", random.choice((0, 0, 8, 12, 14))) as file:
        for name, data in parts.items():
            file.writestr(name, data)
            if random.random() < 0.01:
                with warnings.catch_warnings(action="ignore"):
                    file.writestr(name, data)
    return made.getvalue()


def _changed(random: Random, data: bytes, others: tuple[bytes, ...]) -> bytes:
    return hostile.change_bytes(random, data, random.choice(others))


MAKERS: dict[str, tuple[str, Callable[[Random], bytes]]] = {
    "gguf": (".gguf", _gguf),
    "npy": (".npy", _npy),
    "npz": (".npz", _npz),
    "pt": (".pt", _pt),
    "json": (".svec", _json),
    "safetensors": (".safetensors", _safetensors),
}
"""Format -> the suffix of its files, and a maker of hostile ones."""
