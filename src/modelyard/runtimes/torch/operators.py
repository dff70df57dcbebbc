"""Which of PyTorch's operators a published program may call: those that compute, and look where they read and write.

A list of what is allowed, as for TensorFlow: of the 4,300 operators that PyTorch 2.13 registers many trust the indices
and sizes that they are given (`_convert_indices_from_coo_to_csr`, `segment_reduce`, `_reshape_alias`), or give out
memory that nothing was written to (`empty`), which is memory of the server. The names were chosen by what the
operators are documented to do; their sources were not read one by one.
"""

from __future__ import annotations

_ATEN = """
    abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm addmv addr affine_grid_generator alias
    alias_copy all allclose alpha_dropout amax amin aminmax angle any arange arccos arccosh arcsin arcsinh arctan
    arctan2 arctanh argmax argmin argsort as_strided asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d
    avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bernoulli bilinear bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor bmm broadcast_tensors broadcast_to bucketize cat cdist ceil celu
    channel_shuffle cholesky chunk clamp clamp_max clamp_min clip clone col2im column_stack complex concat concatenate
    conj constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution
    copy copysign cos cosh cosine_similarity count_nonzero cross cummax cummin cumprod cumsum deg2rad det detach
    detach_copy diag diag_embed diagonal diagonal_copy diff digamma dist div divide dot dropout dsplit dstack einsum
    elu embedding eq equal erf erfc erfinv exp exp2 expand expand_as expand_copy expm1 eye feature_alpha_dropout
    feature_dropout fill flatten flip fliplr flipud float_power floor floor_divide fmax fmin fmod frac full full_like
    gather ge gelu ger glu greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell
    gt hardshrink hardsigmoid hardswish hardtanh heaviside histc hsplit hstack hypot i0 im2col imag index index_add
    index_copy index_fill index_put index_reduce index_select inner instance_norm inverse is_nonzero isclose isfinite
    isin isinf isnan isneginf isposinf item kron kthvalue layer_norm lcm ldexp le leaky_relu lerp less less_equal lgamma
    lift_fresh lift_fresh_copy linalg_cholesky linalg_cross linalg_det linalg_eigh linalg_inv linalg_inv_ex
    linalg_matrix_norm linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_triangular linalg_svd
    linalg_vecdot linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp logaddexp2
    logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logspace logsumexp lstm lstm_cell lt
    masked_fill masked_scatter masked_select matmul matrix_exp matrix_power max max_pool1d max_pool1d_with_indices
    max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum mean median meshgrid min minimum mish
    mm mode moveaxis movedim msort mul multinomial multiply mv nan_to_num nanmean nanmedian nanquantile nansum narrow
    narrow_copy native_batch_norm native_dropout native_group_norm native_layer_norm ne neg negative new_full new_ones
    new_zeros nextafter nonzero nonzero_numpy norm normal not_equal numpy_T one_hot ones ones_like outer pad
    pairwise_distance pdist permute permute_copy pixel_shuffle pixel_unshuffle polar polygamma positive pow prelu prod
    quantile rad2deg rand rand_like randint randint_like randn randn_like randperm real reciprocal reflection_pad1d
    reflection_pad2d reflection_pad3d relu relu6 remainder repeat repeat_interleave replication_pad1d replication_pad2d
    replication_pad3d reshape reshape_as rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round rrelu
    rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select
    select_copy select_scatter selu sgn sigmoid sign signbit silu sin sinc sinh slice slice_copy slice_scatter slogdet
    softmax softplus softshrink sort special_erf special_erfc special_erfinv special_expit special_expm1 special_log1p
    special_log_softmax special_logit special_logsumexp special_softmax special_xlogy split split_copy split_with_sizes
    split_with_sizes_copy sqrt square squeeze squeeze_copy stack std std_mean sub subtract sum swapaxes swapdims
    sym_constrain_range sym_constrain_range_for_size sym_numel sym_size sym_storage_offset sym_stride t t_copy take
    take_along_dim tan tanh tensor_split tensordot threshold tile to topk transpose transpose_copy triangular_solve
    tril tril_indices triplet_margin_loss triu triu_indices true_divide trunc type_as unbind unbind_copy unflatten
    unfold unfold_copy uniform unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_copy
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d vander var var_mean vdot view view_as view_as_complex view_as_real view_copy vsplit vstack
    where xlogy zero zeros zeros_like

    __and__ __lshift__ __or__ __rshift__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar
    _assert_tensor_metadata _cdist_forward _conj _convolution _linalg_det _linalg_eigh
    _linalg_slogdet _linalg_solve_ex _linalg_svd _local_scalar_dense _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_functional _native_batch_norm_legit_no_training _pdist_forward _safe_softmax
    _scaled_dot_product_flash_attention_for_cpu _softmax _stack _to_copy _unsafe_view _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d

    fft_fft fft_fft2 fft_fftn fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2
    fft_rfftn fft_fftshift fft_ifftshift istft stft
"""
_PRIMS = """
    abs acos acosh add amax amin asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor
    broadcast_in_dim cat ceil clone collapse convert_element_type cos cosh digamma div eq erf erfc exp exp2 expm1 fill
    floor fmax fmin fmod ge gt iota le lgamma log log10 log1p log2 lt maximum minimum mul ne neg pow prod reciprocal
    remainder reshape rev round rsqrt sign sin sinh split_dim sqrt squeeze sub sum tan tanh transpose
    trunc var where
"""
COMPUTING = {"aten": frozenset(_ATEN.split()), "prims": frozenset(_PRIMS.split())}
"""By namespace. Others are of libraries, of other devices, of PyTorch's own tests, or speak with other machines."""
PACKED = frozenset({"data"})
"""Overloads of recurrent layers that believe the sizes of a packed sequence."""


def is_allowed(namespace: str, name: str, overload: str) -> bool:
    """Whether a program may call the operator; one that ends in `_` does in place what the other does."""
    known = COMPUTING.get(namespace, frozenset())
    plain = name.removesuffix("_") if not name.endswith("__") else name
    return (name in known or plain in known) and overload not in PACKED and "out" not in overload.split("_")
