"""Tensor operators written out as C++ of their own: arrays, statements, kernels of products, threads, the compiler."""
