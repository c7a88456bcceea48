"""A process in a namespace of its own sees no process outside."""

from __future__ import annotations

import os

import pytest

IN_A_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")
