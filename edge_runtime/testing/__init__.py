"""What every source, trigger line and sink must keep, as tests: for authors of plug-ins, and run on Lineside's own parts, too.

    from edge_runtime.testing import SourceContract, make_source

    class TestMirror(SourceContract):
        @pytest.fixture
        def source(self, tmp_path):
            return make_source(kind="mirror", path=tmp_path)

pytest is needed to run them, not to import them. How to write a plug-in: deploy/developing/plugins.md.
"""

import sys

if (_pytest := sys.modules.get("pytest")) is not None:  # an assertion that fails then shows its values
    _pytest.register_assert_rewrite(*(f"edge_runtime.testing.{name}" for name in ("sinks", "sources", "triggers")))

from edge_runtime.testing.make import make_sink, make_source, make_trigger
from edge_runtime.testing.sinks import PARTS, SinkContract
from edge_runtime.testing.sources import SourceContract
from edge_runtime.testing.triggers import FIRST_SEQ, TriggerContract

__all__ = ["FIRST_SEQ", "PARTS", "SinkContract", "SourceContract", "TriggerContract", "make_sink", "make_source", "make_trigger"]
