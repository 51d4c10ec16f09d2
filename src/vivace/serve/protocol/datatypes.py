"""The protocol's names of data types, beside torch's and numpy's.

Source: Open Inference Protocol, specification/protocol/inference_rest.md, "Tensor Data Types"; BF16 is Triton's.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Datatype:
    """One element type. `numpy` is numpy's code, or empty where JSON cannot carry the type and numpy may lack it."""

    name: str
    torch: str
    bytes: int
    numpy: str = ""


DATATYPES = (
    Datatype("BOOL", "bool", 1, "?"),
    Datatype("UINT8", "uint8", 1, "u1"),
    Datatype("UINT16", "uint16", 2, "<u2"),
    Datatype("UINT32", "uint32", 4, "<u4"),
    Datatype("UINT64", "uint64", 8, "<u8"),
    Datatype("INT8", "int8", 1, "i1"),
    Datatype("INT16", "int16", 2, "<i2"),
    Datatype("INT32", "int32", 4, "<i4"),
    Datatype("INT64", "int64", 8, "<i8"),
    Datatype("FP16", "float16", 2),
    Datatype("BF16", "bfloat16", 2),
    Datatype("FP32", "float32", 4, "<f4"),
    Datatype("FP64", "float64", 8, "<f8"),
)
OF_TORCH = {datatype.torch: datatype for datatype in DATATYPES}
