"""Decides and acts: ingest, triggers, decisions, jobs, evaluation, promotion, rollback, and the faces."""
