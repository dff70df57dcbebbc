"""Operators of PyTorch that compute, and believe that some of their tensors fit others: looked at before each call.

Found by calling each allowed operator on tensors that do not fit (docs/decisions/0020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Arguments = Mapping[str, Any]
"""The arguments of a call by their names."""


def guarded(name: str, operator: Any) -> Callable[..., Any]:
    """The operator, or one that first looks whether its tensors fit each other; ValueError if they do not."""
    fits = GUARDS.get(name)
    if fits is None:
        return operator  # type: ignore[no-any-return]
    names = [argument.name for argument in operator._schema.arguments]

    def call(*plain: Any, **named: Any) -> Any:
        if not fits({**dict(zip(names, plain, strict=False)), **named}):
            raise ValueError(f"the tensors that `{name}` is given do not fit each other")
        return operator(*plain, **named)

    return call


def _has_a_number_for_each_channel(given: Arguments) -> bool:
    """Each of them is read as often as the input has channels; unless it trains, mean and variance are read too."""
    beside = [given.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    rank, shape = given["input"].dim(), given["input"].shape
    if not given.get("training") and (beside[2] is None or beside[3] is None):
        return False
    return rank >= 2 and all(each is None or tuple(each.shape) == (shape[1],) for each in beside)


def _has_a_value_for_each_key(given: Arguments) -> bool:
    """Values are read for each key, and the mask for each pair of a query and a key."""
    query, key, value, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    if min(query.dim(), key.dim(), value.dim()) < 2 or key.shape[:-1] != value.shape[:-1]:
        return False
    if query.shape[-1] != key.shape[-1]:
        return False
    pairs = (*query.shape[:-1], key.shape[-2])
    sizes = () if mask is None else tuple(mask.shape)
    return len(sizes) <= len(pairs) and all(
        size in (1, most) for size, most in zip(reversed(sizes), reversed(pairs), strict=False)
    )


GUARDS: Mapping[str, Callable[[Arguments], bool]] = {
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
         "_native_batch_norm_legit_no_training"), _has_a_number_for_each_channel),
    **dict.fromkeys(
        ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"), _has_a_value_for_each_key),
}  # fmt: skip
"""By the operator's name."""
