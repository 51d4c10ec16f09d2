"""What can be true of a program, a job or a machine; techniques rely on facts, make them true, or make them false."""

from __future__ import annotations

from enum import Enum


class Fact(Enum):
    """One thing that is or is not so. The value is the phrase that completes "needs ..." in a report."""

    # of the program, changing along a plan
    TORCH_GRAPH = "a program that is still a PyTorch graph"
    ONNX_READY = "a program that can be written as ONNX"
    OPENVINO_READY = "a program that OpenVINO can read"
    RUNNABLE = "a runtime for the program"
    FLOAT32 = "float32 arithmetic"
    UNQUANTIZED = "weights that are not quantized yet"
    UNCOMPILED = "a program that no compiler has taken over yet"
    ON_CPU = "the program to be on the CPU"
    ON_CUDA = "the program to be on a CUDA device"
    CHANNELS_LAST = "channels-last tensors"
    PRUNED = "weights that were pruned (add channel-pruning, low-rank or magnitude-pruning)"
    WRITTEN = "a program that is written out as C++ (add native-program or native-int8)"
    SPARSE_LINEAR = "linear weights that are mostly zeros (prune the model, or add magnitude-pruning)"

    # of a training step, changing along a plan
    AUTOGRAD = "gradients that autograd's backward pass computes"
    WHOLE_BATCH = "batches that are computed as a whole"
    UNSCALED_LOSS = "a loss that is not scaled"
    PLAIN_OPTIMIZER = "an optimizer whose kernels were not chosen yet"
    ONE_PROCESS = "a training in one process"
    WHOLE_LAYERS = "layers that are whole on each process"
    WHOLE_CHAIN = "a model all of whose layers are on each process"
    ONE_COPY = "a model of which no other process holds a copy"

    # of the model, as given
    HAS_CONV2D = "a two-dimensional convolution"
    HAS_LINEAR = "a linear layer"
    HAS_CONV_BATCHNORM = "a convolution followed by batch normalization"
    HAS_LINEAR_BATCHNORM = "a linear layer followed by batch normalization"
    HAS_BRANCHES = "branches of like size that need nothing of each other, or a recurrence in both directions"
    HAS_ATTENTION = "attention"
    HAS_WRITTEN_ATTENTION = "attention that is spelled out (a softmax and products around it)"

    # of the job
    TRAINING = "a training (`vivace train`)"
    FED_ON_DEMAND = "batches that are made when they are asked for, not ahead"
    CALIBRATION = "calibration data (give the workload `data`, or several inputs)"
    NATIVE_ALLOWED = "permission to produce native code (--native, native=True)"

    # of the machine
    BF16_INSTRUCTIONS = "bfloat16 instructions (AVX-512 BF16, AMX, ARM BF16, or a TPU)"
    INT8_INSTRUCTIONS = "int8 dot-product instructions (VNNI, AMX or ARM dot product)"
    INT8_PRODUCTS = "an x86 processor that multiplies bytes in vectors (AVX2 or newer)"
    CUDA_DEVICE = "a CUDA device"
    CUDA_BF16 = "a CUDA device of compute capability 8.0 or newer"
    TPU_DEVICE = "a TPU that JAX can use"
    CXX_COMPILER = "a C++ compiler (install g++ or clang)"


OF_THE_JOB = frozenset({Fact.CALIBRATION, Fact.NATIVE_ALLOWED, Fact.TRAINING})
OF_THE_MACHINE = frozenset(
    {
        *(Fact.BF16_INSTRUCTIONS, Fact.INT8_INSTRUCTIONS, Fact.INT8_PRODUCTS, Fact.CUDA_DEVICE, Fact.CUDA_BF16),
        *(Fact.TPU_DEVICE, Fact.CXX_COMPILER),
    }
)
