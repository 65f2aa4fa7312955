"""Export soon after feedback is given: python event_hook.py."""

import asyncio

from feedback_etl.integrations.events import ExportOnFeedback


async def main() -> None:
    """Give feedback a thousand times, concurrently."""
    async with ExportOnFeedback(on_export=lambda report: print("exported", report.exported_records)) as hook:
        await asyncio.gather(*(give_feedback(number, hook) for number in range(1_000)))


async def give_feedback(feedback_id: int, hook: ExportOnFeedback) -> None:
    """Store the feedback and commit, as an application does; then call the hook."""
    await hook(feedback_id)


if __name__ == "__main__":
    asyncio.run(main())
