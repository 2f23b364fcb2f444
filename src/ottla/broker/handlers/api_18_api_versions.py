"""ApiVersions, versions 0-4: what this broker serves.

    3   the client names its software; a name that cannot be is refused
    4   features whose lowest version is 0 are listed among those that are supported

What is finalized is told in every version that has features: `group.version` 1, by which a client
may take it that there is the consumer protocol.

Which versions there are is what `broker.apis` says. A version that is too new is answered in
version 0 (`unsupported_version`), whatever its request looks like, and the header of the response
has no tagged fields in any version. Kafka: KIP-511, ApiVersionsRequest.isValid.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ottla.broker.apis import APIS
from ottla.errors import codes
from ottla.protocol.messages.api_18_api_versions import ApiVersionsRequest, ApiVersionsResponse

if TYPE_CHECKING:
    from ottla.broker.engine import Engine
    from ottla.broker.requests import Context


_FIRST_VERSION_WITH_VERSION_0 = 4
_FEATURES_EPOCH = 0
"""Counts changes of what is finalized, of which there are none while a broker runs."""


class Feature(NamedTuple):
    """A feature of the cluster.

    Attributes:
        name: its name.
        min_version: the lowest version that is supported.
        max_version: the highest one, inclusive.
        finalized: the one that is in force.
    """

    name: str
    min_version: int
    max_version: int
    finalized: int


FEATURES = (Feature("group.version", 0, 1, 1),)
"""Kafka: Feature, GroupVersion."""

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


def handle(
    engine: Engine, request: ApiVersionsRequest, version: int, context: Context
) -> ApiVersionsResponse:
    """Tell which APIs are served."""
    if version >= 3 and not (
        _SOFTWARE.fullmatch(request.client_software_name)
        and _SOFTWARE.fullmatch(request.client_software_version)
    ):
        return ApiVersionsResponse(error_code=codes.INVALID_REQUEST)
    return ApiVersionsResponse(
        api_keys=_api_keys(),
        supported_features=[
            ApiVersionsResponse.SupportedFeatureKey(
                name=each.name, min_version=each.min_version, max_version=each.max_version
            )
            for each in FEATURES
            if each.min_version > 0 or version >= _FIRST_VERSION_WITH_VERSION_0
        ],
        finalized_features_epoch=_FEATURES_EPOCH,
        finalized_features=[
            ApiVersionsResponse.FinalizedFeatureKey(
                name=each.name, max_version_level=each.finalized, min_version_level=each.finalized
            )
            for each in FEATURES
        ],
    )


def unsupported_version() -> ApiVersionsResponse:
    """Return the answer to a version that is not served; it is encoded in version 0."""
    return ApiVersionsResponse(error_code=codes.UNSUPPORTED_VERSION, api_keys=_api_keys())


def _api_keys() -> list[ApiVersionsResponse.ApiVersion]:
    return [
        ApiVersionsResponse.ApiVersion(
            api_key=key, min_version=api.min_version, max_version=api.max_version
        )
        for key, api in sorted(APIS.items())
    ]
