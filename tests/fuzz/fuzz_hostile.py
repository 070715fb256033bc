"""Files made to hurt, of every kind that a checkpoint consists of: part of ``nox -s fuzz``.

Where ``fuzz_formats.py`` changes bytes by chance, these are built by somebody who knows the formats: well-formed, and
with values that are nested, repeated, huge, of another type, or not what their place is for. The configuration beside
them is right. Each is opened as ``xlmr inspect`` does it, and read.
"""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.fuzz_formats import read_all
from xlmr_core.inspection import inspect_model

Rng = np.random.Generator

CONFIG: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 20,
    "architectures": ["XLMRobertaForMaskedLM"],
}
WORDS = "roberta.embeddings.word_embeddings.weight"
NAMES = (WORDS, "model.embeddings.word_embeddings.weight", "a", "", "a\0b", "\x1b[31m", "x" * 5000, "encoder.layer.9.x")


def one_of(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


# Values of JSON: of every type, size and depth.


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


JSON_VALUES: tuple[Callable[[Rng], str], ...] = (
    lambda rng: one_of(rng, ("null", "true", "false", "0", "-1", "1.5", "1e400", "-1e400", "NaN", "Infinity", '""')),
    lambda rng: one_of(rng, ('"x"', "[]", "{}", "[null]", '[["a"]]', '{"a": {"b": 1}}', '{"0": "a"}', '{"": null}')),
    lambda rng: str(10 ** int(rng.integers(1, 400))),
    lambda rng: "9" * int(rng.integers(4000, 9000)),
    lambda rng: nested(int(rng.integers(10, 200_000))),
    lambda rng: nested(int(rng.integers(10, 30_000)), '{"a":', "}").replace(":}", ":1}"),
    lambda rng: one_of(rng, ('"\\ud800"', '"\\udfff x"', '"\\u0000"', '"\\u001b[2J"', '["\\ud800"]', '{"\\ud800": 1}')),
    lambda rng: json.dumps("x" * int(rng.integers(1, 2_000_000))),
    lambda rng: "[" + ",".join(["1"] * int(rng.integers(1, 300_000))) + "]",
    lambda rng: "{" + ",".join(f'"{n}": "L{n}"' for n in range(int(rng.integers(1, 100_000)))) + "}",
    lambda rng: json.dumps({str(k * (2**61 - 1)): k for k in range(int(rng.integers(1, 20_000)))}),
)
CONFIG_KEYS = (
    *CONFIG,
    *("num_labels", "id2label", "label2id", "pruned_heads", "problem_type", "hidden_act", "torch_dtype", "dtype"),
    *("quantization_config", "pad_token_id", "eos_token_id", "layer_norm_eps", "position_embedding_type", "is_decoder"),
    *("tie_word_embeddings", "classifier_dropout", "hidden_dropout_prob", "type_vocab_size", "_name_or_path"),
    *("attn_implementation", "gradient_checkpointing", "self", "cls", "kwargs", "_set_aside", "to_dict", "__class__"),
)


def json_object(rng: Rng, whole: dict[str, Any], keys: Any) -> bytes:
    """A file of JSON with one to three values that are others than they should be."""
    values = {key: json.dumps(value) for key, value in whole.items()}
    for _ in range(int(rng.integers(1, 4))):
        values[one_of(rng, keys)] = one_of(rng, JSON_VALUES)(rng)
    text = "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in values.items()) + "}"
    return as_bytes(rng, text)


def as_bytes(rng: Rng, text: str) -> bytes:
    """Mostly as it is; now and then in another encoding, cut, doubled, or with something in front."""
    data = text.encode("utf-8", "surrogatepass")
    kind = int(rng.integers(20))
    if kind == 0:
        return data[: int(rng.integers(len(data) + 1))]
    return {1: b"\xef\xbb\xbf" + data, 2: b"\xff\xfe" + data, 3: data + data, 4: b"\0" + data, 5: b"[1]"}.get(
        kind, data
    )


