"""What Kubernetes takes from nobody: names, labels and sizes that its API refuses."""

import base64
import re
from typing import Any

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")  # value of one
DATA_MAX = 1 << 20  # bytes of a Secret or a ConfigMap


def why_invalid(body: dict[str, Any]) -> str:
    """Return what is wrong with an object; empty: nothing."""
    metadata = body["metadata"]
    if not NAME.fullmatch(metadata["name"]):
        return "metadata.name: must be an RFC 1123 label"
    if not all(map(LABEL.fullmatch, metadata.get("labels", {}).values())):
        return "metadata.labels: must be a label's value, of no more than 63 characters"
    data = body.get("data", {}) | body.get("binaryData", {})
    if sum(len(base64.b64decode(value)) for value in data.values()) > DATA_MAX:
        return "data: Too long: must have at most 1048576 bytes"
    return ""
