"""One call, put together from what a verb knows and what the caller wants, and run on the engine."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from time import monotonic
from typing import Any, Final

from casdk._batches import Repeats
from casdk._calls import Call, Window
from casdk._codecs import Packer
from casdk._driver import Driver, Hooks
from casdk._engine import Caller
from casdk._feeds import Feed, feed_of
from casdk._inputs import Chunk, as_given
from casdk._logging import are_pending, emitted, logger_of
from casdk._options import MINIBATCH, Options, route
from casdk._progress import Progress
from casdk._results import Answer, Embeddings, Nothing
from casdk._transport import Transport
from casdk.errors import InputTypeError, ItemError, shown
from casdk.models import Response

__all__ = ["Plan", "moved"]

LOG: Final = logger_of("casdk.calls")
UNWATCHED: Final = nullcontext()


class Plan:
    """One call before it runs.

    Args:
        transport: The way to the server.
        verb: Endpoint without the model.
        content: The user's iterable, checked.
        options: The call's options.
        answer: Collects the replies.
        prepare: Reads a chunk.
        resend: Whether requests may be repeated once sent.
        candidates: Attribute of nested Documents that travel too.
        keep: Whether a Document travels whole, its uri too.
        allow_empty: Whether a Document without content may travel.
        batch_size: Items per request, unless the options say.
        repeats: Finds items that need not be sent again.
        merged: Whether it carries the items of several calls.
        answer_by: When the last of those gives up, in the engine's time.
        given: Returns the user's item of an index, or what it is given.
        extra: Parameters the verb adds.
    """

    def __init__(
        self,
        transport: Transport,
        verb: str,
        content: Any,
        options: Options,
        answer: Answer,
        *,
        prepare: Callable[[list[Any], Sequence[int]], Chunk],
        resend: bool = True,
        candidates: str | None = None,
        keep: bool = False,
        allow_empty: bool = False,
        batch_size: int = MINIBATCH,
        repeats: Repeats | None = None,
        merged: bool = False,
        answer_by: float | None = None,
        given: Callable[[int, Any], Any] | None = None,
        **extra: Any,
    ) -> None:
        limits = transport.limits
        endpoint, parameters = route(verb, options.parameters, **extra)
        try:
            packer = Packer(
                transport.codec,
                endpoint,
                parameters,
                check_images=options.check_images,
                max_item_bytes=limits.max_item_bytes,
                max_message_bytes=limits.max_message_bytes,
                whole=keep,
                candidates=candidates,
                allow_empty=allow_empty,
            )
        except TypeError as error:  # of a parameter, which it names
            raise InputTypeError(str(error)) from error.__cause__
        except Exception as error:  # of a parameter's own class
            raise InputTypeError(f"parameters cannot be read: {shown(error)}") from error
        timeout = options.deadline_after(transport.timeouts.total)
        self.deadline = None if timeout is None else monotonic() + timeout
        self.feed: Feed = feed_of(content, options.batch_size or batch_size, apart=timeout is not None)
        self.hooks = Hooks(options.on_done, options.on_error, options.on_always, options.return_responses)
        self.gathers = options.gathers
        self.answer = answer if self.gathers else Nothing(answer)
        self.call = Call(
            window=transport.window if options.prefetch is None else Window(options.prefetch),
            retry=transport.retry,
            budget=transport.repeats,
            errors=options.errors,
            resend=resend,
            draw=random.random,
            tolerant=options.on_error is not None,
            on_refuse=partial(_refuse, self.answer, given),
            server=transport.server,
        )
        self._verb, self._transport = verb[1:] or "profile", transport
        self.watch = None
        if transport.telemetry is not None:
            self.watch = transport.telemetry.watch(self._verb, endpoint, self.feed.total, merged)
        self.progress = Progress(verb[1:], self.feed.total) if options.show_progress else None
        self.driver = Driver(
            transport,
            self.call,
            self.feed,
            packer,
            self.answer,
            prepare=prepare,
            candidates=candidates,
            deadline=self.deadline,
            answer_by=answer_by,
            hooks=self.hooks,
            progress=self.progress,
            repeats=repeats,
            watch=self.watch,
        )

    async def run(self, caller: Caller[Any]) -> None:
        """Run the call, with telemetry if the client wants it."""
        began = monotonic()
        with self.watch or UNWATCHED:
            try:
                await self._run(caller)
            finally:
                if self.watch is not None:
                    self.watch.count(self.call.done)
                done, read, where = self.call.done, self.driver.count, self._transport.endpoint
                LOG.debug("%s at %s: %d of %d items done in %.3f s", self._verb, where, done, read, monotonic() - began)
                if are_pending():
                    await emitted(self.deadline)

    async def _run(self, caller: Caller[Any]) -> None:
        """Run the call; an `ItemError` that stops it takes along what was finished."""
        try:
            if self.progress is None:
                await self.driver.run(caller)
            else:
                with self.progress:
                    await self.driver.run(caller)
        except ItemError as error:
            if isinstance(self.answer, Embeddings):
                error.partial = self.answer.partial(self.feed.total or self.driver.count)
            raise

    @property
    def bad(self) -> list[int]:
        """Indices without a result, ascending."""
        return sorted(self.call.bad)

    def repeat(self, repeats: Repeats) -> None:
        """What repeats a bad item is bad too."""
        for index, first in repeats.found:
            if first in self.call.bad:
                self.call.bad[index] = moved(self.call.bad[first], index - first)

    def responses(self) -> list[Response] | None:
        """What a call returns that does not gather: nothing, or the responses in input order."""
        if not self.hooks.keep:
            return None
        return [response for _, response in sorted(self.hooks.responses, key=lambda kept: kept[0])]


def _refuse(answer: Answer, given: Callable[[int, Any], Any] | None, error: ItemError) -> None:
    # No method of Plan's, which holds the call that holds this: a cycle keeps the result until a garbage collection.
    if given is not None:
        error.item = given(error.index, error.item)
    as_given(error)
    answer.refused(error)


def moved(error: ItemError, by: int) -> ItemError:
    """Return a copy of the error whose index is another."""
    copied = copy.copy(error)
    copied.index += by
    return copied
