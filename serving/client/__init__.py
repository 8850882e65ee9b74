"""Asks a language model on any TensorFlow Serving, ours or the stock one.

It needs the signatures of DESIGN.md on the other side and nothing of TensorFlow on
this one: importing it takes a fraction of a second.

```python
with Client("localhost:8500") as client:
    [generation] = client.generate(["To be, or"], max_new_tokens=20, seed=1)
    [score] = client.score(["To be, or not to be"])
    print(generation.text, score.bits_per_byte)
```

`Client` asks over gRPC and waits, `AsyncClient` is the same for asyncio, `RestClient`
for REST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ServingError
from ..export.contract import (
    AnyBeamSettings,
    AnyGenerateSettings,
    BeamSettings,
    FillSettings,
    GenerateSettings,
)
from ..protocol import DType, State
from .async_client import AsyncClient
from .base import SyncClient
from .grpc_client import Client
from .results import (
    Alternative,
    Beam,
    Classification,
    Embedding,
    Filled,
    Generation,
    IdAlternatives,
    LabelInfo,
    Metadata,
    ModelInfo,
    NextTokens,
    PseudoScore,
    Score,
    ShownTokens,
    Signature,
    Tagged,
    TensorSpec,
    TokenAlternatives,
    TokenScores,
    VersionStatus,
)
from .tls import Tls

if TYPE_CHECKING:
    from .rest_client import RestClient

__all__ = [
    "Alternative",
    "AnyBeamSettings",
    "AnyGenerateSettings",
    "AsyncClient",
    "Beam",
    "BeamSettings",
    "Classification",
    "Client",
    "DType",
    "Embedding",
    "FillSettings",
    "Filled",
    "GenerateSettings",
    "Generation",
    "IdAlternatives",
    "LabelInfo",
    "Metadata",
    "ModelInfo",
    "NextTokens",
    "PseudoScore",
    "RestClient",
    "Score",
    "ServingError",
    "ShownTokens",
    "Signature",
    "State",
    "SyncClient",
    "Tagged",
    "TensorSpec",
    "Tls",
    "TokenAlternatives",
    "TokenScores",
    "VersionStatus",
]


def __getattr__(name: str) -> Any:
    """Imports httpx only for those who ask over REST: it doubles the time to import."""
    if name == "RestClient":
        from .rest_client import RestClient

        return RestClient
    raise AttributeError(f"module {__name__} has no attribute {name}")
