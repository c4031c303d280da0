"""Work that keeps its order and responses that begin before their request ends, in any rhythm."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bantam.serve import duplex

WAITS = st.integers(0, 5)  # turns of the event loop
CHUNKS = st.lists(st.tuples(WAITS, st.binary(max_size=5)), max_size=12)


class Broken(Exception):
    pass


async def wait(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def left() -> int:
    """Tasks besides this one that are not done, once the loop has had time to end them."""
    await wait(10)
    return len([task for task in asyncio.all_tasks() if not task.done()]) - 1


async def come(chunks: list[tuple[int, Any]]) -> AsyncGenerator[tuple[int, Any], None]:
    for number, (waits, chunk) in enumerate(chunks):
        await wait(waits)
        yield number, chunk


@given(
    st.lists(st.tuples(WAITS, WAITS), max_size=15),
    st.integers(1, 4),
    WAITS,
    st.none() | st.integers(0, 14),
    st.none() | st.integers(0, 14),
)
def test_order_is_kept_and_no_more_is_begun(
    pieces: list[tuple[int, int]], ahead: int, slow: int, broken: int | None, enough: int | None
) -> None:
    """Whatever takes how long; when one fails (`broken`), and when its reader goes (`enough`)."""
    under_way = most = 0
    taken: list[int] = []

    async def work(piece: tuple[int, int]) -> int:
        nonlocal under_way, most
        number, waits = piece
        under_way += 1
        most = max(most, number + 1 - len(taken))
        try:
            await wait(waits)
            if number == broken:
                raise Broken
            return number
        finally:
            under_way -= 1

    async def tried() -> bool:
        failed = False
        try:
            async with aclosing(duplex.ordered(come(pieces), work, ahead)) as made:
                async for number in made:
                    taken.append(number)
                    if number == enough:
                        break
                    await wait(slow)
        except Broken:
            failed = True
        assert under_way == 0
        assert await left() == 0
        return failed

    failed = asyncio.run(tried())
    bad, last = (len(pieces) if end is None else end for end in (broken, enough))
    assert taken == list(range(min(len(pieces), bad, last + 1)))
    assert failed == (bad < len(pieces) and bad <= last)
    assert most <= ahead


@given(CHUNKS, WAITS, st.none() | st.integers(0, 14))
def test_a_body_comes_through_whole_or_its_sender_has_gone(
    chunks: list[tuple[int, bytes]], slow: int, gone: int | None
) -> None:
    closed = False
    sent: list[dict[str, Any]] = []

    async def echoed(received: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            async for chunk in received:
                await wait(slow)
                yield chunk
        finally:
            closed = True

    async def tried() -> None:
        waiting = iter(chunks)
        number = 0

        async def receive() -> dict[str, Any]:
            nonlocal number
            if number == gone:
                return {"type": "http.disconnect"}
            if number > len(chunks):
                await asyncio.sleep(3600)  # a client that waits for its answer
            number += 1
            waits, body = next(waiting, (0, b""))
            await wait(waits)
            return {"type": "http.request", "body": body, "more_body": number <= len(chunks)}

        async def send(message: Any) -> None:
            sent.append(message)
            await wait(slow)

        async with asyncio.timeout(20):
            await duplex.Duplex(echoed, "a/b")({}, receive, send)
        assert await left() == 0

    asyncio.run(tried())
    assert closed or gone is not None
    answered = b"".join(message.get("body", b"") for message in sent)
    whole = b"".join(chunk for _, chunk in chunks)
    if gone is None or gone > len(chunks) + 1:
        assert answered == whole
        assert sent[-1] == {"type": "http.response.body", "body": b""}
    else:
        assert whole.startswith(answered)
