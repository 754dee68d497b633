"""The report's view of the server: the figures that its verdict rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.views import ServerView

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation


def server_view(now: Situation) -> ServerView:
    """Return the figures of the server's situation."""
    return ServerView(
        tgid=now.server.tgid,
        weights_bytes=dict(now.weights.node_bytes),
        weights_error_bytes=now.weights.error_bytes,
        compute_ns=now.compute_ns,
        remote_share=now.remote,
        expected_share=now.expected,
        migrated_pages=now.migrated_pages,
    )