def tensors_file(folder: Path, name: str = WORDS, shape: tuple[int, ...] = (30, 8)) -> None:
    """A small whole file of safetensors."""
    size = 4 * int(np.prod(shape))
    header = json.dumps({name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def look(folder: Path) -> None:
    """What a user does with a folder that was sent to him."""
    inspect_model(folder)
    read_all(folder)


def config_json(seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    tensors_file(folder)
    if rng.random() < 0.02:
        unknown = {f"hiden_size{n}": n for n in range(int(one_of(rng, (3000, 90_000, 1_000_000))))}
        (folder / "config.json").write_text(json.dumps({**CONFIG, **unknown}))
    else:
        (folder / "config.json").write_bytes(json_object(rng, CONFIG, CONFIG_KEYS))
    look(folder)


def index_json(seed: int, folder: Path) -> None:
    """The index of shards, of which there is one."""
    rng = np.random.default_rng(seed)
    tensors_file(folder)
    shards = (
        "model.safetensors",
        "../model.safetensors",
        "/etc/passwd",
        "a\0b.safetensors",
        "x" * 300,
        "",
        ".",
        1,
        None,
    )
    count = int(one_of(rng, (1, 1, 2, 1000, 200_000)))
    named = {one_of(rng, NAMES) + (str(n) if n else ""): one_of(rng, shards) for n in range(min(count, 50))}
    if count > 50:
        named |= {f"n{n}": f"m{n}.safetensors" if rng.random() < 0.5 else "model.safetensors" for n in range(count)}
    data = json_object(rng, {"metadata": {"total_size": 1}, "weight_map": named}, ("metadata", "weight_map", "x"))
    if rng.random() < 0.6:
        data = json.dumps({"metadata": {}, "weight_map": named}).encode()
    (folder / "model.safetensors.index.json").write_bytes(data)
    os.rename(folder / "model.safetensors", folder / "kept")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    os.rename(folder / "kept", folder / one_of(rng, ("model-00001-of-00001.safetensors", "m0.safetensors")))
    if rng.random() < 0.5:
        tensors_file(folder)
        os.rename(folder / "model.safetensors", folder / "m1.safetensors")
    look(folder)


def safetensors(seed: int, folder: Path) -> None:
    """Headers of absurd shapes, offsets, names, and as many tensors as fit."""
    rng = np.random.default_rng(seed)
    entry = {"dtype": "F32", "shape": [30, 8], "data_offsets": [0, 960]}
    header: dict[str, Any] = {WORDS: dict(entry)}
    absurd = (0, 1, -1, 2**31, 2**63, 2**64 - 1, 2**64, 1.5, "1", None, [], 10**400)
    for _ in range(int(rng.integers(1, 4))):
        where = header.setdefault(one_of(rng, (*NAMES, "__metadata__")), dict(entry))
        key = one_of(rng, ("dtype", "shape", "data_offsets", "more"))
        size = int(one_of(rng, (0, 1, 2, 3, 17, 100)))
        where[key] = one_of(
            rng, (one_of(rng, absurd), [one_of(rng, absurd) for _ in range(size)], "F4", "BF16", [0] * 70)
        )
    count = int(one_of(rng, (0, 0, 0, 0, 10_000, 150_000)))
    header |= {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [960, 960]} for n in range(count)}
    text = json.dumps(header).encode()
    if rng.random() < 0.2:
        text = text[:-1] + b"," + text[1:]
    if rng.random() < 0.1:
        text = as_bytes(rng, text.decode()[:-1] + ', "z": ' + one_of(rng, JSON_VALUES)(rng) + "}")
    length = int(one_of(rng, (len(text),) * 8 + (0, len(text) + 1, 2**62, 2**64 - 1)))
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + text + bytes(960))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    look(folder)


# Pickles


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(data)) + data


