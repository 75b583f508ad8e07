"""What the store on disk gave, in words and for run.json."""

from __future__ import annotations

from typing import Any

from fuseline.lab.training.disk.store import Counts, Store, files_in
from fuseline.progress import Voice


def told(store: Store, before: Counts, voice: Voice) -> dict[str, Any]:
    """Say what was found and what was added since `before`, and return it."""
    done = store.counts.since(before)
    bytes_in = sum(size for _, _, size in files_in(store.folder))
    voice.say(
        f"frozen inputs: {done.hits} outputs from disk ({_size(done.hit_bytes)}), {done.written} computed and added "
        f"({_size(done.written_bytes)}) · {store.folder} holds {_size(bytes_in)} of at most {_size(store.limit)}"
    )
    if done.damaged:
        voice.say(f"frozen inputs: {done.damaged} damaged outputs were left out and computed again")
    if store.trouble:
        voice.say(f"frozen inputs: {store.trouble}; the other outputs stay in memory")
    return {"folder": str(store.folder), **vars(done), "folder_bytes": bytes_in, "trouble": store.trouble}


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"
