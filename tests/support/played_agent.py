"""An agent without a cluster, for tests of those who submit."""

from uuid import UUID

from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimBody, ClaimSome, CompleteWork, ReportProgress


class PlayedAgent:
    """Claims one Work after the other, and says of it what the test wants."""

    def __init__(self, client: BrokerClient, agent_id: UUID) -> None:
        self.client = client
        self.agent_id = agent_id

    async def claim(self) -> ClaimBody:
        """Wait for Work, and claim it."""
        (claim,) = await self.client.claim_some(self.agent_id, ClaimSome(wait=20))
        return claim

    async def progress(self, claim: ClaimBody, **fields: object) -> None:
        """Say what it does."""
        body = ReportProgress(claim_id=claim.claim_id, **{"attempt": 1, **fields})
        await self.client.report_progress(claim.id, body)

    async def complete(self, claim: ClaimBody, outcome: str, **fields: object) -> None:
        """Say how it ended."""
        body = CompleteWork(claim_id=claim.claim_id, outcome=outcome, **fields)
        await self.client.complete_work(claim.id, body)