def pickled(rng: Rng, depth: int = 0) -> bytes:
    """A value as no checkpoint has it."""
    kind = int(rng.integers(14))
    count = int(rng.integers(1, 3000))
    if kind == 0:
        return b")" + b"2\x86" * int(rng.integers(2, 80))  # a tuple that holds itself twice, many levels deep
    if kind == 1:
        return b")" + b"\x85" * count
    if kind == 2:
        return b"]" + b"2\x94h\x00a" if depth else b"]q\x01h\x01a"  # a list in itself
    if kind == 3:
        return number(int(one_of(rng, (-1, 2**62, 2**63, 2**64, 2**20000, -(2**70)))))
    if kind == 4:
        return b"}(" + b"".join(number(k * (2**61 - 1)) + b"N" for k in range(1, count)) + b"u"
    if kind == 5:
        return text(one_of(rng, NAMES))
    if kind == 6:
        return b"}q\x07(" + text("a") + b"h\x07u"  # a dictionary in itself
    if kind == 7:
        return b"ccollections\nOrderedDict\n(" + (pickled(rng, depth + 1) if depth < 4 else b"N") + b"tR"
    if kind == 8:
        return b"ccollections\n" + one_of(rng, (b"OrderedDict", b"Counter", b"deque", b"x" * 900)) + b"\n)R"
    if kind == 9:
        return one_of(rng, (b"N", b"\x88", b"K\x01", b"G" + struct.pack(">d", float("nan")), b"]", b"}", b"\x8f", b")"))
    if kind == 10 and depth < 4:
        return b"(" + b"".join(pickled(rng, depth + 1) for _ in range(int(rng.integers(1, 4)))) + b"t"
    if kind == 11:
        codec = b"c_codecs\nencode\n" + text("x" * 100_000) + b"\x85q\x0b0"
        return (
            codec.replace(b"c_codecs\nencode\n", b"", 1) + b"(" + b"c_codecs\nencode\nh\x0bR" * min(count, 500) + b"t"
        )
    if kind == 12:
        return b"cargparse\nNamespace\n)\x81" + b"}(" + text("a") + b"Nub"
    return b"I" + b"9" * count + b"\n"


def storage(rng: Rng, wild: bool) -> bytes:
    kind = one_of(rng, (b"FloatStorage", b"HalfStorage", b"UntypedStorage", b"ByteStorage"))
    if not wild:
        return b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"M\x00\x04tQ"
    parts = [text("storage"), b"ctorch\n" + kind + b"\n", text("0"), text("cpu"), b"M\x00\x04"]
    parts[int(rng.integers(5))] = pickled(rng)
    return b"(" + b"".join(parts) + b"tQ"


def tensor(rng: Rng, *wild: str) -> bytes:
    value = {"storage": storage(rng, "storage" in wild), "offset": b"K\x00", "shape": b"K\x1eK\x08\x86"}
    value |= {"stride": b"K\x08K\x01\x86", "grad": b"\x89", "hooks": b"ccollections\nOrderedDict\n)R"}
    value |= {part: pickled(rng) for part in wild if part != "storage"}
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"".join(value.values()) + b"tR"


SPECIAL_KEYS = ("cfg", "args", "hyper_parameters", "model", "state_dict", "optimizer", "encoder.sentence_encoder.x")


def state(rng: Rng) -> bytes:
    wild = [part for part in ("storage", "offset", "shape", "stride", "grad", "hooks") if rng.random() < 0.15]
    values = [(text(WORDS), tensor(rng, *wild))]
    kind = int(rng.integers(4))
    if kind == 0:  # a fairseq archive
        values = [(text("encoder.sentence_encoder.embed_tokens.weight"), tensor(rng, *wild))]
        values = [
            (text("model"), dictionary(values)),
            (text("cfg"), b"comegaconf.dictconfig\nDictConfig\n)\x81q\x08}("),
        ]
        values[1] = (
            text("cfg"),
            values[1][1]
            + text("_content")
            + dictionary([(text("model"), one_of(rng, (b"h\x08", pickled(rng))))])
            + b"ub",
        )
    elif kind == 1:  # of Lightning
        said = [
            (text("model_type"), text("xlm-roberta")),
            (text("num_attention_heads"), b"K\x02"),
            (text("x"), pickled(rng)),
        ]
        values = [
            (text("state_dict"), dictionary(values)),
            (text("hyper_parameters"), dictionary([(text("c"), dictionary(said))])),
        ]
    for _ in range(int(rng.integers(0, 3))):
        key = text(one_of(rng, (*NAMES, *SPECIAL_KEYS))) if rng.random() < 0.8 else pickled(rng)
        values.append((key, pickled(rng) if rng.random() < 0.7 else tensor(rng, "shape")))
    return dictionary(values)


def dictionary(values: list[tuple[bytes, bytes]]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in values) + b"u"


