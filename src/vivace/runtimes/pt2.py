"""The .pt2 file: written with no pickled member, and inspected as plain text before anything of it is trusted."""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from vivace.core.errors import ArtifactError
from vivace.runtimes.graphs import quantized
from vivace.runtimes.sparse import compressed, semi_structured

_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|models/\w+\.json"
    r"|data/sample_inputs/\w+\.pt|data/weights/(weight_\d+|\w+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|\w+_constants_config\.json)"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|prim|quantized|quantized_decomposed|torchao|torchvision)\.(?!__)\w+(\.(?!__)\w+)?"
    r"|torch\.ops\.vivace\.(sparse_linear|semi_structured_linear)\.default"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|scan|while_loop|map_impl)"
    r"|torch\.ops\.aten\.__i?(and|or|xor|lshift|rshift)__\.\w+"
    r"|_operator\.(?!__)\w+|math\.(?!__)\w+|torch\.sym_\w+|torch\._check|torch\._sym_\w+"
)
_FORBIDDEN_TARGETS = re.compile(
    r"torch\.ops\.(aten\.(from_file|save|set_data|wait|warn|_print|seed|manual_seed|_sparse_\w+_unsafe)"
    r"|torchvision\.\w*(read|write|file))\b.*|_operator\.(call|methodcaller|attrgetter|itemgetter|set\w+|del\w+)"
)  # they read or write files, change what is not theirs, or hand kernels indices that nobody checked
_NAMES = frozenset({"name", "as_name"})
_FUNCTIONS = re.compile(
    r"Symbol|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod|Abs|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality"
    r"|(Strict)?(Less|Greater)Than|Piecewise|Identity|floor|ceiling|sqrt|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv"
    r"|CeilDiv|CeilToInt|FloorToInt|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|TruncToFloat|RoundToInt|RoundDecimal"
    r"|LShift|RShift|PowByNatural|FloatPow|IsNonOverlappingAndDenseIndicator|OpaqueUnaryFn_\w+|Bitwise\w+"
)  # the functions that torch.export writes in shape expressions (torch/utils/_sympy/functions.py)
_CONFIG_BYTES = 1 << 28
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
"""The records at the end of a zip archive (PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.14 to 4.3.16)."""


def save(program: ExportedProgram, path: Path) -> None:
    """Write an exported program without its example call, so that no member is pickled. Raises OSError, and
    ArtifactError when it holds something that only pickle could write."""
    example = program.example_inputs
    program.example_inputs = None
    try:
        torch.export.save(program, str(path))
    finally:
        program.example_inputs = example
    refuse_pickles(path)


def load(path: Path) -> ExportedProgram:
    """Read an exported program. Raises ArtifactError for a damaged file or one with a pickled or hostile member."""
    refuse_pickles(path)
    for known in (compressed, semi_structured):
        known.operator()
    quantized.register()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(str(path))
    except Exception as error:  # a damaged graph may fail anywhere inside the deserializer
        raise ArtifactError(f"{path} cannot be read as an exported program: {type(error).__name__}: {error}") from error
    program._guards_code = []  # Python text that torch would compile; `Program` checks calls by the signature instead
    compressed.check(program)
    return program


def numbers(path: Path, wanted: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """Parameters, buffers and constants of a .pt2 file by name, read as they lie there: those of one place share it.

    The file is one that `refuse_pickles` let pass. Raises ArtifactError for a name or a number that is not there.
    """
    kept: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for config in (name for name in archive.namelist() if name.endswith("_config.json")):
                entries = json.loads(archive.read(config))["config"]
                for name in wanted.keys() & entries.keys():
                    member = f"{config.rpartition('/')[0]}/{entries[name]['path_name']}"
                    if member not in kept:
                        kept[member] = _bytes(archive, member)
                    found[name] = _laid(kept[member], wanted[name], entries[name]["tensor_meta"])
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{path} cannot be read as an exported program: {type(error).__name__}: {error}") from error
    if len(found) < len(wanted):
        raise ArtifactError(f"{path} lacks the numbers of {sorted(wanted.keys() - found.keys())[0]!r}")
    return found


def graph_digest(path: Path) -> str:
    """SHA-256 of the graph as torch.export wrote it, in a file that `refuse_pickles` let pass."""
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.partition("/")[2].startswith("models/")]
        return hashlib.sha256(b"".join(map(archive.read, sorted(members)))).hexdigest()


