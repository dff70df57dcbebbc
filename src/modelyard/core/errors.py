"""Every refusal that Modelyard can utter, each with a stable code.

ModelyardError
├── AuthenticationError   who are you?            key_missing key_malformed key_invalid key_revoked key_expired
│                                                 too_many_attempts
├── AuthorizationError    you may not             scope_missing model_not_allowed
├── LimitError            not now, slow down      rate_limited quota_exhausted concurrency_exceeded
├── OverloadError         not now, we are full    server_busy overloaded inflight_bytes_exceeded
├── NotFoundError         there is no such thing  model_not_found version_not_found endpoint_not_found
│                                                 prediction_not_found key_not_found route_not_found
│                                                 hold_not_found
├── MethodError           not with this verb      method_not_allowed
├── InvalidRequestError   the request is wrong    keys_differ json_invalid json_too_deep json_too_many_values
│                                                 json_duplicate_key field_missing field_type field_unknown
│                                                 input_missing input_unknown input_duplicate shape_invalid
│                                                 shape_mismatch datatype_unknown datatype_mismatch
│                                                 element_count_mismatch value_invalid value_out_of_range
│                                                 output_unknown output_duplicate binary_size_mismatch
│                                                 header_length_invalid batch_empty too_many_items name_invalid
│                                                 parameter_invalid traffic_invalid rate_invalid decompression_failed
│                                                 cursor_invalid http_invalid csv_invalid npy_invalid
├── TooLargeError         the request is too big  body_too_large decompressed_too_large headers_too_large
│                                                 url_too_long too_many_chunks
├── MediaTypeError        in a form not spoken    encoding_unsupported content_type_unsupported
├── DeadlineError         it took too long        receive_timeout request_timeout
├── UnavailableError      not now, try again      model_not_ready shutting_down journal_unavailable snapshot_stale
│                                                 store_unavailable model_unhealthy limits_unavailable
├── ModelError            the model failed        model_failed model_exited model_crashed model_hung_up model_timeout
│                                                 model_out_of_memory tensors_too_large reply_garbled reply_repeated
│                                                 reply_mismatched
├── ConflictError         it is otherwise already version_exists data_folder_in_use client_exists
│                                                 edit_conflict etag_stale key_not_active
│                                                 model_in_traffic idempotency_in_use idempotency_mismatch
│                                                 lease_held lease_lost analytics_unsupported
│                                                 memory_insufficient
├── PublishError          this model is refused   model_empty model_unreadable opset_unsupported
│                                                 external_data_outside format_unknown format_not_allowed
│                                                 runtime_missing types_untrusted manifest_invalid
│                                                 signature_conflict warm_up_failed example_failed publish_timeout
│                                                 archive_unsafe signature_missing signature_invalid
│                                                 signer_unknown jail_unavailable
├── SettingsError         the start is refused    setting_invalid port_in_use data_folder_unusable
│                                                 tls_file_unreadable tls_key_mismatch tls_certificate_expired
│                                                 copy_unfinished schema_outdated
├── CommandError          the command line is     usage_invalid file_unreadable server_not_running
│                         refused                 server_unreachable answer_unreadable conversion_unsupported
│                                                 conversion_differs backup_exists backup_damaged backup_foreign
│                                                 backup_too_new backup_failed backup_unsupported folder_not_empty
│                                                 copy_target_taken copy_same_side copy_failed copy_differs
└── InternalError         our fault               internal

Core knows no HTTP: `http/errors.py` alone maps families to statuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ModelyardError(Exception):
    """A refusal that a caller can act on.

    `message` is one sentence for people; `code` is stable, one of the family's `codes`; `detail` names what was
    wrong: `field`, `expected`, `got`, `example` where they apply, JSON values only. `retry_after_s` is set where
    trying again later can help.
    """

    codes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None, **detail: Any) -> None:
        if code not in self.codes:
            raise ValueError(f"{type(self).__name__} has no code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.detail: Mapping[str, Any] = detail


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


class AuthenticationError(ModelyardError):
    """The caller did not prove who it is."""

    codes = _codes("key_missing key_malformed key_invalid key_revoked key_expired too_many_attempts")


class AuthorizationError(ModelyardError):
    """The caller is known and may not do this."""

    codes = _codes("scope_missing model_not_allowed")


class LimitError(ModelyardError):
    """The client used up what it may use for now."""

    codes = _codes("rate_limited quota_exhausted concurrency_exceeded")


class OverloadError(ModelyardError):
    """The server is full; nothing was done."""

    codes = _codes("server_busy overloaded inflight_bytes_exceeded")


class NotFoundError(ModelyardError):
    """What was asked for does not exist (or is not visible to this key)."""

    codes = _codes(
        "model_not_found version_not_found endpoint_not_found prediction_not_found key_not_found route_not_found "
        "hold_not_found"
    )


class MethodError(ModelyardError):
    """The route exists, this verb on it does not."""

    codes = _codes("method_not_allowed")


class InvalidRequestError(ModelyardError):
    """The request can never succeed as it is."""

    codes = _codes(
        "keys_differ json_invalid json_too_deep json_too_many_values json_duplicate_key field_missing field_type "
        "field_unknown input_missing input_unknown input_duplicate shape_invalid shape_mismatch datatype_unknown "
        "datatype_mismatch element_count_mismatch value_invalid value_out_of_range output_unknown output_duplicate "
        "binary_size_mismatch header_length_invalid batch_empty too_many_items name_invalid parameter_invalid "
        "traffic_invalid rate_invalid decompression_failed cursor_invalid http_invalid csv_invalid npy_invalid"
    )


class TooLargeError(ModelyardError):
    """The request is over a bound; `detail` names the bound's setting."""

    codes = _codes("body_too_large decompressed_too_large headers_too_large url_too_long too_many_chunks")