def pickles(seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    data = b"\x80\x02" + state(rng) + b"."
    if rng.random() < 0.05:
        data = b"\x80\x02" + b"(" + b"ctorch._tensor\n_rebuild_from_type_v2\n" * 2 + pickled(rng) + b"t."
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/data/0", bytes(4096))
        for n in range(int(one_of(rng, (0,) * 30 + (3000,)))):
            file.writestr(f"archive/data/x{n}", b"")
    name = one_of(rng, ("pytorch_model.bin", "model.pt", "x.ckpt"))
    if rng.random() < 0.15:  # the stream of before 2020
        head = (
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}("
            + text("little_endian")
            + b"\x88u."
        )
        keys = one_of(rng, (b"]" + text("0") + b"a", pickled(rng)))
        stream = head + data + b"\x80\x02" + keys + b"." + struct.pack("<q", 1024) + bytes(4096)
        (folder / name).write_bytes(stream)
    else:
        (folder / name).write_bytes(out.getvalue())
    if rng.random() < 0.5:
        (folder / "config.json").write_text(json.dumps(CONFIG))
    look(folder)


# MessagePack


def msgpack_text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"\xdb" + struct.pack(">I", len(data)) + data


def msgpack_value(rng: Rng, depth: int = 0) -> bytes:
    kind, count = int(rng.integers(9)), int(rng.integers(0, 2000))
    if kind == 0:
        return b"\x91" * count + b"\xc0"
    if kind == 1:
        return b"\xdd" + struct.pack(">I", int(one_of(rng, (count, 2**32 - 1)))) + b"\x80" * count
    if kind == 2:
        return msgpack_text(one_of(rng, NAMES))
    if kind == 3:
        return one_of(
            rng, (b"\xc0", b"\xc3", b"\xcf" + b"\xff" * 8, b"\xcb" + b"\x7f" * 8, b"\xc1", b"\xd4\x05x", b"\x80")
        )
    if kind == 4 and depth < 5:
        inner = [msgpack_text(f"k{n}") + msgpack_value(rng, depth + 1) for n in range(3)]
        return b"\x83" + b"".join(inner)
    if kind == 5:
        content = b"\xdc" + struct.pack(">H", count) + b"\xcf" + b"\xff" * 8 * 1 + b"\x01" * max(0, count - 1)
        content = b"\x93" + content + b"\xa7float32" + b"\xc4\x04" + bytes(4)
        return b"\xc9" + struct.pack(">I", len(content)) + b"\x01" + content
    if kind == 6:
        return b"\x82" + msgpack_text("__msgpack_chunked_array__") + b"\xc3" + msgpack_text("shape") + b"\x91\x01"
    content = b"\x93\x92\x1e\x08\xa7float32\xc5" + struct.pack(">H", 960) + bytes(960)
    return b"\xc8" + struct.pack(">H", len(content)) + b"\x01" + content


def msgpack(seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    entries = [msgpack_text(one_of(rng, NAMES).replace(".", "/") + str(n)) + msgpack_value(rng) for n in range(count)]
    words = b"\x81\xaaembeddings\x81\xafword_embeddings\x81\xa9embedding" + b"\xc8" + struct.pack(">H", 985)
    words = b"\xa7roberta" + words[:-3] + msgpack_value(np.random.default_rng(7))
    data = b"\xde" + struct.pack(">H", count + 1) + words + b"".join(entries)
    (folder / "flax_model.msgpack").write_bytes(data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    look(folder)


# HDF5


@functools.cache
def h5_bytes() -> bytes:
    """A file that has what HDF5 knows: texts in a heap, chunks, filters, links to one dataset, many groups."""
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.attrs["layer_names"] = ["roberta", "lm_head"]
        file.attrs.create("model", "tfxlm_roberta_model", dtype=h5py.string_dtype())
        group = file.create_group("roberta/tfxlm_roberta_model/roberta/embeddings")
        group.create_dataset("word_embeddings/weight:0", data=np.ones((30, 8), "f4"))
        group.create_dataset(
            "a/kernel:0", data=np.ones((64, 8), "f4"), chunks=(64, 8), compression="gzip", shuffle=True
        )
        group.create_dataset("b/kernel:0", data=np.zeros((4096, 8), "f4"), chunks=(16, 8), compression="gzip")
        group["c"] = group["word_embeddings/weight:0"]
        for n in range(40):
            group.create_dataset(f"n{n}/bias:0", data=np.ones(3, "f4")).attrs["dtype"] = "bfloat16"
    return out.getvalue()


SIGNS = (b"GCOL", b"HEAP", b"TREE", b"SNOD", b"FRHP", b"OHDR", b"\x89HDF")


def h5(seed: int, folder: Path) -> None:
    """Sizes, addresses and counts behind the signatures of its blocks."""
    rng = np.random.default_rng(seed)
    data = bytearray(h5_bytes())
    for _ in range(int(rng.integers(1, 4))):
        sign, start, places = one_of(rng, SIGNS), 0, []
        while (start := data.find(sign, start)) >= 0:
            places.append(start)
            start += 1
        place = int(one_of(rng, places)) if places else int(rng.integers(len(data)))
        place += int(rng.integers(4, 80))
        width = int(one_of(rng, (1, 2, 4, 8)))
        own = [*places, 0, 8, 96, len(data)]
        value = int(one_of(rng, (0, 1, 2**64 - 16, 2**64 - 1, 2**63, 2**32 - 1, 2**32 - 16, *own))) & (
            2 ** (8 * width) - 1
        )
        data[place : place + width] = value.to_bytes(width, "little")
    (folder / one_of(rng, ("tf_model.h5", "model.weights.h5"))).write_bytes(data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    look(folder)


def h5_made(seed: int, folder: Path) -> None:
    """Well-formed files with what no checkpoint has."""
    import h5py

    rng = np.random.default_rng(seed)
    with h5py.File(folder / "tf_model.h5", "w") as file:
        file["roberta/embeddings/word_embeddings/weight:0"] = np.ones((30, 8), "f4")
        for _ in range(int(rng.integers(1, 4))):
            kind, name = int(rng.integers(8)), f"x{rng.integers(10**9)}/kernel:0"
            if kind == 0:
                size = int(one_of(rng, (10**6, 10**8)))
                file.create_dataset(name, (size, 8), "f4", chunks=(min(size, 10**6), 8), compression="gzip")
            elif kind == 1:
                file.create_dataset(name, data=np.zeros((2**17, 64), "f4"), chunks=(2**17, 1), compression="gzip")
            elif kind == 2:
                file.create_dataset(name, data=np.ones((1,) * int(rng.integers(1, 32)), "f8"))
            elif kind == 3:
                file.create_dataset(name, data=[1 + 2j])
            elif kind == 4:
                file.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())
            elif kind == 5:
                group = file.create_group(f"loop{rng.integers(10**9)}")
                group["a"], group["b"] = group, file["/"]
            elif kind == 6:
                for n in range(int(rng.integers(1, 3000))):
                    file[f"{name}/links/{n}:0"] = file["roberta/embeddings/word_embeddings/weight:0"]
            else:
                file.require_group("/".join("g" * int(rng.integers(1, 300)) for _ in range(int(rng.integers(1, 80)))))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    look(folder)


# What is no file


def no_file(seed: int, folder: Path) -> None:
    """A pipe, a device, a folder or a link in the place of a file."""
    rng = np.random.default_rng(seed)
    tensors_file(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    name = one_of(
        rng,
        (
            *("config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5"),
            *("flax_model.msgpack", "modules.json", "x.ckpt", "model.pt"),
        ),
    )
    place = folder / name
    if name != "config.json":
        (folder / "model.safetensors").unlink()
    place.unlink(missing_ok=True)
    kind = int(rng.integers(5))
    if kind == 0:
        os.mkfifo(place)
    elif kind == 1:
        place.mkdir()
    else:
        place.symlink_to(("/dev/zero", "/dev/full", place.name)[kind - 2])
    (inspect_model if rng.random() < 0.5 else read_all)(one_of(rng, (folder, place)))


KINDS = {
    "hostile config.json": config_json,
    "hostile index": index_json,
    "hostile safetensors": safetensors,
    "hostile pickles": pickles,
    "hostile msgpack": msgpack,
    "hostile h5, damaged": h5,
    "hostile h5, made": h5_made,
    "no file": no_file,
}
