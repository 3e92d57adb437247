"""The portable form: any request as a versioned JSON document and safetensors, and back, equal. No pickle, no source code."""

from mainspring.engine.portable.export import export as export
from mainspring.engine.portable.graphs import Graph as Graph
from mainspring.engine.portable.limits import Limits as Limits
from mainspring.engine.portable.metrics import Answer as Answer
from mainspring.engine.portable.metrics import Measure as Measure
from mainspring.engine.portable.request import Request as Request

__all__ = ["Answer", "Graph", "Limits", "Measure", "Request", "export"]
