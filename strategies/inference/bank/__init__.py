"""Banks: a frozen base model, one adapter a task, and the router that chooses among them (METHODS 3.3, 3.6, 3.7).

This package imports torch, transformers, peft and safetensors only, and its own modules by relative names: an exported
bank carries a copy of it, so that what is served is what was evaluated.

A bank on disk
--------------
``router.json``          format, its own digest; adapters with theirs, classes with their owners, router's settings
``adapters/NAME/``       plain PEFT folders
``head.safetensors``     classification: the head that all tasks share
``router.safetensors``   what the router compares with: class means under the first adapter, or a domain's prototypes
``statistics.*``         what training the next task needs; nothing here reads it
"""

from __future__ import annotations

from .classes import ClassBank
from .domains import DomainBank
from .files import BadBank, Manifest, read_manifest
from .opening import open_bank
from .standalone import load

__all__ = ["BadBank", "ClassBank", "DomainBank", "Manifest", "load", "open_bank", "read_manifest"]
