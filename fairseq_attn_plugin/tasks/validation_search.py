"""How validation decodes."""

from argparse import Namespace

MOST = 1_000_000
"""More than any of them needs, and little enough to be counted with."""


def validation_search(cfg, prefix: str, least_beam: int = 1) -> Namespace:
    """``beam``, ``max_len_a`` and ``max_len_b`` for ``build_generator``, from a task's options with these names after
    ``prefix``.

    Raises:
        ValueError: one of them is too small, too large or no number.
    """
    values = {}
    for name, least in (("beam", least_beam), ("max_len_a", 0), ("max_len_b", 1)):
        option = f"{prefix}_{name}"
        values[name] = getattr(cfg, option)
        if values[name] < least:
            raise ValueError(f"--{option.replace('_', '-')}: got {values[name]}; give at least {least}")
        if not values[name] <= MOST:  # not (nan <= 1)
            raise ValueError(f"--{option.replace('_', '-')}: got {values[name]}; give a number of at most {MOST:,}")
    return Namespace(**values)
