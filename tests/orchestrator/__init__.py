"""Tests of the orchestrator.

It is imported before Ray is: from then on Ray does not build an environment for each worker because of `uv run`.
"""

import orchestrator as orchestrator
