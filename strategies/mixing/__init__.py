"""Which rows every optimizer step takes."""

from strategies.mixing.replay import ReplayMixer, old_rows

__all__ = ["ReplayMixer", "old_rows"]