def _bytes(archive: zipfile.ZipFile, member: str) -> Tensor:
    """A member's bytes, in memory of PyTorch's own, which begins where vectors do."""
    read = bytearray(archive.read(member))
    return torch.frombuffer(read, dtype=torch.uint8).clone() if read else torch.empty(0, dtype=torch.uint8)


def _laid(whole: Tensor, dtype: torch.dtype, meta: Any) -> Tensor:
    """A tensor over these bytes. Raises RuntimeError where it would not lie within them."""
    sizes, strides = ([one["as_int"] for one in meta[key]] for key in ("sizes", "strides"))
    laid = whole.view(dtype).as_strided(sizes, strides, meta["storage_offset"]["as_int"])
    return laid.requires_grad_(bool(meta["requires_grad"]))  # as the model's own: its answers carry gradients


def is_operator(path: str) -> bool:
    """Whether an exported graph may hold this operator, given by its path from `torch`."""
    return bool(_TARGET.fullmatch(path)) and not _FORBIDDEN_TARGETS.fullmatch(path)


def refuse_pickles(path: Path) -> None:
    """Check that a .pt2 file can be read without running anything that it brings. Raises ArtifactError.

    torch.export.load would unpickle weights, constants and example inputs, evaluate shape expressions as Python and
    resolve operator names by attribute: each is refused here unless it is of the plain kind that torch writes.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
    except (
        OSError,
        zipfile.BadZipFile,
        UnicodeDecodeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        struct.error,
        EOFError,
        NotImplementedError,
        RecursionError,
    ) as error:
        raise ArtifactError(f"{path} is not a readable .pt2 file: {error}") from error


def _check_directory(path: Path) -> None:
    """Refuse an archive whose directory is not where its end says: two readers could then see two directories."""
    size = path.stat().st_size
    tail = _LOCATOR.size + _END.size
    with path.open("rb") as file:
        file.seek(max(0, size - tail))
        ends = file.read(tail)
        signature, *_, length, offset, comment = _END.unpack(ends[-_END.size :])
        end = size - _END.size
        if ends.startswith(b"PK\x06\x07"):  # torch writes the 64-bit records always
            told = {0xFFFFFFFF: None}
            end = _LOCATOR.unpack(ends[: _LOCATOR.size])[2]
            file.seek(end)
            record, *_, length64, offset64 = _END64.unpack(file.read(_END64.size))
            agree = told.get(length, length) in (None, length64) and told.get(offset, offset) in (None, offset64)
            if record != b"PK\x06\x06" or end + _END64.size + tail != size or not agree:
                raise zipfile.BadZipFile("its two directories do not agree")
            length, offset = length64, offset64
    if signature != b"PK\x05\x06" or comment or offset + length != end:
        raise zipfile.BadZipFile("its directory is not where its end says")


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    roots = {info.filename.split("/")[0] for info in infos}
    if len(roots) != 1 or len({info.filename for info in infos}) != len(infos):
        raise ArtifactError(f"{path} is not one .pt2 archive: top folders {sorted(roots)[:5]}, or names given twice")
    for info in infos:
        name = info.filename.partition("/")[2]
        _check_member(path, info, name)
        if name.startswith("data/sample_inputs/") and info.file_size:
            _check_sample_inputs(path, archive, info)
        if name.endswith("_config.json"):
            _check_config(path, json.loads(archive.read(info)))
        if name.startswith("models/"):
            _check_graph(path, json.loads(archive.read(info)))


def _check_member(path: Path, info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & 0x1 or info.compress_type != zipfile.ZIP_STORED:
        raise ArtifactError(f"{path} holds {info.filename!r} encrypted or compressed; a .pt2 file is stored plainly")
    if ".." in info.filename or "\\" in info.filename or not _MEMBERS.fullmatch(name):
        raise ArtifactError(
            f"{path} holds {info.filename!r}, which is not part of a plain exported program (it could "
            "be pickled); export the model again with torch.export.save and no custom objects"
        )
    if name.endswith(".json") and info.file_size > _CONFIG_BYTES:
        raise ArtifactError(f"{path} holds {info.filename!r} of {info.file_size} bytes; at most {_CONFIG_BYTES}")


def _check_sample_inputs(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    with archive.open(info) as member:
        try:
            torch.load(member, weights_only=True, map_location="cpu")
        except Exception as error:  # the unpickler raises its own and the file's errors
            raise ArtifactError(
                f"{path} keeps its example inputs as a pickle that may run code; save it again without them: "
                "program.example_inputs = None; torch.export.save(program, path)"
            ) from error


def _check_config(path: Path, config: Any) -> None:
    for name, entry in config["config"].items():
        if entry.get("use_pickle") is not False or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise ArtifactError(
                f"{path} keeps {name!r} pickled, which could run code; save the model again with plain "
                "tensors as its parameters, buffers and constants"
            )


def _check_graph(path: Path, graph: Any) -> None:
    for key, value in _strings(graph):
        problem = _problem(key, value)
        if problem:
            raise ArtifactError(
                f"{path} holds the {problem} {value[:80]!r} in its graph, which is not one that "
                "torch.export writes; it is not loaded"
            )


def _problem(key: str, value: str) -> str:
    if key in _NAMES and value and (not value.isidentifier() or iskeyword(value)):
        return "name"
    if key == "as_operator" or (
        key == "target" and "." in value and value.startswith(("torch", "_operator", "math", "#"))
    ):
        return "" if is_operator(value) else "operator"
    if key == "expr_str" and not _is_plain_expression(value):
        return "expression"
    is_nested = value.lstrip().startswith(("[", "{"))  # JSON in a text, where an escape could hide any word
    return "class" if "__enum__" in value or "default_factory_module" in value or (is_nested and "\\u" in value) else ""


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value with the key that it stands under; the keys of tables of names count as names."""
    pending = [(key, node)]
    while pending:
        key, node = pending.pop()
        if isinstance(node, str):
            yield key, node
        elif isinstance(node, dict):
            pending.extend(node.items())
            if key in ("tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values", "custom_obj_values"):
                pending.extend(("name", name) for name in node)
            if key == "range_constraints":
                pending.extend(("expr_str", name) for name in node)
        elif isinstance(node, list):
            pending.extend((key, item) for item in node)


def _is_plain_expression(text: str) -> bool:
    """Whether a shape expression is arithmetic on symbols: no attribute, and no call but of sympy's plain functions."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return _is_arithmetic(tree.body)


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return _is_plain_call(node)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    if isinstance(node, ast.Name):
        return node.id.isidentifier() and not node.id.startswith("_") and node.id not in dir(builtins)
    parts = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop)
    return isinstance(node, parts) and all(_is_arithmetic(child) for child in ast.iter_child_nodes(node))


def _is_plain_call(node: ast.Call) -> bool:
    if not isinstance(node.func, ast.Name) or not _FUNCTIONS.fullmatch(node.func.id):
        return False
    if not all(isinstance(keyword.value, ast.Constant) and keyword.arg for keyword in node.keywords):
        return False
    if node.func.id in ("Symbol", "Float"):
        texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        return len(texts) == len(node.args) and all(re.fullmatch(r"[\w.+-]+", str(text)) for text in texts)
    return all(_is_arithmetic(arg) for arg in node.args)
