"""The named strategies, each a composition with good defaults. A new one is a file here and a line in :data:`NAMED`."""

from __future__ import annotations

from strategies.named.data_mixing import DATA_MIXING
from strategies.named.half_finetune import HALF_FINETUNE
from strategies.named.mos import MOS
from strategies.named.naive import NAIVE
from strategies.named.retrain import RETRAIN
from strategies.named.rewarm_replay import REWARM_REPLAY
from strategies.settings.composition import Named

NAMED: tuple[Named, ...] = (NAIVE, RETRAIN, REWARM_REPLAY, HALF_FINETUNE, DATA_MIXING, MOS)
