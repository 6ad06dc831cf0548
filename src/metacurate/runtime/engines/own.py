"""Imported first by the server that workers are forked from: it is this program's own process."""

from __future__ import annotations

from metacurate.beside import own_process

own_process()