class MediaTypeError(ModelyardError):
    """The body comes in a form that is not spoken here."""

    codes = _codes("encoding_unsupported content_type_unsupported")


class DeadlineError(ModelyardError):
    """A deadline of the server passed."""

    codes = _codes("receive_timeout request_timeout")


class UnavailableError(ModelyardError):
    """It cannot be done now and may be later."""

    codes = _codes(
        "model_not_ready shutting_down journal_unavailable snapshot_stale store_unavailable model_unhealthy "
        "limits_unavailable"
    )


class ModelError(ModelyardError):
    """The model raised while it ran on a well-formed request, or its jailed process did what none may do."""

    codes = _codes(
        "model_failed model_exited model_crashed model_hung_up model_timeout model_out_of_memory tensors_too_large "
        "reply_garbled reply_repeated reply_mismatched"
    )


class ConflictError(ModelyardError):
    """The present state contradicts what was asked for."""

    codes = _codes(
        "version_exists data_folder_in_use client_exists edit_conflict etag_stale key_not_active model_in_traffic "
        "idempotency_in_use idempotency_mismatch lease_held lease_lost analytics_unsupported memory_insufficient"
    )


class PublishError(ModelyardError):
    """A model is refused; nothing of it was kept."""

    codes = _codes(
        "model_empty model_unreadable opset_unsupported external_data_outside format_unknown format_not_allowed "
        "runtime_missing types_untrusted manifest_invalid signature_conflict warm_up_failed example_failed "
        "publish_timeout archive_unsafe signature_missing signature_invalid signer_unknown jail_unavailable"
    )


class SettingsError(ModelyardError):
    """The program cannot start as it is configured."""

    codes = _codes(
        "setting_invalid port_in_use data_folder_unusable tls_file_unreadable tls_key_mismatch tls_certificate_expired "
        "copy_unfinished schema_outdated"
    )


class CommandError(ModelyardError):
    """The command line cannot do this; never the answer to a request."""

    codes = _codes(
        "usage_invalid file_unreadable server_not_running server_unreachable answer_unreadable conversion_unsupported "
        "conversion_differs backup_exists backup_damaged backup_foreign backup_too_new backup_failed "
        "backup_unsupported folder_not_empty copy_target_taken copy_same_side copy_failed copy_differs"
    )


class InternalError(ModelyardError):
    """Something of ours broke; the details are in the log under the request id."""

    codes = _codes("internal")


FAMILIES: tuple[type[ModelyardError], ...] = (
    AuthenticationError,
    AuthorizationError,
    LimitError,
    OverloadError,
    NotFoundError,
    MethodError,
    InvalidRequestError,
    TooLargeError,
    MediaTypeError,
    DeadlineError,
    UnavailableError,
    ModelError,
    ConflictError,
    PublishError,
    SettingsError,
    CommandError,
    InternalError,
)

CODES: Mapping[str, type[ModelyardError]] = {code: family for family in FAMILIES for code in family.codes}
