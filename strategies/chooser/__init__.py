"""From a stream's settings and what was measured to a plan: a named strategy as it stands, or auto's choice among them.

``choice`` is asked; ``auto`` takes the first of ``rules`` that can be planned, with what speaks ``against``
the other ``candidates``; ``probing`` plans the short runs that may overrule it.
"""
