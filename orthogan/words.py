"""Numbers together with their noun, in the singular or the plural."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return ``1 step``, ``0 steps`` or ``3,000 steps``; ``noun`` is in the singular and takes a plain s.

    Example:
        >>> from orthogan.words import counted
        >>> counted(1, "row label"), counted(12_000, "step")
        ('1 row label', '12,000 steps')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def there_are(number: int, noun: str) -> str:
    """Return ``there is 1 step`` or ``there are 3,000 steps``.

    Example:
        >>> from orthogan.words import there_are
        >>> there_are(1, "direction")
        'there is 1 direction'
    """
    return f"there {'is' if number == 1 else 'are'} {counted(number, noun)}"
