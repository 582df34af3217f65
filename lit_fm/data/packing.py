"""Which examples share a row: best-fit packing."""

from collections.abc import Iterable, Sequence


def best_fit(numbers: Iterable[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of examples of at most `capacity` tokens together: the longest first, each where it leaves the least room.

    Best-fit decreasing (Ding et al. 2024, arXiv:2404.10830). How many rows come out depends on the lengths alone; which
    examples share one, on their order as well.

    Raises:
        ValueError: an example is longer than a row.
    """
    order = sorted(numbers, key=lambda number: -lengths[number])
    if order and lengths[order[0]] > capacity:
        raise ValueError(f"an example of {lengths[order[0]]} tokens does not fit in a row of {capacity}: raise it.")
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # numbers of rows, by the room left in them
    rooms = 0  # bit r is set where a row has room for r more
    for number in order:
        length = int(lengths[number])
        enough = rooms >> length
        room = length + (enough & -enough).bit_length() - 1 if enough else capacity
        if enough:
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            rows[row].append(number)
        else:
            row = len(rows)
            rows.append([number])
        with_room[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows
