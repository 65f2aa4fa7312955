"""An application that exports soon after feedback was given: python event_hook.py."""

import asyncio

from feedback_etl.integrations.events import ExportOnFeedback


async def main() -> None:
    """A thousand people give feedback at once."""
    async with ExportOnFeedback(on_export=lambda report: print("exported", report.exported_records)) as hook:
        await asyncio.gather(*(give_feedback(number, hook) for number in range(1_000)))


async def give_feedback(feedback_id: int, hook: ExportOnFeedback) -> None:
    """Here the application stores the feedback and commits; then it tells the hook."""
    await hook(feedback_id)


if __name__ == "__main__":
    asyncio.run(main())
