"""Which of PyTorch's operators a published model may call: those that compute, none that reaches outside or trusts the
indices that it is given. The names of all 4,300 that PyTorch 2.13 registers (`torch._C._jit_get_all_schemas`) were
screened for files, networks and unchecked memory; their sources were not read one by one."""

from __future__ import annotations

NAMESPACES = frozenset({"aten", "prims", "prim"})
"""Others are of libraries, of other devices, of PyTorch's own tests, or speak with other machines."""
REACHING = frozenset({
    "save", "load", "from_file", "open", "print", "_print", "Print", "rpc_sync", "rpc_async", "rpc_remote",
})  # fmt: skip
"""They read or write files, speak with other machines, or print what a caller sent."""
UNCHECKED = frozenset({
    "_unsafe_index", "_unsafe_index_put", "_unsafe_masked_index", "_unsafe_masked_index_put_accumulate",
    "_sparse_coo_tensor_unsafe", "_sparse_compressed_tensor_unsafe", "_sparse_csr_tensor_unsafe",
    "_sparse_csc_tensor_unsafe", "_sparse_bsr_tensor_unsafe", "_sparse_bsc_tensor_unsafe",
    "set_", "set_data", "resize", "resize_", "resize_as", "resize_as_", "_resize_output", "_resize_output_",
    "_nested_view_from_buffer", "_nested_view_from_buffer_copy", "_nested_view_from_jagged",
    "_nested_view_from_jagged_copy", "data_ptr",
})  # fmt: skip
"""They trust their arguments where others look, or give memory out that nothing was written to."""


def is_allowed(namespace: str, name: str) -> bool:
    """Whether a model may call the operator."""
    return namespace in NAMESPACES and name not in REACHING and name not in UNCHECKED
